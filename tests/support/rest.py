"""A client of the REST interface: one user, short addresses."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

PREFIX = "/api/v1/chat"
OWNER = "ann"
NEW_SESSION = {"llm_provider": "LOCAL", "llm_model": "tiny"}


class Rest:
    """Asks an app as one user in dev mode."""

    def __init__(self, app: Flask, user: str | None = OWNER) -> None:
        self.app = app
        self.user = user
        self._client = app.test_client()

    def of(self, user: str | None) -> Rest:
        """Return the same as someone else; None says nothing of who it is."""
        return Rest(self.app, user)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        prefer: str | None = None,
        **more: Any,
    ) -> TestResponse:
        """Send a request; body is sent as JSON, key as Idempotency-Key."""
        headers = {"X-User-ID": self.user, "Idempotency-Key": key, "Prefer": prefer} | more.pop("headers", {})
        if body is not None:
            more["json"] = body
        given = {name: value for name, value in headers.items() if value is not None}
        return self._client.open(PREFIX + path, method=method, headers=given, **more)

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> TestResponse:
        return self.ask("POST", path, body, **more)

    def put(self, path: str, body: Any = None, **more: Any) -> TestResponse:
        return self.ask("PUT", path, body, **more)

    def delete(self, path: str, **more: Any) -> TestResponse:
        return self.ask("DELETE", path, **more)

    def new_session(self, **fields: Any) -> str:
        """Make a chat session and return its id."""
        session_id: str = self.made("/sessions", {**NEW_SESSION, **fields})["id"]
        return session_id

    def made(self, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """POST something that must be taken, and return the answer."""
        response = self.post(path, body, **more)
        assert response.status_code in (200, 201, 202), response.text
        made: dict[str, Any] = response.get_json()
        return made

    def say(self, session_id: str, content: str = "Hello", **fields: Any) -> dict[str, Any]:
        """Send a message and return it."""
        return self.made(f"/sessions/{session_id}/messages", {"content": content, **fields})

    def admit(self, session_id: str, user: str, role: str = "member") -> Rest:
        """Admit a user and return a client of theirs."""
        self.made(f"/sessions/{session_id}/participants", {"user_id": user, "role": role})
        return self.of(user)


def fault(response: TestResponse) -> tuple[int, str, str | None]:
    """Return what matters of an error: its status, code and field."""
    said = response.get_json()
    return response.status_code, said["error_code"], said["details"]["field"]
