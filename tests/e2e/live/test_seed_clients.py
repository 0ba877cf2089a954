"""The clients of the seed, as they stand: only the address and the session are put in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.chat import Chat, Frame
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

PYTHON = """
import asyncio
import websockets
import json

async def chat_client(session_id):
    uri = f"ws://localhost:8000/api/v1/chat/sessions/{session_id}/websocket"
    
    async with websockets.connect(uri) as websocket:
        print(f"Connected to chat session: {session_id}")
        
        # Send a message
        await websocket.send(json.dumps({
            "type": "send_message",
            "content": "Hello from Python client!"
        }))
        
        # Listen for messages
        async for message in websocket:
            data = json.loads(message)
            print(f"Received: {data}")
            
            if data["type"] == "message_update":
                print(f"New message: {data['message']['content']}")

# Run the client
asyncio.run(chat_client("session-123"))
"""  # noqa: W293

# What the seed leaves to the page is played here: a page that shows, makes ids, and sends once it is open.
JAVASCRIPT = """
const displayMessage = (message) => console.log('New message: ' + message.content);
const updateTypingStatus = () => {};
const generateRequestId = () => Math.random().toString(36).slice(2);

const ws = new WebSocket('ws://localhost:8000/api/v1/chat/sessions/{session_id}/websocket');

// Connection established
ws.onopen = function(event) {
    console.log('Connected to chat session');
};

// Receive messages
ws.onmessage = function(event) {
    const message = JSON.parse(event.data);
    console.log('Received message:', message);
    
    if (message.type === 'message_update') {
        displayMessage(message.message);
    } else if (message.type === 'typing_indicator') {
        updateTypingStatus(message.user_id, message.is_typing);
    }
};

// Send message
function sendMessage(content) {
    ws.send(JSON.stringify({
        type: 'send_message',
        content: content,
        request_id: generateRequestId()
    }));
}

// Send typing indicator
function sendTypingStatus(isTyping) {
    ws.send(JSON.stringify({
        type: isTyping ? 'typing_start' : 'typing_stop'
    }));
}

ws.addEventListener('open', () => {
    sendTypingStatus(true);
    sendMessage('Hello from JavaScript!');
});
"""  # noqa: W293


@pytest.fixture
def chat(sqlite_stack: Stack) -> Chat:
    # Neither client says who it is.
    return sqlite_stack.chat("anonymous")


@pytest.fixture
def session(chat: Chat) -> Frame:
    return chat.new_session("stub:tokens=60,delay=0.02,tag=t")


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        client = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            client.terminate()
            client.wait(10)


def _shown(log: Path) -> list[str]:
    return re.findall(r"^New message: (.*?) ?$", log.read_text(errors="replace"), re.MULTILINE)


def _sees_text_grow(log: Path) -> None:
    whole = expected_text("t", 60).strip()
    wait_until(lambda: whole in _shown(log), seconds=20, why="the client has printed the whole reply")
    growing = [text for text in _shown(log) if text.startswith("t.1 ")]
    assert len(set(growing)) >= 3
    assert all(whole.startswith(text) for text in growing)
    assert growing == sorted(growing, key=len)


def test_the_python_client_sees_text_grow(sqlite_stack: Stack, session: Frame, tmp_path: Path) -> None:
    script = PYTHON.replace("session-123", session["id"]).replace(
        "localhost:8000", f"localhost:{sqlite_stack.web.port}"
    )
    log = tmp_path / "python.log"

    with _running([sys.executable, "-u", "-c", script], log):
        _sees_text_grow(log)

    assert "New message: Hello from Python client!" in log.read_text()


def test_the_javascript_client_sees_text_grow(sqlite_stack: Stack, session: Frame, tmp_path: Path) -> None:
    node = shutil.which("node")
    command = [node or "", "--experimental-websocket", "-e"]
    if node is None or subprocess.run([*command, "new WebSocket"], capture_output=True, check=False).returncode == 9:
        pytest.skip("there is no node here that has WebSocket")
    script = JAVASCRIPT.replace("{session_id}", session["id"])
    script = script.replace("localhost:8000", f"127.0.0.1:{sqlite_stack.web.port}")
    log = tmp_path / "javascript.log"

    with _running([*command, script], log):
        _sees_text_grow(log)

    assert "New message: Hello from JavaScript!" in log.read_text()
