"""Who may watch: tokens, tickets, participants - when a socket opens and while it is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.chat import API, Chat, Frame, Viewer
from tests.support.stack import Stack, dial, refused, socket_url
from tests.support.tokens import KEY, bearer, token

LEEWAY_SECONDS = 30


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {
        "AUTH_MODE": "jwt",
        "JWT_SECRET": KEY,
        "HOST": "127.0.0.1",
        "TICKET_SECONDS": "1",
        "ALLOWED_ORIGINS": "https://chat.example.com,capacitor://localhost,safari-web-extension://1A2B",
    }


@pytest.fixture
def chat(postgresql_stack: Stack) -> Chat:
    chat = postgresql_stack.chat()
    chat.http.headers.update(bearer(chat.user))
    return chat


@pytest.fixture
def bob(postgresql_stack: Stack) -> Chat:
    bob = postgresql_stack.chat()
    bob.http.headers.update(bearer(bob.user))
    return bob


@pytest.fixture
def session(chat: Chat, bob: Chat) -> Frame:
    session = chat.new_session()
    chat.request(
        "POST", f"/sessions/{session['id']}/participants", json={"user_id": bob.user, "role": "member"}, status=201
    )
    return session


Url = Callable[..., str]


@pytest.fixture
def url(postgresql_stack: Stack) -> Url:
    return lambda session, **query: socket_url(postgresql_stack.web, session["id"], **query)


@pytest.fixture
def watch(url: Url) -> Iterator[Callable[[Chat, Frame], Viewer]]:
    opened: list[Viewer] = []

    def open_one(chat: Chat, session: Frame) -> Viewer:
        viewer = Viewer(dial(url(session), additional_headers=bearer(chat.user)))
        opened.append(viewer)
        viewer.greeting()
        return viewer

    yield open_one
    for viewer in opened:
        viewer.socket.close()


def _ticket(chat: Chat, session: Frame) -> str:
    made = chat.request("POST", f"/sessions/{session['id']}/ws-ticket", status=201)
    return str(made["ticket"])


def test_a_token_that_is_none_is_refused_with_4401(chat: Chat, session: Frame, url: Url) -> None:
    strange = token(chat.user, key="x" * 32)
    headers = [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {strange}"},
        bearer(chat.user, seconds=-LEEWAY_SECONDS - 5),
        {"Authorization": f"Basic {token(chat.user)}"},
    ]
    for given in headers:
        error, code = refused(url(session), additional_headers=given)
        assert (code, error["error_code"]) == (4401, "UNAUTHENTICATED"), given


def test_a_user_id_in_the_address_is_nobody_outside_dev_mode(chat: Chat, session: Frame, url: Url) -> None:
    error, code = refused(url(session, user_id=chat.user))

    assert (code, error["error_code"]) == (4401, "UNAUTHENTICATED")


def test_a_socket_ends_with_its_token(postgresql_stack: Stack, chat: Chat, session: Frame, url: Url) -> None:
    # Tokens are good for half a minute longer than they say; a socket is not.
    with Viewer(dial(url(session), additional_headers=bearer(chat.user, seconds=2))) as viewer:
        viewer.greeting()
        code = viewer.until_closed(seconds=6)

    assert (code, viewer.frames[-1]["error_code"]) == (4401, "UNAUTHENTICATED")


def test_a_ticket_opens_one_socket(chat: Chat, session: Frame, url: Url) -> None:
    ticket = _ticket(chat, session)

    with Viewer(dial(url(session, ticket=ticket))) as viewer:
        greeting = viewer.greeting()
    error, code = refused(url(session, ticket=ticket))

    assert greeting["user_id"] == chat.user
    assert (code, error["error_code"]) == (4401, "UNAUTHENTICATED")


def test_a_ticket_is_good_for_its_session_its_time_and_nothing_else(chat: Chat, session: Frame, url: Url) -> None:
    other = chat.new_session()

    assert refused(url(other, ticket=_ticket(chat, session)))[1] == 4401
    assert refused(url(session, ticket="nonsense"))[1] == 4401
    assert refused(url(session, ticket=""))[1] == 4401
    late = _ticket(chat, session)
    deadline = time.monotonic() + 1.2
    while time.monotonic() < deadline:
        chat.request("GET", f"/sessions/{session['id']}")
    assert refused(url(session, ticket=late))[1] == 4401


def test_a_ticket_of_someone_removed_since_opens_nothing(chat: Chat, bob: Chat, session: Frame, url: Url) -> None:
    ticket = _ticket(bob, session)
    chat.request("DELETE", f"/sessions/{session['id']}/participants/{bob.user}", status=204)

    assert refused(url(session, ticket=ticket))[1] == 4404


def test_a_ticket_opens_an_event_stream_too(postgresql_stack: Stack, chat: Chat, session: Frame) -> None:
    address = f"{postgresql_stack.web.url}{API}/sessions/{session['id']}/events?ticket={_ticket(chat, session)}"
    with httpx.stream("GET", address, timeout=10, trust_env=False) as response:
        line = next(line for line in response.iter_lines() if line.startswith("data:"))

    assert response.status_code == 200
    assert chat.user in line


def test_whoever_is_removed_is_cut_off_everywhere_within_a_second(
    chat: Chat, bob: Chat, session: Frame, watch: Callable[[Chat, Frame], Viewer]
) -> None:
    viewers = [watch(bob, session) for _ in range(3)]
    owner = watch(chat, session)

    chat.request("DELETE", f"/sessions/{session['id']}/participants/{bob.user}", status=204)
    began = time.monotonic()
    codes = [viewer.until_closed(seconds=5) for viewer in viewers]
    seconds = time.monotonic() - began
    message = chat.send(session["id"], "not for bob")
    seen = owner.until_action("new_message")

    assert codes == [4403] * 3
    assert [viewer.frames[-1]["error_code"] for viewer in viewers] == ["NOT_A_PARTICIPANT"] * 3
    assert seconds < 1.5
    assert seen["message"]["id"] == message["id"]


def test_who_leaves_is_cut_off_too(bob: Chat, session: Frame, watch: Callable[[Chat, Frame], Viewer]) -> None:
    viewer = watch(bob, session)

    bob.request("DELETE", f"/sessions/{session['id']}/participants/{bob.user}", status=204)

    assert viewer.until_closed(seconds=5) == 4403


def test_strangers_and_what_is_not_there_are_answered_alike(
    postgresql_stack: Stack, chat: Chat, session: Frame, url: Url
) -> None:
    deleted = chat.new_session()
    chat.request("DELETE", f"/sessions/{deleted['id']}")
    stranger = bearer("stranger")

    answers = [
        refused(url(session), additional_headers=stranger),
        refused(url({"id": uuid4()}), additional_headers=stranger),
        refused(url(deleted), additional_headers=bearer(chat.user)),
        refused(url({"id": "nonsense"}), additional_headers=stranger),
        refused(url({"id": session["id"].replace("-", "")}), additional_headers=bearer(chat.user)),
    ]

    assert {code for _, code in answers} == {4404}
    assert len({(error["error_code"], error["error"], error["details"]["message"]) for error, _ in answers}) == 1


def test_deleting_a_session_ends_its_sockets(
    chat: Chat, bob: Chat, session: Frame, watch: Callable[[Chat, Frame], Viewer]
) -> None:
    viewers = [watch(chat, session), watch(bob, session)]

    chat.request("DELETE", f"/sessions/{session['id']}")

    assert [viewer.until_closed(seconds=5) for viewer in viewers] == [4404, 4404]
    assert [viewer.frames[-1]["error_code"] for viewer in viewers] == ["NOT_FOUND"] * 2


def test_pages_of_allowed_origins_are_let_in_and_of_this_machine_are_not(chat: Chat, session: Frame, url: Url) -> None:
    for origin in ("https://chat.example.com", "capacitor://localhost", "safari-web-extension://1A2B"):
        with Viewer(dial(url(session), origin=origin, additional_headers=bearer(chat.user))) as viewer:
            viewer.greeting()

    for origin in (
        "capacitor://evil",
        "tauri://localhost",
        "http://localhost:3000",
        "http://chat.example.com",
        "https://chat.example.com:8443",
    ):
        with pytest.raises(InvalidStatus) as answer:
            dial(url(session), origin=origin, additional_headers=bearer(chat.user))
        assert answer.value.response.status_code == 403


@contextmanager
def dripping_address() -> Iterator[tuple[str, Event]]:
    """An address that answers and never comes to an end; it notes when it is hung up on."""
    hung_up = Event()

    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not hung_up.wait(0.05):
                    self.wfile.write(b" ")
            hung_up.set()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/keys", hung_up
        hung_up.set()
        server.shutdown()


def test_keys_that_drip_hold_up_no_greenlet_for_longer_than_a_fetch_may_take(postgresql_stack: Stack) -> None:
    with dripping_address() as (address, hung_up):
        web = postgresql_stack.launch("web", JWT_SECRET="", JWT_JWKS_URL=address)
        header = {"kid": "rsa"}
        made_up = jwt.encode({"sub": "eve", "exp": int(time.time() + 600)}, "x" * 32, "HS256", headers=header)
        with Chat(web.url) as chat:
            chat.http.headers["Authorization"] = f"Bearer {made_up}"
            answer = chat.http.get("/sessions", timeout=9)

        assert (answer.status_code, answer.json()["error_code"]) == (503, "KEYS_UNAVAILABLE")
        assert hung_up.wait(5)
