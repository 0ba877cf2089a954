"""What the demo model answers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from aiohttp import web

from chat_backend.config import Settings
from chat_backend.demo_model import DemoModel, answer_to, application
from chat_backend.domain.errors import ProviderError
from chat_backend.domain.prompt import PromptRequest, Turn
from workers.providers.registry import build


def ask(*sayings: str, model: str = "any/model:name") -> list[str]:
    """Say each to a fast demo model with our own client; give the answers, or the errors' codes."""

    async def talk() -> list[str]:
        runner = web.AppRunner(application(DemoModel(tokens_a_second=1e6)), access_log=None)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        settings = Settings(local_llm_base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        provider = build(settings)["LOCAL"]
        try:
            return [await say(provider, saying) for saying in sayings]
        finally:
            await provider.aclose()
            await runner.cleanup()

    async def say(provider, saying: str) -> str:
        texts: list[str] = []
        try:
            await provider.stream(PromptRequest(model, (Turn("user", saying),)), texts.append)
        except ProviderError as error:
            return str(error.code)
        return "".join(texts)

    return asyncio.run(talk())


def test_it_gives_back_what_was_said_and_says_that_it_is_a_demo():
    [answer] = ask("Good morning, Vietnam")

    assert "> Good morning, Vietnam" in answer
    assert "built-in demo model" in answer


def test_the_stream_holds_the_answer_to_the_letter():
    sayings = ["help", "markdown", "long", "count to 20", "a  b\n\n c ünï 😀 "]

    answers = ask(*sayings)

    assert answers == [answer_to(saying, 1) for saying in sayings]


def test_it_counts():
    [answer] = ask("Please count to 20!")

    assert answer.startswith(" ".join(str(number) for number in range(1, 21)))


def test_markdown_has_a_block_of_code():
    [answer] = ask("markdown")

    assert "```python" in answer


def test_it_fails_when_asked_to_and_only_then():
    answers = ask("fail", "fail", "Why does my build fail?")

    assert answers[:2] == ["PROVIDER_FAILED"] * 2
    assert "You said" in answers[2]


def test_it_fails_once():
    answers = ask("fail once", "fail once")

    assert answers[0] == "PROVIDER_FAILED"
    assert "demo" in answers[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_on_loopback_and_goes_promptly_and_quietly_while_it_writes(number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "chat_backend.demo_model", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ))
    wait_until_it_listens(port)
    body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": "long slowly"}]}
    with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body, trust_env=False) as response:
        next(response.iter_raw())
        started = time.monotonic()

        process.send_signal(number)
        said = process.communicate(timeout=10)

    assert (process.returncode, said) == (0, (b"", b""))
    assert time.monotonic() - started < 2


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            names = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()["data"]
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            assert [name["id"] for name in names] == ["demo"]
            return
    pytest.fail("the demo model did not start")
