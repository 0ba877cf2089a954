"""Set up a deployment of two web and two worker processes, and let the chaos loop at it."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TIMINGS
from tests.soak.soak import Soak
from tests.support.databases import Databases
from tests.support.deployment import Deployment
from tests.support.provider_stub import provider_stub
from tests.support.valkey import Valkey


def soak(folder: Path, *, kind: str, seed: int, seconds: float, databases: Databases | None = None) -> Soak:
    """Run a soak over a fresh database and return it, done. Everything is ended afterwards."""
    own = databases or Databases(folder)
    (folder / "valkey").mkdir()
    valkey = Valkey(folder / "valkey")
    valkey.start()
    try:
        with own.new(kind, folder) as url, provider_stub() as stub:
            environment = {"AUTH_MODE": "dev", "DATABASE_URL": url, **TIMINGS, "MAX_ABANDONED_ATTEMPTS": "20"}
            deployment = Deployment(environment, valkey=valkey, stub=stub, folder=folder)
            try:
                deployment.ensure(webs=2, workers=2)
                done = Soak(deployment, seed=seed, seconds=seconds)
                done.run()
                return done
            finally:
                deployment.stop()
    finally:
        valkey.kill()
        if databases is None:
            own.close()
