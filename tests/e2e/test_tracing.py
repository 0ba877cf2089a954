"""One name leads from a request through its job to the attempt at a provider, in the logs of every process."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import Product
from tests.support.databases import SQLITE

NAME = "find-me.1"
# No name goes through a database otherwise than any other column.
pytestmark = pytest.mark.parametrize("database_url", [SQLITE], indirect=True)


def lines(log: str, job_id: str) -> list[str]:
    return [line for line in log.splitlines() if job_id in line]


def names(found: list[str]) -> set[str]:
    return {name for line in found for name in re.findall(r"trace_id='([^']*)'", line)}


def test_a_request_can_be_followed_from_rest_to_the_provider(product: Product) -> None:
    session = product.chat.new_session("stub:tokens=3")

    answered = product.chat.http.post(
        f"/sessions/{session['id']}/process-llm", json={"prompt": "Hello"}, headers={"X-Request-ID": NAME}
    )

    job_id = answered.json()["job_id"]
    (call,) = product.stub.ledger()
    assert answered.headers["X-Request-ID"] == NAME
    assert names(lines(product.web.log, job_id)) == {NAME}
    assert names(lines(product.worker.log, job_id)) == {NAME}
    assert any("an attempt ended" in line and "attempt=1" in line for line in lines(product.worker.log, job_id))
    assert call["headers"]["x-client-request-id"] == f"{NAME}.{job_id}.1"


def test_a_frame_can_be_followed_from_the_socket_to_the_provider(product: Product) -> None:
    session = product.chat.new_session("stub:tokens=3")
    with product.chat.watch(session["id"]) as viewer:
        viewer.greeting()
        viewer.say("send_message", content="Hello", request_id="r1")
        job = viewer.until_job("succeeded")["job"]

    (call,) = product.stub.ledger()
    (name,) = names(lines(product.web.log, job["id"]))
    assert re.fullmatch(r"[0-9a-f]{32}", name)
    assert names(lines(product.worker.log, job["id"])) == {name}
    assert call["headers"]["x-client-request-id"] == f"{name}.{job['id']}.1"


def test_every_attempt_keeps_the_name_of_who_asked(product: Product) -> None:
    session = product.chat.new_session("stub:fail=500")

    asked = product.chat.http.post(
        f"/sessions/{session['id']}/process-llm", json={"prompt": "Hello"}, headers={"X-Request-ID": NAME}
    )

    job_id = asked.json()["job_id"]
    assert [call["headers"]["x-client-request-id"] for call in product.stub.ledger()] == [
        f"{NAME}.{job_id}.{number}" for number in (1, 2, 3)
    ]
    assert names(lines(product.worker.log, job_id)) == {NAME}
