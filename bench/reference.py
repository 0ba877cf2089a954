"""The usual design, as one would write it: FastAPI, one process, SQLite; what the product is measured against.

A ConnectionManager holds the sockets, each send_message starts a task that reads the provider with httpx and
broadcasts every token, and the messages are stored: the question at the start, the reply at the end. Its protocol
knows one frame for text, message_update with the whole message; REFERENCE_DELTAS=1 is the same program with frames
that hold the new piece only: the best that can be made of this design. Nothing of what the product promises (restarts,
retries, several processes, replay, authorisation) is here. Where one could choose, the faster was taken: plain
sqlite3 in WAL mode, uvloop, no limit on connections; and uvicorn's own settings, which compress for who offers it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from typing import Any
from uuid import uuid4

import httpx
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

API = "/api/v1/chat"
DELTAS = os.environ.get("REFERENCE_DELTAS") == "1"
SCHEMA = """
CREATE TABLE IF NOT EXISTS chat_sessions (id TEXT PRIMARY KEY, llm_model TEXT);
CREATE TABLE IF NOT EXISTS chat_messages (id TEXT PRIMARY KEY, session_id TEXT, role TEXT, content TEXT,
    created_at TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX IF NOT EXISTS idx_messages_session ON chat_messages (session_id, created_at);
"""

app = FastAPI()
http = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)
db = sqlite3.connect(os.environ["REFERENCE_DATABASE"], isolation_level=None)
db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)
tasks: set[asyncio.Task[None]] = set()


class ConnectionManager:
    """Who watches which session."""

    def __init__(self) -> None:
        self.active: dict[str, set[WebSocket]] = {}

    async def connect(self, websocket: WebSocket, session_id: str, user_id: str) -> None:
        await websocket.accept()
        self.active.setdefault(session_id, set()).add(websocket)
        greeting = {"type": "connection_established", "session_id": session_id, "user_id": user_id}
        await websocket.send_json(greeting)

    def disconnect(self, websocket: WebSocket, session_id: str) -> None:
        self.active.get(session_id, set()).discard(websocket)

    async def broadcast(self, session_id: str, frame: dict[str, Any]) -> None:
        for websocket in self.active.get(session_id, set()).copy():
            try:
                await websocket.send_json(frame)
            except (RuntimeError, WebSocketDisconnect):
                self.disconnect(websocket, session_id)


manager = ConnectionManager()


@app.get(API + "/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post(API + "/sessions", status_code=201)
async def create_session(body: dict[str, Any]) -> dict[str, str]:
    session_id = str(uuid4())
    db.execute("INSERT INTO chat_sessions VALUES (?, ?)", (session_id, body["llm_model"]))
    return {"id": session_id}


@app.websocket(API + "/sessions/{session_id}/websocket")
async def chat(websocket: WebSocket, session_id: str, user_id: str = "anonymous") -> None:
    await manager.connect(websocket, session_id, user_id)
    try:
        while True:
            frame = await websocket.receive_json()
            if frame["type"] == "send_message":
                question = store(session_id, "user", frame["content"])
                await manager.broadcast(session_id, update(session_id, "new_message", question))
                task = asyncio.create_task(process_and_respond(session_id))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    except WebSocketDisconnect:
        manager.disconnect(websocket, session_id)


def store(session_id: str, role: str, content: str, message_id: str | None = None) -> dict[str, Any]:
    message = {"id": message_id or str(uuid4()), "role": role, "content": content}
    query = "INSERT INTO chat_messages (id, session_id, role, content) VALUES (?, ?, ?, ?)"
    db.execute(query, (message["id"], session_id, role, content))
    return message


def update(session_id: str, action: str, message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message_update", "session_id": session_id, "action": action, "message": message}


async def process_and_respond(session_id: str) -> None:
    model = db.execute("SELECT llm_model FROM chat_sessions WHERE id = ?", (session_id,)).fetchone()[0]
    query = "SELECT role, content FROM chat_messages WHERE session_id = ? ORDER BY created_at, rowid"
    prompt = [{"role": role, "content": content} for role, content in db.execute(query, (session_id,))]
    message_id, parts, length = str(uuid4()), [], 0
    body = {"model": model, "messages": prompt, "stream": True}
    async with http.stream("POST", os.environ["LOCAL_LLM_BASE_URL"] + "/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            choices = json.loads(line[6:])["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                parts.append(text)
                if DELTAS:
                    delta = {"type": "message_delta", "session_id": session_id, "message_id": message_id}
                    await manager.broadcast(session_id, delta | {"start": length, "text": text})
                else:
                    so_far = {"id": message_id, "role": "assistant", "content": "".join(parts), "is_streaming": True}
                    await manager.broadcast(session_id, update(session_id, "streaming", so_far))
                length += len(text)
    reply = store(session_id, "assistant", "".join(parts), message_id)
    await manager.broadcast(session_id, update(session_id, "completed", reply))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", backlog=4096)
