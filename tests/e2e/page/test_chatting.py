"""The page as people use it."""

from __future__ import annotations

import re
from itertools import pairwise
from uuid import uuid4

from playwright.sync_api import Request, expect

from tests.e2e.page.conftest import OpenWindow
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

SLOW = "stub:tokens=60,delay=0.05,tag=t"
QUICK = "stub:tokens=5,tag=q"


def new_user() -> str:
    return f"user {uuid4().hex[:6]}"


def test_whoever_opens_the_page_is_chatting_at_once_and_sees_the_text_grow(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())

    window.begin("Hello", model=SLOW)

    seen: list[str] = [""]

    def grows() -> bool:
        text = window.text_of()
        if text != seen[-1]:
            seen.append(text)
        return len(seen) > 4

    wait_until(grows, seconds=15, why="the text grows")
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    window.wait_for_text(expected_text("t", 60))
    expect(window.reply().locator(".facts")).to_have_text(re.compile(r"LOCAL · stub:.* · 60 tokens · \d.* s"))
    expect(window.page.locator("article[data-mine] .text")).to_have_text("Hello")


def test_enter_sends_shift_enter_breaks_the_line_and_a_draft_survives(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("First", model=QUICK)
    window.wait_for_text(expected_text("q", 5))

    window.field.type("one")
    window.field.press("Shift+Enter")
    window.field.type("two")
    window.page.reload()
    expect(window.field).to_have_value("one\ntwo")
    window.field.press("Enter")

    expect(window.page.locator("article[data-mine] .text").last).to_have_text("one\ntwo")
    expect(window.field).to_have_value("")
    window.wait_for_text(expected_text("q", 5), 1)


def test_a_stopped_reply_keeps_its_text_and_another_can_be_had(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("stub:tokens=400,delay=0.05,tag=t", model="stub")
    wait_until(lambda: len(window.text_of()) > 20, why="there is some text")

    window.page.get_by_role("button", name="Stop").first.click()

    expect(window.reply()).to_have_attribute("data-status", "cancelled")
    kept = window.text_of().strip()
    assert expected_text("t", 400).startswith(kept)
    window.reply().get_by_role("button", name="Another answer").click()
    expect(window.reply(1)).to_have_attribute("data-status", "streaming")
    window.page.get_by_role("button", name="Stop").first.click()
    expect(window.reply(1)).to_have_attribute("data-status", "cancelled")
    assert window.text_of().strip() == kept


def test_a_reply_that_failed_says_why_and_can_be_tried_again(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin(f"stub:fail=400,times=1,tokens=5,tag=a {uuid4()}", model="stub")

    expect(window.reply()).to_have_attribute("data-status", "failed")
    expect(window.reply().locator(".note")).to_contain_text("This answer failed:")
    window.reply().get_by_role("button", name="Try again").click()

    window.wait_for_text(expected_text("a", 5), 1)


def test_a_page_loaded_anew_in_mid_stream_goes_on_with_nothing_lost_or_doubled(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("Hello", model="stub:tokens=2000,delay=0.03,tag=t")
    wait_until(lambda: len(window.text_of()) > 20, why="there is some text")
    before = window.text_of()

    window.page.reload()

    wait_until(lambda: len(window.text_of()) > len(before) + 20, why="the text is there again and goes on")
    expect(window.reply()).to_have_attribute("data-status", "streaming")
    window.reply().get_by_role("button", name="Stop").click()
    expect(window.reply()).to_have_attribute("data-status", "cancelled")
    text = window.text_of().strip()
    assert text.startswith(before.strip())
    assert expected_text("t", 2000).startswith(text)
    expect(window.page.locator("article")).to_have_count(2)


def test_two_people_in_one_chat_see_each_other_and_the_same_text(new_window: OpenWindow, stack: Stack) -> None:
    ann, bob = new_user(), new_user()
    first = new_window().open(user=ann)
    session = first.begin("Hello", model=SLOW)
    first.page.locator(".faces").click()
    first.page.get_by_label("User to invite").fill(bob)
    first.page.get_by_role("button", name="Invite").click()
    expect(first.page.locator(".people li")).to_have_count(2)
    first.page.get_by_role("button", name="Close").click()

    second = new_window().open(user=bob, session=session)
    second.wait_for_state("live")
    expect(first.page.locator(".faces .face")).to_have_count(2)
    second.field.type("I am here")
    expect(first.page.locator(".typists")).to_have_text(f"{bob} is typing …")
    second.field.press("Enter")

    expect(first.page.locator("article .who").filter(has_text=bob)).to_be_visible()
    for window in (first, second):
        window.wait_for_text(expected_text("t", 60), 0)
        window.wait_for_text(expected_text("t", 60), 1)
    second.page.close()
    expect(first.page.locator(".faces .face")).to_have_count(1)


def test_chats_are_found_renamed_archived_and_deleted(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    page, titles = window.page, window.page.locator(".sessions .title")
    for text in ("Über 100% wahr", "Something else"):
        window.open()
        window.begin(text, model=QUICK)
        expect(titles.first).to_have_text(text)

    page.get_by_role("searchbox").fill("über 100%")
    expect(titles).to_have_text(["Über 100% wahr"])
    page.get_by_role("searchbox").fill("0_% w")
    expect(page.get_by_text("No chat is called that.")).to_be_visible()
    page.get_by_role("searchbox").fill("")

    page.get_by_role("button", name="Chat settings", exact=True).click()
    page.get_by_label("Title").fill("A better name")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="A better name")).to_be_visible()
    expect(titles.first).to_have_text("A better name")

    page.get_by_role("button", name="Chat settings", exact=True).click()
    page.get_by_role("button", name="Archive", exact=True).click()
    expect(titles).to_have_text(["Über 100% wahr"])
    page.get_by_role("button", name="Archived").click()
    expect(titles).to_have_text(["A better name"])

    # What is asked for meanwhile is answered that it is no more there.
    window.refuses = "404"
    page.get_by_role("button", name="Chat settings", exact=True).click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good?").click()
    expect(page.get_by_text("Nothing is archived.")).to_be_visible()
    expect(page.get_by_role("heading", name="What would you like to talk about?")).to_be_visible()


def test_what_users_and_models_write_is_never_run(new_window: OpenWindow) -> None:
    window = new_window().open(user="<img src=x onerror=alert(1)>")
    image, script = "<img/src=x/onerror=alert(1)>", "<script>alert(1)</script>"
    probes = (image, script, "[x](javascript:alert(1))", "![x](//evil/x.png)")
    window.begin("<img src=x onerror=alert(1)><svg onload=alert(1)>", model=QUICK)
    window.wait_for_text(expected_text("q", 5))

    for number, probe in enumerate(probes, start=1):
        window.say(f"stub:tokens=2,tag={probe}")
        expect(window.reply(number).locator(".text > p")).to_be_visible()

    assert image in window.text_of(1)
    assert script in window.text_of(2)
    assert window.page.locator("main :is(img, svg, script, iframe)").count() == 0
    assert window.page.locator("main a:not([href^='http'], [href^='mailto'])").count() == 0
    assert window.page.locator("main :is([onerror], [onload])").count() == 0


def test_code_is_shown_as_code_and_a_reply_can_be_copied(new_window: OpenWindow) -> None:
    window = new_window(permissions=["clipboard-read", "clipboard-write"]).open(user=new_user())

    window.begin("stub:tokens=1,tag=`x=1`", model="stub")
    expect(window.reply().locator("code")).to_have_text("x=1")
    window.reply().get_by_role("button", name="Copy").click()

    assert window.run("() => navigator.clipboard.readText()") == "`x=1`.1 "


def test_on_a_phone_the_list_is_a_drawer_and_nothing_is_cut_off(new_window: OpenWindow) -> None:
    window = new_window(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).open(user=new_user())
    window.begin("Hello", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    page = window.page

    page.get_by_role("button", name="Show chats").click()
    expect(page.get_by_role("button", name="New chat")).to_be_in_viewport()
    page.get_by_role("button", name="Hide chats").click()

    expect(page.get_by_role("button", name="New chat")).not_to_be_visible()
    expect(window.field).to_be_in_viewport()
    assert window.run("() => document.documentElement.scrollWidth") == 390


def test_the_page_speaks_another_language_and_remembers_the_theme(new_window: OpenWindow) -> None:
    window = new_window(locale="ru-RU").open(user="аня")

    expect(window.page.get_by_role("button", name="Новый чат")).to_be_visible()
    window.page.get_by_role("button", name="аня").click()
    window.page.get_by_label("Тема").select_option("dark")
    window.page.get_by_label("Язык").select_option("en")

    expect(window.page.get_by_role("button", name="New chat")).to_be_visible()
    assert window.run("() => document.documentElement.dataset.theme") == "dark"


def test_an_operator_sees_how_the_parts_are(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())

    window.page.get_by_role("link", name="Status").click()

    expect(window.page.locator(".card", has_text="Workers")).to_contain_text("1 worker")
    expect(window.page.locator(".card", has_text="Database")).to_contain_text("healthy")
    expect(window.page.get_by_role("link", name="Jobs in Flower")).to_be_visible()


def test_the_whole_page_is_small(new_window: OpenWindow) -> None:
    window = new_window()
    finished: list[Request] = []
    window.page.on("requestfinished", lambda request: finished.append(request))

    window.open(user=new_user())
    expect(window.field).to_be_visible()
    window.page.wait_for_load_state("networkidle")

    sizes = [request.sizes()["responseBodySize"] for request in finished]
    assert len(sizes) > 10
    assert sum(sizes) < 200_000


def test_a_viewer_reads_and_whoever_is_removed_is_shown_out(new_window: OpenWindow, stack: Stack) -> None:
    owner, viewer = stack.chat(), new_user()
    session = owner.new_session(QUICK, title="A private matter")["id"]
    admitted = {"user_id": viewer, "role": "viewer"}
    owner.request("POST", f"/sessions/{session}/participants", json=admitted, status=201)
    window = new_window().open(user=viewer, session=session)
    window.wait_for_state("live")
    # What the page asks about a session while it is being shown out.
    window.refuses = "404"

    owner.send(session, "For your eyes")
    expect(window.page.locator("main").get_by_text("For your eyes")).to_be_visible()
    expect(window.field).to_be_disabled()
    owner.request("DELETE", f"/sessions/{session}/participants/{viewer}", status=204)

    expect(window.page.get_by_text("You are no longer in this chat.")).to_be_visible()
    expect(window.page.locator("main").get_by_text("For your eyes")).not_to_be_visible()
    expect(window.page.get_by_text("A private matter")).not_to_be_visible()
