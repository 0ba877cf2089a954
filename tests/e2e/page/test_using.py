"""The page where something is in the way: a server that refuses or is slow, a small window, no mouse, no clipboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Route, WebSocketRoute, expect

from chat_backend.domain.errors import ErrorCode
from chat_backend.web.markdown import Patience, render
from tests.e2e.page.conftest import OpenWindow
from tests.support.browser import Window
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

QUICK = "stub:tokens=5,tag=q"
LONG = "stub:tokens=5000,delay=0.005,tag=t"
SESSIONS = re.compile(r"/api/v1/chat/sessions(\?|$)")
SOCKETS = re.compile("/websocket")


def new_user() -> str:
    return f"user {uuid4().hex[:6]}"


def refusal(status: int, code: str, message: str = "In the server's words.", **more: Any) -> Callable[[Route], None]:
    """Answer a request in the server's stead."""
    body = {"error": code, "error_code": code, "details": {"field": None, "message": message}, **more}
    return lambda route: route.fulfill(status=status, json=body)


def hold(window: Window, pattern: re.Pattern[str] | str) -> Callable[[int], list[Route]]:
    """Let requests wait; returns what waits for so many of them and gives all that were held."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    window.page.route(pattern, keep)
    # Playwright hears of requests while it is asked for something.
    return lambda count: wait_until(lambda: window.run("1") and len(held) >= count and held, why="it is asked for")


# Reading and writing


def test_whoever_scrolls_up_stays_there_while_the_answer_goes_on(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("Hello", model=LONG)
    place = (
        "() => { const { scrollTop, scrollHeight, clientHeight } = document.querySelector('.log');"
        " return [scrollTop, scrollHeight - scrollTop - clientHeight]; }"
    )
    wait_until(lambda: window.run(place)[0] > 100, why="the end is kept in view")

    window.page.locator(".log").hover()
    window.page.mouse.wheel(0, -40)
    expect(window.page.get_by_role("button", name="Newest messages")).to_be_visible()
    top, length = window.run(place)[0], len(window.text_of())
    wait_until(lambda: len(window.text_of()) > length + 500, why="the text goes on")
    assert window.run(place)[0] == top

    window.page.get_by_role("button", name="Newest messages").click()
    length = len(window.text_of())
    wait_until(lambda: len(window.text_of()) > length + 500, why="the text goes on")
    wait_until(lambda: window.run(place)[1] <= 1, why="the end is in view again")
    window.page.get_by_role("button", name="Stop").first.click()


def test_a_suggestion_clicked_twice_begins_one_chat_and_leaves_the_draft(new_window: OpenWindow, stack: Stack) -> None:
    user = new_user()
    window = new_window().open(user=user)
    window.page.get_by_label("Model", exact=True).fill(QUICK)
    window.field.fill("Written before")

    window.page.get_by_role("button", name="help", exact=True).dblclick()
    window.wait_for_text(expected_text("q", 5))

    sessions = stack.chat(user).request("GET", "/sessions")["sessions"]
    assert [session["message_count"] for session in sessions] == [2]
    window.page.get_by_role("button", name="New chat").click()
    expect(window.field).to_have_value("Written before")


def test_a_chat_that_could_not_be_made_leaves_what_was_written(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.refuses = "409"
    text = "a" * 59 + "😀😀😀"
    window.page.get_by_label("Model", exact=True).fill(QUICK)
    window.page.route(
        SESSIONS,
        lambda route: refusal(409, "TOO_MANY_SESSIONS")(route) if route.request.method == "POST" else route.continue_(),
    )

    window.say(text)
    expect(window.page.locator(".notice")).to_have_text("You own as many chats as one user may. Delete some first.")
    expect(window.field).to_have_value(text)
    window.page.unroute(SESSIONS)
    window.field.press("Enter")

    window.wait_for_text(expected_text("q", 5))
    # A title is cut between characters, never within one.
    expect(window.page.get_by_role("heading", level=1)).to_have_text("a" * 59 + "😀 …")


def test_a_message_that_was_refused_says_why_and_can_be_sent_after_all(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("First", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    is_refusing = True

    def between(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def said(frame: str | bytes) -> None:
            command = json.loads(frame)
            if not is_refusing or command["type"] != "send_message":
                return server.send(frame)
            details = {"field": None, "message": "In the server's words."}
            refused = {"type": "error", "error_code": "QUEUE_FULL", "details": details}
            return socket.send(json.dumps(refused | {"request_id": command["request_id"]}))

        socket.on_message(said)

    window.page.route_web_socket(SOCKETS, between)
    window.page.reload()
    window.wait_for_state("live")
    window.say("Second")
    refused = window.page.locator("article[data-status=refused]")
    expect(refused.locator(".note")).to_contain_text("Not sent: Too many questions wait here already.")
    window.page.reload()
    expect(refused).to_contain_text("Second")
    is_refusing = False
    window.wait_for_state("live")
    refused.get_by_role("button", name="Try again").click()

    window.wait_for_text(expected_text("q", 5), 1)
    expect(window.page.locator("article")).to_have_count(4)
    window.page.reload()
    expect(window.page.locator("article")).to_have_count(4)


def test_code_is_copied_where_there_is_no_clipboard_for_pages(new_window: OpenWindow) -> None:
    window = new_window()
    window.page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    html = render("```python\nx = 1\n```", Patience(5))
    window.page.route(
        re.compile(r"/messages/[^/]*\?render=html"),
        lambda route: route.fulfill(json=route.fetch().json() | {"content_html": html}),
    )
    window.open(user=new_user()).begin("Hello", model=QUICK)

    window.page.get_by_role("button", name="Copy code").click()

    expect(window.page.locator(".heard-only")).to_have_text("Copied")
    window.field.press("Control+V")
    expect(window.field).to_have_value("x = 1\n")
    # It may be asked for once more: the window is not to close in the midst of our answer.
    window.page.unroute_all(behavior="wait")


# When the server refuses, is slow, or is away


def test_a_name_that_the_server_refuses_is_forgotten_and_another_asked_for(new_window: OpenWindow) -> None:
    window = new_window()
    window.refuses = "401"
    window.open(user="../somebody")

    dialog = window.page.get_by_role("dialog")
    expect(dialog).to_contain_text("The server does not take this name:")
    dialog.get_by_label("User name").fill("Ann")
    dialog.get_by_role("button", name="Use this name").click()

    expect(window.page.get_by_role("button", name="Ann")).to_be_visible()
    expect(window.page.get_by_text("No chats yet.")).to_be_visible()
    expect(dialog).not_to_be_visible()


def test_the_list_tells_loading_from_failing_from_being_empty(new_window: OpenWindow) -> None:
    window = new_window()
    window.refuses = "500"
    held = hold(window, SESSIONS)
    window.open(user=new_user())
    note = window.page.locator("nav .empty")

    expect(note).to_have_text("Loading …")
    refusal(500, "INTERNAL_ERROR")(held(1)[0])
    expect(note).to_have_text("The chats could not be fetched: Something went wrong in the server.")
    window.page.unroute(SESSIONS)
    window.page.locator("nav").get_by_role("button", name="Try again").click()

    expect(note).to_contain_text("No chats yet.")


def test_a_list_that_is_asked_for_again_and_again_shows_what_comes(new_window: OpenWindow, stack: Stack) -> None:
    user = new_user()
    for title in ("One", "Another"):
        stack.chat(user).new_session(QUICK, title=title)
    window = new_window().open(user=user)
    titles = window.page.locator(".sessions .title")
    expect(titles).to_have_text(["Another", "One"])

    ones, others = hold(window, re.compile(r"[?&]title=one\b")), hold(window, re.compile(r"[?&]title=other\b"))
    window.page.get_by_role("searchbox").fill("one")
    ones(1)
    for count in (2, 3):
        window.run("() => document.dispatchEvent(new Event('visibilitychange'))")
        searched, *later = ones(count)
    searched.continue_()

    expect(titles).to_have_text(["One"])
    window.page.get_by_role("searchbox").fill("other")
    other, *_ = others(1)
    later[0].continue_()
    other.continue_()
    expect(titles).to_have_text(["Another"])


def test_whoever_searches_while_the_page_loads_goes_on_searching(new_window: OpenWindow) -> None:
    window = new_window()
    held = hold(window, "**/providers")
    window.open(user=new_user())
    search = window.page.get_by_role("searchbox")
    held(1)

    search.press_sequentially("ca")
    held(1)[0].continue_()
    expect(window.field).to_be_visible()
    window.page.keyboard.type("ts")

    expect(search).to_have_value("cats")
    expect(window.field).to_have_value("")


def test_a_chat_says_that_it_loads_and_a_page_that_can_not_begin_says_why(new_window: OpenWindow, stack: Stack) -> None:
    user = new_user()
    session = stack.chat(user).new_session(QUICK, title="Mine")["id"]
    window = new_window()
    window.refuses = "500"
    window.page.route("**/client-config", refusal(500, "INTERNAL_ERROR"))
    held = hold(window, f"**/sessions/{session}")

    window.open(user=user, session=session)
    expect(window.page.get_by_role("main").get_by_role("alert")).to_have_text(
        "This page could not begin: Something went wrong in the server."
    )
    window.page.unroute("**/client-config")
    window.page.get_by_role("button", name="Try again").click()
    expect(window.page.locator("main")).to_have_text("Loading …")
    held(1)[0].continue_()

    expect(window.page.get_by_role("heading", name="Mine")).to_be_visible()
    expect(window.page).to_have_title("Mine – Chat")


def test_what_is_said_is_seen_over_a_dialog_which_closes_by_a_click_beside_it_only(
    new_window: OpenWindow, stack: Stack
) -> None:
    user = new_user()
    session = stack.chat(user).new_session(QUICK, title="Mine", settings={"temperature": 1})["id"]
    window = new_window().open(user=user, session=session)
    window.refuses = "409"
    path = f"**/sessions/{session}"
    window.page.get_by_role("button", name="Chat settings", exact=True).click()
    dialog = window.page.get_by_role("dialog")
    dialog.get_by_label("Title").fill("Ours")
    window.page.route(
        path, lambda route: refusal(409, "MADE_UP")(route) if route.request.method == "PUT" else route.continue_()
    )

    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator(".notice")).to_have_text("In the server's words.")
    box = dialog.bounding_box()
    assert box
    window.page.mouse.click(box["x"] + 6, box["y"] + box["height"] / 2)
    dialog.get_by_label("Title").hover()
    window.page.mouse.down()
    window.page.mouse.move(box["x"] - 20, box["y"] + 5)
    window.page.mouse.up()
    expect(dialog).to_be_visible()
    window.page.unroute(path)
    with window.page.expect_request(lambda request: request.method == "PUT") as asked:
        dialog.get_by_role("button", name="Save").click()

    assert asked.value.post_data_json == {"title": "Ours"}
    expect(dialog).not_to_be_visible()
    window.page.get_by_role("button", name="Chat settings", exact=True).click()
    expect(dialog).to_be_visible()
    window.page.mouse.click(5, 5)
    expect(dialog).not_to_be_visible()


def test_who_clicks_twice_while_the_server_is_slow_asks_once(new_window: OpenWindow, stack: Stack) -> None:
    user = new_user()
    session = stack.chat(user).new_session(QUICK, title="Mine")["id"]
    window = new_window().open(user=user, session=session)
    expect(window.page.get_by_role("heading", name="Mine")).to_be_visible()
    path = re.compile(f"/sessions/{session}$")
    held = hold(window, path)
    dialog = window.page.get_by_role("dialog")

    for _ in range(2):
        window.page.get_by_role("button", name="Chat settings", exact=True).click()
    for route in held(2):
        route.continue_()
    expect(dialog).to_have_count(1)
    dialog.get_by_label("Title").fill("Ours")
    for _ in range(2):
        dialog.get_by_role("button", name="Save").click()
    held(3)[2].continue_()

    expect(dialog).to_have_count(0)
    expect(window.page.get_by_role("heading", name="Ours")).to_be_visible()
    assert [route.request.method for route in held(3)] == ["GET", "GET", "PUT"]


def test_the_status_shows_what_is_wrong_and_nothing_that_is_not_known(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.expects_outage, window.refuses = True, "503"
    window.page.clock.install()
    window.page.get_by_role("link", name="Status").click()
    cards = window.page.locator(".card")
    for name in ("Database", "Redis", "Workers", "Queue", "Open connections", "LOCAL", "OPENROUTER", "OPENAI"):
        expect(cards.filter(has_text=name).first).to_be_visible()
    expect(window.page.locator("header").get_by_role("status")).to_have_text("healthy")

    parts = {name: {"status": "unknown"} for name in ("redis", "jobs")} | {"database": {"status": "unhealthy"}}
    workers = {"status": "unknown", "count": None, "running": None}
    health = {"status": "unhealthy", "timestamp": "2026-01-01T00:00:00.000000Z", "active_connections": 0}
    checks = {"checks": parts | {"workers": workers, "providers": {}}}
    window.page.route("**/health", lambda route: route.fulfill(status=503, json=health | checks))
    window.page.route("**/stats", refusal(503, "DATABASE_UNAVAILABLE"))
    window.page.clock.fast_forward(6000)
    expect(cards.filter(has_text="Database")).to_contain_text("unhealthy")
    expect(window.page.get_by_text("My chats")).not_to_be_visible()

    window.page.route("**/health", lambda route: route.abort("connectionrefused"))
    window.page.clock.fast_forward(6000)
    expect(window.page.get_by_text("The server can't be reached.")).to_be_visible()
    expect(cards).to_have_count(0)


# Other windows, other readers


def test_everything_can_be_reached_and_heard_without_a_mouse(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("Hello", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    heard = window.page.locator(".heard-only")
    expect(heard).to_have_text("The answer is complete.")
    focused = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"

    window.page.keyboard.press("Control+k")
    assert window.run(focused) == "Search chats"
    reached = list[str]()
    while "Send" not in reached and len(reached) < 40:
        window.page.keyboard.press("Tab")
        reached.append(window.run(focused))
    in_order = [
        "Active",
        "Chat settings: Hello",
        "Status",
        "Chat settings",
        "Messages",
        "Copy",
        "Another answer",
        "Message",
        "Send",
    ]
    assert [name for name in reached if name in in_order and name != "Copy"] == [
        name for name in in_order if name != "Copy"
    ]
    assert any(name.startswith("Hello") for name in reached)

    window.say("stub:tokens=400,delay=0.05")
    expect(heard).to_have_text("An answer is being written.")
    window.page.locator(".composer").get_by_role("button", name="Stop").focus()
    window.page.keyboard.press("Enter")
    expect(heard).to_have_text("The answer was stopped.")
    expect(window.field).to_be_focused()


def test_on_a_tablet_the_drawer_takes_the_keyboard_and_gives_it_back(new_window: OpenWindow) -> None:
    window = new_window(viewport={"width": 820, "height": 1180}).open(user=new_user())
    page = window.page
    menu = page.get_by_role("button", name="Show chats")
    expect(menu).to_have_attribute("aria-expanded", "false")

    menu.click()
    expect(page.get_by_role("button", name="Hide chats")).to_be_focused()
    assert window.run("() => document.querySelector('main').inert")
    expect(page.locator(".icon-button.menu[aria-expanded]")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Escape")

    expect(menu).to_be_focused()
    expect(menu).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_role("button", name="New chat")).not_to_be_visible()
    assert window.run("() => document.documentElement.scrollWidth") == 820


def test_on_a_phone_a_lost_connection_and_long_names_break_nothing(new_window: OpenWindow, stack: Stack) -> None:
    user = "m" * 200
    chat = stack.chat(user)
    session = chat.new_session(QUICK, title="w" * 300)["id"]
    chat.send(session, "x" * 400)
    window = new_window(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    window.page.route_web_socket(SOCKETS, lambda socket: socket.close(code=1012))
    window.page.add_init_script("Math.random = () => 1")
    window.open(user=user, session=session)

    again = window.page.get_by_role("button", name="Try now")
    expect(again).to_be_in_viewport()
    too_wide = (
        "() => [...document.querySelectorAll('.bar, .bar *, main article *')]"
        ".filter((element) => element.getBoundingClientRect().right > innerWidth).length"
    )
    wait_until(lambda: window.page.locator("article").count() == 1, why="the message is there")
    wait_until(lambda: window.run(too_wide) == 0, why="nothing is wider than the window")
    assert window.run("() => document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(
    ("options", "ground"), [({"color_scheme": "dark"}, "rgb(22, 24, 26)"), ({}, "rgb(251, 250, 247)")]
)
def test_the_page_is_dark_where_the_system_is(new_window: OpenWindow, options: dict[str, Any], ground: str) -> None:
    window = new_window(**options).open(user=new_user())

    expect(window.page.locator("body")).to_have_css("background-color", ground)


def test_icons_are_seen_where_the_system_chooses_the_colours(new_window: OpenWindow) -> None:
    window = new_window(forced_colors="active").open(user=new_user())

    expect(window.page.get_by_role("button", name="New chat")).to_be_visible()
    colours = window.run(
        "() => ['.new-chat .icon', '.new-chat', '.brand > .icon', 'body']"
        ".map((name) => getComputedStyle(document.querySelector(name)).backgroundColor)"
    )
    assert colours[0] != colours[1]
    assert colours[2] != colours[3]


def test_every_language_has_every_word_and_a_sentence_for_the_servers_codes(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())

    words: list[dict[str, Any]] = window.run(
        "() => Promise.all(['en', 'ru'].map((name) => import(`/client/languages/${name}.js`).then((it) => it.default)))"
    )

    english, russian = words
    assert sorted(english) == sorted(russian)
    placeholder = re.compile(r"\{\w+\}")
    for name in english:
        found = [set(placeholder.findall(json.dumps(language[name]))) for language in words]
        assert found[0] == found[1], name
    told = {name for name in english if name.isupper()}
    assert told - {"UNREACHABLE"} <= set(ErrorCode)
    assert {code for code in ErrorCode if code.startswith("PROVIDER_")} <= told


def test_a_viewer_is_offered_nothing_that_only_writers_may(new_window: OpenWindow, stack: Stack) -> None:
    owner, viewer = stack.chat(), new_user()
    session = owner.new_session(QUICK)["id"]
    admitted = {"user_id": viewer, "role": "viewer"}
    owner.request("POST", f"/sessions/{session}/participants", json=admitted, status=201)
    owner.wait_for_job(owner.ask(session, "Hello")["job_id"])
    window = new_window().open(user=viewer, session=session)
    again = window.reply().get_by_role("button", name="Another answer")

    expect(window.reply().get_by_role("button", name="Copy")).to_be_visible()
    expect(again).not_to_be_visible()
    owner.request("POST", f"/sessions/{session}/participants", json=admitted | {"role": "member"}, status=200)

    expect(again).to_be_visible()
    expect(window.field).to_be_enabled()


def test_who_is_here_is_shown_while_a_chat_is_open_and_asked_for_once(new_window: OpenWindow, stack: Stack) -> None:
    ann, bob = new_user(), new_user()
    owner = stack.chat(ann)
    session = owner.new_session(QUICK)["id"]
    owner.request("POST", f"/sessions/{session}/participants", json={"user_id": bob, "role": "member"}, status=201)
    window: Window = new_window().open(user=ann, session=session)
    window.wait_for_state("live")
    window.page.locator(".faces").click()
    expect(window.page.locator(".people li")).to_have_count(2)
    asked = list[str]()
    window.page.on("request", lambda request: asked.append(request.url))

    with stack.chat(bob).watch(session) as viewer:
        expect(window.page.locator(".people .here")).to_have_count(2)
        viewer.say("typing_start")
        expect(window.page.locator(".typists")).to_have_text(f"{bob} is typing …")
    expect(window.page.locator(".people .here")).to_have_count(1)

    assert not [url for url in asked if url.endswith("/participants")]
    window.page.evaluate("location.hash = '#/'")
    expect(window.page.get_by_role("dialog")).not_to_be_visible()


# Every language, layout and locale

# Any text as the server renders it, in place of what the stub says.
RENDERED = re.compile(r"/messages/[^/]*\?render=html")


def test_reply_says_why_it_ended_early(new_window: OpenWindow) -> None:
    cut, filtered = "The answer was cut off: it reached the token limit.", "cut off by the provider's content filter."
    notes = {
        "stub:tokens=3,finish=length": cut,
        "stub:tokens=3,finish=content_filter": f"The answer was {filtered}",
        "stub:tokens=0,finish=content_filter": f"The model wrote no text. The answer was {filtered}",
    }
    window = new_window().open(user=new_user())

    for script, note in notes.items():
        window.begin("Hello", model=script)
        expect(window.reply().locator(".note")).to_have_text(note)
        expect(window.page.locator(".heard-only")).to_have_text(note)
        window.page.get_by_role("button", name="New chat").click()
    window.begin("Hello", model=QUICK)

    window.wait_for_text(expected_text("q", 5))
    expect(window.reply().locator(".note")).to_be_hidden()


def i18n(window: Window, script: str, argument: Any = None) -> Any:
    """Run a script over the page's module for words, times and signs."""
    return window.run(f"async (given) => {{ const i18n = await import('/client/i18n.js'); {script} }}", argument)


def test_time_says_the_year_and_which_of_two_hours(new_window: OpenWindow) -> None:
    window = new_window(timezone_id="Europe/Berlin").open(user=new_user())

    first, second, other = i18n(
        window,
        "return given.map((text) => i18n.time(text))",
        # The clock goes back at 01:00 UTC: 02:30 comes twice.
        ["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z", "2024-11-05T12:00:00Z"],
    )

    assert all("2024" in text for text in (first, second, other))
    assert first.startswith(second[:16])
    assert first != second
    year_is_new = "const now = new Date(); return i18n.time(new Date(now.getFullYear(), 0, 1, 12).toISOString());"
    assert not re.search(r"20\d\d", i18n(window, year_is_new))


def test_page_works_with_any_locale(new_window: OpenWindow) -> None:
    window = new_window()
    odd = "Object.defineProperty(navigator, 'languages', { value: %s, configurable: true });"
    window.page.add_init_script(odd % "['en-US@posix']")
    window.open(user=new_user()).begin("Hello", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    expect(window.reply().locator("time")).to_have_text(re.compile(r"\d:\d\d"))

    shown = i18n(
        window,
        """const shown = [];
        for (const languages of given) {
          Object.defineProperty(navigator, "languages", { value: languages ?? undefined, configurable: true });
          Object.defineProperty(navigator, "language", { value: languages?.[0], configurable: true });
          await i18n.loadLanguage();
          const facts = [i18n.duration(1500), i18n.number(1), i18n.t("tokens", { count: 2 })];
          i18n.time("2024-11-05T12:00:00Z");
          i18n.fullTime("2024-11-05T12:00:00Z");
          shown.push([i18n.currentLanguage(), ...facts].join(" "));
        }
        return shown;""",
        [["C"], ["POSIX"], ["en_US.UTF-8"], ["", "fil-PH"], ["constructor"], [], None, ["ru_RU.UTF-8"]],
    )

    assert shown == ["en 1.5 s 1 2 tokens"] * 7 + ["ru 1,5 с 1 2 токена"]


def test_texts_are_cut_between_characters(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    family, flag = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"

    cut = i18n(
        window, "return given.map((text) => i18n.cutText(text, 12))", [family * 9, flag * 9, "e\u0301" * 9, "abc"]
    )

    assert cut == [family * 2, flag * 6, "e\u0301" * 6, "abc"]
    assert i18n(window, "return i18n.firstSign(given)", family + "x") == family


def test_search_key_works_on_any_layout(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    expect(window.field).to_be_focused()

    found = window.run(
        """(keys) => keys.filter(([key, code]) => {
          document.querySelector("#composer-field").focus();
          const event = new KeyboardEvent("keydown", { key, code, ctrlKey: true, bubbles: true, cancelable: true });
          document.activeElement.dispatchEvent(event);
          return event.defaultPrevented && document.activeElement.type === "search";
        }).map(([key]) => key)""",
        # With Caps Lock, of Cyrillic, Hebrew and Greek layouts, and of Dvorak, which has another letter in that place.
        [("k", "KeyK"), ("K", "KeyK"), ("л", "KeyK"), ("ל", "KeyK"), ("κ", "KeyK"), ("k", "KeyV"), ("t", "KeyK")],
    )

    assert found == ["k", "K", "л", "ל", "κ", "k"]
    # A browser that fills in a form sends an event without a key.
    window.run("() => document.dispatchEvent(new Event('keydown'))")


def test_translated_text_goes_on_growing(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("Hello", model="stub:tokens=100,delay=0.05,tag=t")
    expect(window.reply().locator(".text")).to_contain_text("t.3 ")

    # What browsers do that translate a page: another element in the place of a text node.
    before, after, status = window.run(
        """async () => {
          const reply = document.querySelector("article[data-role=assistant]");
          const text = reply.querySelector(".text");
          const font = document.createElement("font");
          font.textContent = text.textContent;
          text.replaceChildren(font);
          const before = text.textContent;
          while (text.textContent === before) await new Promise((resolve) => setTimeout(resolve, 10));
          return [before, text.textContent, reply.dataset.status];
        }"""
    )

    assert status == "streaming"
    assert after.startswith(before)
    assert expected_text("t", 100).startswith(after)


def test_each_window_has_its_own_draft(new_window: OpenWindow) -> None:
    window = new_window().open(user=new_user())
    window.begin("First", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    window.field.type("a draft")

    other = window.context.new_page()
    other.goto(window.page.url)
    field = other.get_by_role("textbox", name="Message", exact=True)
    expect(field).to_have_value("")
    field.fill("sent elsewhere")
    field.press("Enter")

    window.wait_for_text(expected_text("q", 5), 1)
    expect(window.page.locator("article[data-mine]")).to_have_count(2)
    window.page.reload()
    expect(window.field).to_have_value("a draft")


def test_page_that_wakes_asks_whether_its_connection_lives(new_window: OpenWindow) -> None:
    window = new_window()
    sent: list[str | bytes] = []
    window.page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    window.open(user=new_user()).begin("Hello", model=QUICK)
    window.wait_for_text(expected_text("q", 5))
    window.wait_for_state("live")

    def pings() -> int:
        window.run("1")  # Playwright hears of frames while it is asked for something.
        return sum('"ping"' in str(frame) for frame in sent)

    assert pings() == 0

    window.run("() => document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: pings() == 1, why="the page asks")
    window.run("() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    wait_until(lambda: pings() == 2, why="the page asks")


def test_blocks_run_in_the_direction_of_their_words(new_window: OpenWindow) -> None:
    html = render("`x` مرحبا\n\n- بند\n- item\n\nEnglish\n\n```\nlet x = 1\n```\n\n|أ|\n|-|\n|`y`|", Patience(5))
    window = new_window()
    window.page.route(RENDERED, lambda route: route.fulfill(json=route.fetch().json() | {"content_html": html}))
    window.open(user=new_user()).begin("Hello", model=QUICK)
    expect(window.reply().locator("pre")).to_be_visible()

    found = window.run(
        """() => {
          const text = document.querySelector("article[data-role=assistant] .text");
          const styles = (selector) => [...text.querySelectorAll(selector)].map((element) => getComputedStyle(element));
          return {
            paragraphs: styles(":scope > p").map((style) => style.direction),
            lists: styles("ul").map((style) => [style.direction, style.paddingRight !== "0px", style.paddingLeft]),
            items: styles("li").map((style) => [style.unicodeBidi, style.textAlign]),
            code: styles("code").map((style) => style.direction),
            tables: styles("table").map((style) => style.direction),
            translated: [...text.querySelectorAll("code")].some((code) => code.translate),
          };
        }"""
    )

    assert found == {
        "paragraphs": ["rtl", "ltr"],
        "lists": [["rtl", True, "0px"]],
        "items": [["plaintext", "right"], ["plaintext", "right"]],
        "code": ["ltr", "ltr", "ltr"],
        "tables": ["rtl"],
        "translated": False,
    }
    window.page.unroute_all(behavior="wait")
