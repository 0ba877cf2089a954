"""`?render=html`, and the page's files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from flask import Flask

from chat_backend.web import rendering
from chat_backend.web.page import CLIENT, edition
from tests.support.pretend_worker import PretendWorker
from tests.support.rest import Rest, fault

MARKDOWN = "*Hello* <b>you</b>"
HTML = "<p><em>Hello</em> &lt;b&gt;you&lt;/b&gt;</p>\n"


def test_html_is_beside_the_content_wherever_a_message_is_returned_and_asked_for_so(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()
    sent = sqlite_rest.made(f"/sessions/{session_id}/messages?render=html", {"content": MARKDOWN})
    path = f"/messages/{sent['id']}"

    answers = [
        sent,
        sqlite_rest.get(f"/sessions/{session_id}/messages?render=html").get_json()["messages"][0],
        sqlite_rest.get(f"{path}?render=html").get_json(),
        sqlite_rest.put(f"{path}?render=html", {"metadata": {"a": 1}}).get_json(),
    ]

    assert [(answer["content"], answer["content_html"]) for answer in answers] == [(MARKDOWN, HTML)] * 4


def test_who_does_not_ask_for_html_gets_none(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()
    sent = sqlite_rest.say(session_id, MARKDOWN)

    listed = sqlite_rest.get(f"/sessions/{session_id}/messages").get_json()["messages"]
    shown = sqlite_rest.get(f"/messages/{sent['id']}").get_json()

    assert listed == [shown] == [sent]
    assert "content_html" not in sent


def test_a_reply_in_progress_has_no_html_yet(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()
    job = sqlite_rest.say(session_id, process=True)["job"]
    path = f"/messages/{job['assistant_message_id']}?render=html"

    before = sqlite_rest.get(path).get_json()["content_html"]
    PretendWorker(sqlite_rest.app.extensions["backend"]).answer(job["id"])

    assert before is None
    assert sqlite_rest.get(path).get_json()["content_html"].startswith("<p>")


def test_what_there_is_no_time_for_is_null_in_a_list_and_rendered_alone(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()
    slow = "|a|b|\n|-|-|\n" + "|*a*|b|\n" * 3_500
    sent = [sqlite_rest.say(session_id, f"{number}\n\n{slow}") for number in range(12)]

    listed = sqlite_rest.get(f"/sessions/{session_id}/messages?render=html").get_json()["messages"]
    alone = sqlite_rest.get(f"/messages/{sent[-1]['id']}?render=html").get_json()

    assert listed[0]["content_html"] is not None
    assert listed[-1]["content_html"] is None
    assert alone["content_html"] is not None


def test_html_of_a_list_is_bounded_and_the_rest_is_rendered_alone(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()
    code = "```html\n" + "<a " * 1_000 + "\n```\n"
    sent = [sqlite_rest.say(session_id, f"{number}\n\n{code}" + code * 4) for number in range(8)]
    path = f"/sessions/{session_id}/messages?render=html"

    for message in sent:
        assert sqlite_rest.get(f"/messages/{message['id']}?render=html").get_json()["content_html"]
    shown = [message["content_html"] for message in sqlite_rest.get(path).get_json()["messages"]]

    assert shown[0] is not None
    assert shown[-1] is None
    assert sum(len(html or "") for html in shown) <= rendering.REQUEST_CHARACTERS


def test_only_html_can_be_asked_for(sqlite_rest: Rest) -> None:
    session_id = sqlite_rest.new_session()

    response = sqlite_rest.get(f"/sessions/{session_id}/messages?render=pdf")

    assert fault(response) == (422, "INVALID_INPUT", "render")


def test_what_is_kept_of_rendered_texts_has_an_end() -> None:
    kept = rendering.Rendered(most_characters=1_000)

    texts = [kept.html(f"**{number}** " + "x" * 200) for number in range(20)]

    assert [kept.html(f"**{number}** " + "x" * 200) for number in range(20)] == texts
    assert kept.characters <= 1_000


def test_titles_are_searched_in_either_case_and_literally(rest: Rest) -> None:
    for title in ("Разбор полётов", "100% sure", "under_score", "Other"):
        rest.new_session(title=title)
    rest.of("bob").new_session(title="100% his")

    def found(part: str) -> list[str]:
        return [
            session["title"] for session in rest.get("/sessions", query_string={"title": part}).get_json()["sessions"]
        ]

    assert found("рАЗБОР") == ["Разбор полётов"]
    assert found("0% S") == ["100% sure"]
    assert found("r_s") == ["under_score"]
    assert found("%") == ["100% sure"]
    assert found("zzz") == []


def test_the_page_and_its_files_are_there_for_everyone_under_a_strict_policy(jwt_app: Flask) -> None:
    client = jwt_app.test_client()
    with client.get("/") as page:
        sources = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        policy = page.headers["Content-Security-Policy"]

    assert "unsafe" not in policy
    assert policy.startswith("default-src 'self';")
    assert sources
    for source in sources:
        with client.get(source) as file:
            assert (file.status_code, file.headers["Content-Security-Policy"]) == (200, policy)


@pytest.mark.parametrize("path", ["/", "/client/app.js", "/client/at-0123456789abcdef/app.js"])
def test_what_has_not_changed_is_not_sent_again(sqlite_app: Flask, path: str) -> None:
    client = sqlite_app.test_client()
    with client.get(path) as first:
        etag, kept = first.headers["ETag"], first.headers["Cache-Control"]

    with client.get(path, headers={"If-None-Match": etag}) as again:
        assert (again.status_code, again.data) == (304, b"")
    assert kept == "no-cache"


def test_the_files_that_the_page_names_are_kept_without_asking(sqlite_app: Flask) -> None:
    client = sqlite_app.test_client()
    with client.get("/") as page:
        (named,) = re.findall(r'src="([^"]*)"', page.text)

    with client.get(named) as file:
        assert file.headers["Cache-Control"] == "public, max-age=31536000, immutable"


def test_with_any_file_the_edition_changes(tmp_path: Path) -> None:
    shutil.copytree(CLIENT, tmp_path, dirs_exist_ok=True)
    before = edition(tmp_path)

    (tmp_path / "icons" / "plus.svg").write_text("<svg/>")

    assert edition(tmp_path) != before


def test_the_edition_is_the_same_wherever_and_whenever_the_files_were_put(tmp_path: Path) -> None:
    shutil.copytree(CLIENT, tmp_path, dirs_exist_ok=True)
    os.utime(tmp_path / "app.js", (1, 1))

    assert edition(tmp_path) == edition()


def test_all_of_the_page_weighs_less_than_200_kilobytes() -> None:
    assert sum(path.stat().st_size for path in CLIENT.rglob("*.*")) < 200_000


def test_nothing_but_the_pages_files_is_served(sqlite_app: Flask) -> None:
    client = sqlite_app.test_client()

    for name in ("../page.py", "..%2Fpage.py", "/etc/passwd", "languages", "no.js"):
        assert client.get(f"/client/{name}").status_code == 404


def test_a_page_learns_how_to_say_who_is_asking(jwt_app: Flask, sqlite_app: Flask) -> None:
    path = "/api/v1/chat/client-config"

    told = [app.test_client().get(path).get_json() for app in (jwt_app, sqlite_app)]

    assert told == [
        {"auth_mode": "jwt", "flower_url": None, "session_titles": "off"},
        {"auth_mode": "dev", "flower_url": "http://127.0.0.1:5555", "session_titles": "off"},
    ]
