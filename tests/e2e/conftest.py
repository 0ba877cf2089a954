"""The whole product, running: a provider, a worker and a web process over each database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import Launch
from tests.support.chat import Chat
from tests.support.processes import Process
from tests.support.provider_stub import Stub, provider_stub


@dataclass
class Product:
    """What runs, and a way in."""

    web: Process
    worker: Process
    stub: Stub
    chat: Chat


@pytest.fixture(scope="session")
def stub_server() -> Iterator[Stub]:
    with provider_stub() as stub:
        yield stub


@pytest.fixture
def stub(stub_server: Stub, environment: dict[str, str]) -> Stub:
    """A provider that LOCAL of this deployment points at, its ledger empty."""
    stub_server.clear()
    environment["LOCAL_LLM_BASE_URL"] = stub_server.base_url
    return stub_server


@pytest.fixture
def product(launch: Launch, stub: Stub) -> Iterator[Product]:
    """One web process, one worker, one provider."""
    worker = launch("worker")
    web = launch("web")
    with Chat(web.url) as chat:
        yield Product(web, worker, stub, chat)
