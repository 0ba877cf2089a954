"""`chat-backend up`: the whole backend on this machine, from nothing. What `make run` starts."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import ssl
import sys
import urllib.error
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chat_backend.cli import embedded, migrate
from chat_backend.cli.supervisor import Console, Program, Supervisor
from chat_backend.cli.terminal import foreground
from chat_backend.config import ConfigError, Settings
from chat_backend.domain.provider_address import endpoint
from chat_backend.startup import warning_of

HELP = "Start everything on this machine: Redis, database, web, worker, Flower and, where no model answers, a demo."

# The Procfile's lines, as they stand there.
WEB = ("gunicorn", "-c", "python:chat_backend.web.gunicorn_conf", "wsgi:app")
WORKER = (
    *("celery", "-A", "workers.app", "worker", "--pool=threads", "--queues=llm"),
    *("--without-gossip", "--without-mingle", "--task-events", "--loglevel=INFO"),
)
FLOWER = ("python", "-m", "chat_backend", "flower")
DEMO_MODEL = (sys.executable, "-m", "chat_backend.demo_model")

READY_SECONDS = 60.0
REDIS_SECONDS = 15.0
DEMO_SECONDS = 15.0
WORKER_SECONDS = 15.0
PROBE_SECONDS = 1.5
# A worker hands its replies over after DRAIN_SECONDS and is gone soon after.
WORKER_REST_SECONDS = 15.0

# Never through a proxy: everything that is asked here is the operator's own.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def add_arguments(parser: ArgumentParser) -> None:
    """Say where the data lives; everything else is a setting."""
    parser.add_argument("--data", type=Path, default=Path("var"), metavar="FOLDER", help="its data (default: var)")


def run(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Run everything until Ctrl-C (0), or until an essential part can't be kept alive (1).

    Raises ConfigError where a setting is wrong, a port taken, or the folder in use.
    """
    folder: Path = arguments.data.resolve()
    mode_is_named = bool(environ.get("AUTH_MODE", "").strip())
    environ = _defaults(environ, folder)
    settings = Settings.from_environment(environ)
    _refuse_open_house(settings, mode_is_named=mode_is_named)
    _refuse_taken_port(settings.bind_host, settings.port, "PORT")
    environ = _flower_port(environ, settings)
    supervisor = Supervisor(Console())
    with _alone_in(folder), foreground():
        supervisor.listen()
        if warning := warning_of(settings):
            supervisor.console.say("", warning)
        try:
            return _run(supervisor, environ, folder)
        finally:
            supervisor.console.say("", "Stopping ...")
            supervisor.stop()
            supervisor.console.say("", "Stopped.")


def _run(supervisor: Supervisor, environ: dict[str, str], folder: Path) -> int:
    environ = _with_redis(supervisor, environ, folder)
    environ = _with_model(supervisor, environ)
    settings = Settings.from_environment(environ)
    if not supervisor.stopping:
        migrate.upgrade(settings.database_url)
    if not supervisor.stopping:
        _start_parts(supervisor, environ, settings)
        _announce_when_ready(supervisor, settings)
    return supervisor.watch()


def _defaults(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of one's own machine: whoever asks is believed, and nobody else can ask."""
    defaults = {
        "AUTH_MODE": "dev",
        "HOST": embedded.LOOPBACK,
        "DATABASE_URL": f"sqlite:///{folder / 'chat.db'}",
        "PYTHONUNBUFFERED": "1",
        "SESSION_TITLES": "words",
    }
    given = {name: value for name, value in environ.items() if value.strip() or name not in defaults}
    # The programs of the environment that we run in come first.
    path = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), environ.get("PATH", os.defpath)]))
    return defaults | given | {"PATH": path}


def _refuse_open_house(settings: Settings, *, mode_is_named: bool) -> None:
    """Nobody is to be believed by other machines merely because nobody said otherwise."""
    if settings.is_dev and not settings.is_on_loopback and not mode_is_named:
        raise ConfigError(
            f"HOST is {settings.host}, where other machines can ask, and without AUTH_MODE whoever asks is believed: "
            "set AUTH_MODE=jwt and JWT_SECRET, or AUTH_MODE=dev if you mean it."
        )


def _refuse_taken_port(host: str, port: int, name: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"Port {port} can't be used ({error.strerror}): set {name} to another one.") from error


def _flower_port(environ: dict[str, str], settings: Settings) -> dict[str, str]:
    """Return the environment with a port for Flower: the one asked for, else the usual one or any free one."""
    try:
        _refuse_taken_port(embedded.LOOPBACK, settings.flower_port, "FLOWER_PORT")
    except ConfigError:
        if environ.get("FLOWER_PORT", "").strip():
            raise
        return environ | {"FLOWER_PORT": str(embedded.free_port())}
    return environ | {"FLOWER_PORT": str(settings.flower_port)}


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder: two servers over the same files would lose data."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"Another `chat-backend up` is using {folder}: stop it, or name another --data."
            ) from error
        yield


def _with_redis(supervisor: Supervisor, environ: dict[str, str], folder: Path) -> dict[str, str]:
    if environ.get("REDIS_URL", "").strip():
        return environ
    valkey = embedded.prepare(folder / "valkey")
    supervisor.start(Program(name="redis", command=valkey.command, environ=environ, is_noise=embedded.is_noise))
    if not supervisor.wait_until(valkey.answers, REDIS_SECONDS) and not supervisor.stopping:
        raise ConfigError(f"The embedded Redis did not answer within {REDIS_SECONDS:.0f} s; its lines above say why.")
    return environ | {"REDIS_URL": valkey.url}


def _with_model(supervisor: Supervisor, environ: dict[str, str]) -> dict[str, str]:
    """Return the environment with a model that answers: the one configured, else the built-in demo."""
    asked = Settings.from_environment(environ).local_llm_base_url
    if supervisor.stopping or _anyone_at(endpoint(asked, "/models")):
        return environ
    port = embedded.free_port()
    url = f"http://{embedded.LOOPBACK}:{port}/v1"
    supervisor.console.say("", f"No model answers at {asked}: a built-in DEMO MODEL stands in for it, at {url}.")
    supervisor.start(Program(name="demo", command=(*DEMO_MODEL, "--port", str(port)), environ=environ, essential=False))
    supervisor.wait_until(lambda: _anyone_at(f"{url}/models"), DEMO_SECONDS)
    return environ | {"LOCAL_LLM_BASE_URL": url}


def _start_parts(supervisor: Supervisor, environ: dict[str, str], settings: Settings) -> None:
    supervisor.start(Program(name="web", command=WEB, environ=environ, stop_seconds=12))
    rest = settings.drain_seconds + WORKER_REST_SECONDS
    supervisor.start(Program(name="worker", command=WORKER, environ=environ, stop_seconds=rest))
    supervisor.start(Program(name="flower", command=FLOWER, environ=environ, essential=False, stop_seconds=5))


def _announce_when_ready(supervisor: Supervisor, settings: Settings) -> None:
    address = f"http://{_shown(settings.bind_host)}:{settings.port}"
    health = f"{address}/api/v1/chat/health"
    if supervisor.wait_until(lambda: _health(health) is not None, READY_SECONDS):
        # Nothing is lost without it: a job waits for its worker. But the first answer should come at once.
        supervisor.wait_until(lambda: _has_worker(_health(health)), WORKER_SECONDS)
    if supervisor.stopping:
        return
    if _health(health) is None:
        supervisor.console.say("", f"Nothing answers at {health} yet; the lines above say why.")
        return
    supervisor.console.say("", _welcome(address, settings))


def _welcome(address: str, settings: Settings) -> str:
    who = (
        "-H 'X-User-ID: alice'" if settings.is_dev else '-H "Authorization: Bearer $(chat-backend token --user alice)"'
    )
    return f"""
  chat_backend is running at {address}

  Chat           {address}/
  API and docs   {address}/docs
  Flower         http://{embedded.LOOPBACK}:{settings.flower_port}
  First request  curl -X POST {address}/api/v1/chat/sessions \\
                   {who} -H 'Content-Type: application/json' \\
                   -d '{{"llm_provider": "LOCAL", "llm_model": "demo"}}'

  Ctrl-C stops everything.
"""


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - not bound here, only shown
        return embedded.LOOPBACK
    return f"[{host}]" if ":" in host else host


def _anyone_at(url: str) -> bool:
    """Say whether anything answers there; a refusal is an answer too, and so is a certificate that is not trusted."""
    try:
        with _opener.open(url, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False


def _health(url: str) -> dict[str, Any] | None:
    """Return what the web process says of the whole, or None while it says nothing or `unhealthy`."""
    try:
        with _opener.open(url, timeout=PROBE_SECONDS) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _has_worker(health: dict[str, Any] | None) -> bool:
    workers = ((health or {}).get("checks") or {}).get("workers") or {}
    return workers.get("status") == "healthy"
