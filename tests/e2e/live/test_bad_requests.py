"""What is no HTTP, or hardly any, sent to a real server: each is answered, and none of it hurts."""

from __future__ import annotations

import re
import socket

import pytest

from tests.support.chat import API, Chat
from tests.support.stack import Stack

POST = f"POST {API}/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User-ID: ann\r\nContent-Type: application/json\r\n"
GET = f"GET {API}/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"
JSON = {"Content-Type": "application/json"}
BODY = '{"llm_provider": "LOCAL", "llm_model": "m"}'

BAD = {
    "a chunk whose size is none": (CHUNKED + "zz\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk of a negative size": (CHUNKED + "-2\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk longer than it says": (CHUNKED + "2\r\n{}{}\r\n0\r\n\r\n", 400),
    "a chunk of four gigabytes": (CHUNKED + "FFFFFFFF\r\n" + "x" * 1_100_000, 413),
    "an encoding that is none": (POST + f"Transfer-Encoding: nonsense\r\n\r\n{BODY}", 501),
    "an encoding after the chunks": (POST + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and a length": (POST + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + f"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{BODY}", 400),
    "a length that is none": (POST + f"Content-Length: x\r\n\r\n{BODY}", 400),
    "a header of 9 KB": (GET + f"X-Long: {'x' * 9000}\r\n\r\n", 431),
    "a thousand headers": (GET + "".join(f"X-{n}: x\r\n" for n in range(1000)) + "\r\n", 431),
    "a line of 9 KB": (f"GET {API}/{'x' * 9000} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
    "a header without a colon": (GET + "nonsense\r\n\r\n", 400),
    "a header with NUL": (GET + "X-User-ID: a\0b\r\n\r\n", 400),
    "a version that is none": (f"GET {API}/sessions HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n", 400),
    "nothing that could be HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.fixture
def chat(stack: Stack) -> Chat:
    return stack.chat()


@pytest.mark.parametrize("what", BAD)
def test_each_is_answered_and_the_process_goes_on(stack: Stack, chat: Chat, what: str) -> None:
    sent, status = BAD[what]

    answer = told(stack, sent.encode("latin-1"))

    assert answer.startswith(b"HTTP/1.1 "), answer
    assert int(answer.split()[1]) == status
    assert b"Traceback" not in answer
    assert chat.request("GET", "/health")["status"] == "healthy"
    assert chat.request("GET", "/sessions")["total_count"] == 0
    assert "Traceback" not in stack.web.log


@pytest.mark.parametrize(("path", "size", "status"), [("/sessions", 1_100_000, 413), ("/nothing", 100_000, 404)])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_can_go_on_at_once(chat: Chat, path: str, size: int, status: int, *, chunked: bool) -> None:
    body = b'{"title": "' + b"x" * size + b'"}'

    for _ in range(5):
        refused = chat.http.post(path, content=iter([body]) if chunked else body, headers=JSON)

        assert refused.status_code == status
        assert refused.headers["Connection"] == "close"
        assert chat.request("GET", "/sessions")["total_count"] == 0


def test_a_body_in_chunks_is_read(stack: Stack) -> None:
    answer = told(stack, f"{CHUNKED}{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n".encode())

    assert re.match(rb"HTTP/1.1 201 ", answer)


def told(stack: Stack, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", stack.web.port), timeout=10) as sock:
        sock.sendall(sent)
        return sock.recv(65536)
