"""A conversation as its viewers see it, over real processes."""

from __future__ import annotations

from tests.e2e.conftest import Product
from tests.support.provider_stub import expected_text


def test_a_reply_grows_before_everyones_eyes_and_ends_as_it_is_stored(product: Product) -> None:
    session = product.chat.new_session("stub:tokens=40,delay=0.02,tag=t")
    with product.chat.watch(session["id"]) as plain, product.chat.watch(session["id"], deltas=1) as delta:
        plain.greeting()
        delta.greeting()

        plain.say("send_message", content="Hello", request_id="r1")
        final = delta.until_action("completed")
        delta.until_job("succeeded")
        plain.until_job("succeeded")

    reply = final["message"]
    assert reply["content"] == expected_text("t", 40)
    assert "".join(delta.pieces(reply["id"])) == reply["content"]
    assert len(delta.pieces(reply["id"])) > 10
    growing = [f["message"]["content"] for f in plain.frames if f.get("action") == "streaming"]
    assert 2 <= len(growing) <= 8
    assert plain.texts == delta.texts
    assert [m["content"] for m in product.chat.messages(session["id"])] == ["Hello", reply["content"]]


def test_a_turn_is_told_in_the_order_of_the_contract(product: Product) -> None:
    session = product.chat.new_session("stub:tokens=3")
    with product.chat.watch(session["id"], deltas=1) as viewer:
        viewer.greeting()

        viewer.say("send_message", content="Hello", request_id="r1")
        viewer.until_job("succeeded")

    told = [
        (f["type"], f.get("action") or f.get("job", {}).get("status"), f.get("message", {}).get("role"))
        for f in viewer.frames[1:]
        if f["type"] != "message_delta"
    ]
    assert told == [
        ("message_update", "new_message", "user"),
        ("message_update", "new_message", "assistant"),
        ("job_update", "queued", None),
        ("job_update", "running", None),
        ("message_update", "completed", "assistant"),
        ("job_update", "succeeded", None),
    ]
    assert viewer.frames[1]["request_id"] == "r1"
