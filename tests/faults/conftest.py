"""One deployment for each database, hurt by one test after the other; after each, everything is compared.

A test takes `running`: a web process and a worker in good health. When it is over, whatever it killed is started
again, every job must come to its end, and then the whole database, the provider's ledger and all viewers must agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import TIMINGS
from tests.support.databases import POSTGRESQL, SQLITE, Databases
from tests.support.deployment import Deployment, recovered
from tests.support.provider_stub import provider_stub
from tests.support.valkey import Valkey


@pytest.fixture(scope="session", params=[SQLITE, POSTGRESQL])
def deployment(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    with databases.new(request.param, folder) as url, provider_stub() as stub:
        environment = {"AUTH_MODE": "dev", "DATABASE_URL": url, **TIMINGS}
        made = Deployment(environment, valkey=valkey, stub=stub, folder=folder)
        try:
            yield made
        finally:
            made.stop()
            valkey.kill()


@pytest.fixture
def running(deployment: Deployment) -> Iterator[Deployment]:
    """A healthy deployment; afterwards the invariants must hold over all of it."""
    with recovered(deployment):
        yield deployment
