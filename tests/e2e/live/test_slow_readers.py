"""Viewers that read slowly."""

from __future__ import annotations

import socket

import pytest

from tests.support.chat import Viewer
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack, dial_reading_little

TOKENS = 3000


@pytest.fixture(scope="module")
def changes() -> dict[str, str]:
    return {"SEND_TIMEOUT_SECONDS": "60", "OUTBOX_BYTES": "16777216"}


@pytest.mark.parametrize("deltas", [0, 1])
def test_a_slow_reader_gets_fewer_and_larger_pieces_and_holds_nobody_up(stack: Stack, deltas: int) -> None:
    chat = stack.chat()
    session = chat.new_session(f"stub:tokens={TOKENS},delay=0.001,tag=slowly")
    with (
        Viewer(dial_reading_little(stack.web, session["id"], user_id=chat.user, deltas=deltas)) as slow,
        chat.watch(session["id"], deltas=1) as quick,
    ):
        slow.greeting()
        quick.greeting()
        # So much that the rest waits in the server.
        for _ in range(10):
            chat.send(session["id"], "\N{GRINNING FACE}" * 32_000)
        quick.say("send_message", content="Hello")
        final = quick.until_action("completed", seconds=15)["message"]
        _read_faster(slow)
        slow.until_action("completed")

    shown = len(slow.pieces(final["id"])) + sum(f.get("action") == "streaming" for f in slow.frames)
    assert final["content"] == expected_text("slowly", TOKENS)
    assert slow.texts == quick.texts
    assert len(quick.pieces(final["id"])) > 100
    assert shown < 20


def test_a_slow_reader_goes_on_where_it_was_once_it_reads(stack: Stack) -> None:
    chat = stack.chat()
    session = chat.new_session(f"stub:tokens={TOKENS},delay=0.001,tag=slowly")
    with (
        Viewer(dial_reading_little(stack.web, session["id"], user_id=chat.user, deltas=1)) as slow,
        chat.watch(session["id"], deltas=1) as quick,
    ):
        slow.greeting()
        quick.greeting()
        for _ in range(10):
            chat.send(session["id"], "\N{GRINNING FACE}" * 32_000)
        quick.say("send_message", content="Hello")
        quick.until(lambda frame: frame["type"] == "message_delta" and frame["start"] > 3000)
        _read_faster(slow)
        final = slow.until_action("completed")["message"]
        quick.until_action("completed")

    assert slow.texts == quick.texts
    assert "".join(slow.pieces(final["id"])) == final["content"]
    assert len(slow.pieces(final["id"])[0]) > 1000
    assert len(slow.pieces(final["id"])) > 5


def _read_faster(viewer: Viewer) -> None:
    viewer.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
