"""Many conversations at once through one web and one worker process."""

from __future__ import annotations

import pytest

from tests.conftest import Launch
from tests.e2e.conftest import Product
from tests.support.chat import Chat
from tests.support.crowd import Watched, converse
from tests.support.databases import SQLITE
from tests.support.provider_stub import Stub, expected_text
from tests.support.waiting import wait_until

TOKENS = 60


def check(seen: list[Watched]) -> None:
    """Each viewer saw the whole reply at its end, and before that a beginning of it, without a gap.

    Where the machine stood still for a moment, text on its way is given up and a reply's end tells it all. That may
    happen to some, and most see every piece live.
    """
    live = 0
    for number, watched in enumerate(seen):
        expected, pieces = expected_text(f"c{number}", TOKENS), "".join(watched.pieces)
        assert watched.in_order
        assert expected.startswith(pieces)
        assert watched.final["content"] == expected
        live += pieces == expected
    assert live > len(seen) / 2


@pytest.mark.timeout(240)
def test_100_conversations_at_once_lose_nothing(product: Product) -> None:
    check(converse(product.web.url, 100, model=f"stub:tokens={TOKENS},delay=0.02", seconds=150))
    assert len(product.stub.ledger()) == 100


@pytest.mark.timeout(240)
def test_300_conversations_at_once_lose_nothing(launch: Launch, stub: Stub, environment: dict[str, str]) -> None:
    if environment["DATABASE_URL"].startswith("sqlite"):
        pytest.skip("300 at once is promised on PostgreSQL")
    launch("worker")
    web = launch("web")

    check(converse(web.url, 300, model=f"stub:tokens={TOKENS},delay=0.02", seconds=150))
    assert len(stub.ledger()) == 300


# Whose turn it is, on both databases, is a test of the services.
@pytest.mark.parametrize("database_url", [SQLITE], indirect=True)
def test_one_users_many_replies_do_not_hold_up_anothers_one(
    launch: Launch, stub: Stub, environment: dict[str, str]
) -> None:
    environment["WORKER_CONCURRENCY"] = "2"
    launch("worker")
    with Chat(launch("web").url, "ann") as ann, ann.as_user("bob") as bob:
        many = [ann.ask(ann.new_session("stub:tokens=10,delay=0.05")["id"], "x")["job_id"] for _ in range(9)]
        wait_until(lambda: len(stub.ledger()) >= 2, why="all places are taken")

        one = bob.ask(bob.new_session("stub:tokens=10,delay=0.05")["id"], "bob's")["job_id"]
        before = len(stub.ledger())
        ended = [bob.wait_for_job(one)["status"], *(ann.wait_for_job(job)["status"] for job in many)]

    asked = [entry["last_user_message"] for entry in stub.ledger()]
    assert ended == ["succeeded"] * 10
    assert len(asked) == 10
    # Two may be on their way already, and one begin beside the last place.
    assert asked.index("bob's") <= before + 3
