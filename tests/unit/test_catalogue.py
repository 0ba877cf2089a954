"""Wishes for a provider's models wait in a line that has a bound."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from chat_backend.config import Settings
from chat_backend.realtime.connection import client
from workers.model_lists import Catalogue
from workers.providers.registry import build

NOTHING = {"AUTH_MODE": "dev", "DATABASE_URL": "sqlite:///never-opened.db", "REDIS_URL": "redis://127.0.0.1:1"}
Submitted = list[tuple[Callable[[str], None], str]]


@pytest.fixture
def submitted() -> Submitted:
    return []


@pytest.fixture
def catalogue(submitted: Submitted) -> Iterator[Catalogue]:
    settings = Settings.from_environment(NOTHING)
    loop = asyncio.new_event_loop()
    yield Catalogue(
        client(settings),
        build(settings),
        loop,
        fresh_seconds=60,
        submit=lambda work, name: submitted.append((work, name)),
    )
    loop.close()


def names(submitted: Submitted) -> list[str]:
    return [name for _, name in submitted]


def test_a_wish_that_waits_is_not_lined_up_again(catalogue: Catalogue, submitted: Submitted) -> None:
    for _ in range(100):
        catalogue.wanted(b"LOCAL")
        catalogue.wanted(b"no provider")

    assert names(submitted) == ["LOCAL"]


def test_a_wish_that_comes_after_one_was_begun_counts_even_where_redis_is_away(
    catalogue: Catalogue, submitted: Submitted
) -> None:
    catalogue.wanted(b"LOCAL")
    work, name = submitted[0]
    work(name)

    catalogue.wanted(b"LOCAL")

    assert names(submitted) == ["LOCAL", "LOCAL"]
