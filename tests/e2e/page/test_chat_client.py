"""The reference client by itself, without the page around it, against the real server."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.page.conftest import OpenWindow
from tests.support.browser import Window
from tests.support.chat import Chat
from tests.support.provider_stub import expected_text
from tests.support.stack import Stack
from tests.support.waiting import wait_until

SLOW = "stub:tokens=60,delay=0.03,tag=t"

# What each script has at hand: a client of one session, a way to wait, and the newest reply as the client has it.
BEGIN = """
async ({ user, session }) => {
  const { ChatApi, LiveSession, devIdentity } = await import("/client/chat-client.js");
  const api = new ChatApi({ identity: devIdentity(user) });
  const live = new LiveSession(api, session);
  const until = async (condition) => {
    const deadline = Date.now() + 20000;
    while (!condition()) {
      if (Date.now() > deadline) throw new Error(`Not within 20 s: ${condition}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const reply = () => [...live.messages.values()].findLast((message) => message.role === "assistant");
  const isDone = () => reply()?.status === "complete";
  SCRIPT
}
"""


class Client:
    """A client in a window that shows nothing of ours."""

    def __init__(self, window: Window, chat: Chat) -> None:
        self.window = window
        self.chat = chat
        self.session = chat.new_session(SLOW)["id"]

    def run(self, script: str) -> Any:
        # Whose time runs so fast gives up what a busy machine has not got ready yet.
        self.window.expects_outage |= QUICK_TIME in script
        argument = {"user": self.chat.user, "session": self.session}
        return self.window.run(BEGIN.replace("SCRIPT", script), argument)

    def texts(self) -> list[str]:
        """Return what the database holds."""
        return [message["content"] for message in self.chat.messages(self.session)]


@pytest.fixture
def client(new_window: OpenWindow, stack: Stack) -> Client:
    window = new_window()
    window.page.goto(f"{window.url}/client/icons/favicon.svg")
    return Client(window, stack.chat(f"user-{uuid4().hex[:6]}"))


def test_it_sends_and_follows_the_reply_to_its_end(client: Client) -> None:
    texts = client.run("""
      const seen = [];
      live.addEventListener("text", ({ detail }) => seen.push(detail.message.content));
      await live.open();
      live.send("Hello");
      await until(isDone);
      live.close();
      return { seen, now: [...live.messages.values()].map((message) => message.content), unsent: live.unsent.size };
    """)

    assert texts["now"] == ["Hello", expected_text("t", 60)] == client.texts()
    assert texts["unsent"] == 0
    assert len(texts["seen"]) > 3
    assert all(expected_text("t", 60).startswith(text) for text in texts["seen"])


def test_positions_are_counted_in_code_points(client: Client) -> None:
    text = client.run("""
      await live.open();
      live.send("stub:tokens=5,delay=0.05,unicode,tag=😀");
      await until(isDone);
      return reply().content;
    """)

    assert "😀.5" in text
    assert text == client.texts()[1]


def test_what_is_sent_while_cut_off_is_sent_once_when_back(client: Client) -> None:
    client.window.expects_outage = True

    count = client.run("""
      const RealSocket = WebSocket;
      const sockets = [];
      globalThis.WebSocket = class extends RealSocket {
        constructor(url) { super(url); sockets.push(this); }
        // The first connection takes what is said, and is gone before it has heard the answer.
        send(text) {
          super.send(text);
          if (sockets.length === 1 && text.includes("send_message")) { this.onmessage = null; this.close(); }
        }
      };
      await live.open();
      await until(() => live.state === "live");
      live.send("Only once");
      await until(() => live.unsent.size === 0 && isDone());
      return sockets.length;
    """)

    assert count == 2
    assert client.texts() == ["Only once", expected_text("t", 60)]


def test_frames_that_get_lost_are_noticed_and_fetched(client: Client) -> None:
    client.window.expects_outage = True

    told = client.run("""
      const RealSocket = WebSocket;
      let lost = 0, heard = 0, connections = 0;
      globalThis.WebSocket = class extends RealSocket {
        constructor(url) { super(url); connections += 1; }
        set onmessage(hear) {
          super.onmessage = (event) => {
            // Only amidst the text: what is lost at the very end is noticed by the next ping alone.
            const isAmidst = JSON.parse(event.data).type === "message_delta" && reply().content.length < 1000;
            if (isAmidst) heard += 1;
            if (isAmidst && heard % 4 === 0 && lost < 4) lost += 1;
            else hear(event);
          };
        }
      };
      live.random = () => 0;
      await live.open();
      await until(() => live.state === "live");
      live.send("stub:tokens=300,delay=0.01,tag=t");
      await until(() => isDone() && live.jobs.get(reply().id)?.status === "succeeded");
      return { lost, connections, text: reply().content };
    """)

    assert told["lost"] == 4
    assert told["connections"] > 1
    assert told["text"] == expected_text("t", 300) == client.texts()[1]


def test_what_can_not_be_told_any_more_is_fetched(client: Client) -> None:
    client.chat.wait_for_job(client.chat.ask(client.session, "Earlier")["job_id"])

    told = client.run("""
      let resets = 0;
      live.addEventListener("reset", () => { resets += 1; });
      const RealSocket = WebSocket;
      const asked = [];
      globalThis.WebSocket = class extends RealSocket {
        constructor(url) {
          // At first as if the server had lost the end of its log.
          if (asked.length === 0) url.searchParams.set("since", 1000000);
          super(url);
          asked.push(url.searchParams.get("since"));
        }
      };
      await live.open();
      await until(() => live.state === "live");
      live.send("Later");
      await until(() => live.messages.size === 4 && isDone());
      return { resets, asked, texts: [...live.messages.values()].map((message) => message.content) };
    """)

    assert told["resets"] == 2
    assert [since == "1000000" for since in told["asked"]] == [True, False]
    assert told["texts"] == client.texts()


def test_what_an_earlier_page_sent_is_sent_again_and_stored_once(client: Client) -> None:
    told = client.run("""
      await live.open();
      const entry = live.send("Once");
      await until(isDone);
      live.close();
      const later = new LiveSession(api, session, {
        unsent: [entry, { requestId: "another", content: "Twice" }, { requestId: "refused", content: "No", error: {} }],
      });
      await later.open();
      await until(() => later.unsent.size === 1 && later.messages.size === 4);
      later.close();
      return [...later.unsent.values()].map(({ requestId, state }) => [requestId, state]);
    """)

    assert told == [["refused", "refused"]]
    assert [message["content"] for message in client.chat.messages(client.session)][::2] == ["Once", "Twice"]


def test_a_later_attempt_begins_the_text_anew(client: Client) -> None:
    told = client.run("""
      const seen = [];
      const note = ({ message, action }) => seen.push([action, message.attempt, message.content]);
      live.addEventListener("message", ({ detail }) => note(detail));
      await live.open();
      live.send("stub:tokens=20,delay=0.02,cut=8,times=1,tag=t");
      await until(isDone);
      return { seen, text: reply().content, attempt: reply().attempt };
    """)

    assert (told["text"], told["attempt"]) == (expected_text("t", 20), 2) == (client.texts()[1], 2)
    assert ["restarted", 2, ""] in told["seen"]


def test_a_request_is_made_again_under_its_name_while_that_may_help(client: Client) -> None:
    told = client.run("""
      const realFetch = fetch;
      const named = [];
      const answers = [["503", "0"], ["429", "0"], null, ["429", "3600"]];
      globalThis.fetch = (url, { headers, ...more }) => {
        named.push(headers["Idempotency-Key"]);
        const [status, after] = answers.shift() ?? [];
        if (!status) return realFetch(url, { headers, ...more });
        return Promise.resolve(new Response("{}", { status, headers: { "Retry-After": after } }));
      };
      api.random = () => 0;
      const made = await api.post("/sessions", { llm_provider: "LOCAL", llm_model: "m" });
      const refused = await api.get("/stats").catch((error) => error.status);
      return { made: typeof made.id, refused, names: new Set(named.slice(0, 3)).size, asked: named.length };
    """)

    assert told == {"made": "string", "refused": 429, "names": 1, "asked": 4}


def test_what_is_deleted_although_the_answer_was_lost_is_deleted(client: Client) -> None:
    client.window.refuses = "404"

    told = client.run("""
      const realFetch = fetch;
      let asked = 0;
      globalThis.fetch = async (...how) => {
        const answer = await realFetch(...how);
        if ((asked += 1) === 1) throw new TypeError("lost");
        return answer;
      };
      api.random = () => 0;
      await api.delete(`/sessions/${session}`);
      const again = await api.delete(`/sessions/${session}`).catch((error) => error.status);
      return [asked, again];
    """)

    assert told == [3, 404]


# Time runs twenty times as fast for what waits.
QUICK_TIME = """
      const realTimeout = setTimeout;
      globalThis.setTimeout = (act, milliseconds) => realTimeout(act, milliseconds / 20);
"""

# A socket of which nothing comes but what it is told to hear.
PRETENDED = (
    QUICK_TIME
    + """
      const RealSocket = WebSocket;
      const sockets = [];
      class Pretended { constructor() { sockets.push(this); } send() {} close() {} }
"""
)


def test_a_connection_that_is_never_greeted_is_given_up(client: Client) -> None:
    count = client.run(
        PRETENDED
        + """
      globalThis.WebSocket = function (url) { return sockets.length < 2 ? new Pretended() : new RealSocket(url); };
      live.open();
      await until(() => live.state === "live");
      return sockets.length;
    """
    )

    assert count == 2


def test_connection_that_died_asleep_is_replaced_on_waking(client: Client) -> None:
    state = client.run(
        """
      const real = WebSocket;
      const sockets = [];
      globalThis.WebSocket = function (url) { return sockets[sockets.push(new real(url)) - 1]; };
      live.open();
      await until(() => live.state === "live");
      sockets[0].onmessage = null;
      live.lookAgain();
      await until(() => sockets.length === 2 && live.state === "live");
      live.lookAgain();
      await until(() => sockets.length === 2);
      await live.api.get("/stats");
      return [live.state, sockets.length];
    """
    )

    assert state == ["live", 2]


def test_one_refused_ticket_is_no_farewell_but_two_are(client: Client) -> None:
    told = client.run(
        PRETENDED
        + """
      let refuses = 1;
      const isBad = () => sockets.length < refuses;
      globalThis.WebSocket = function (url) { return isBad() ? new Pretended() : new RealSocket(url); };
      live.open();
      await until(() => sockets.length === 1);
      sockets[0].onclose({ code: 4401 });
      await until(() => live.state === "live");
      const other = new LiveSession(api, session);
      refuses = 3;
      other.open();
      for (const number of [1, 2]) {
        await until(() => sockets.length === number + 1);
        sockets[number].onclose({ code: 4401 });
      }
      return [other.state, other.closedBecause];
    """
    )

    assert told == ["closed", "unauthenticated"]


def test_the_pauses_grow_until_a_connection_has_held(client: Client) -> None:
    seconds = client.run(
        PRETENDED
        + """
      live.random = () => 1;
      const pauses = [];
      live.addEventListener("state", () => {
        if (live.state === "waiting") pauses.push(Math.round((live.retryAt - Date.now()) / 100) / 10);
      });
      let isBad = true;
      globalThis.WebSocket = class extends RealSocket {
        set onmessage(hear) {
          super.onmessage = (event) => {
            hear(event);
            if (isBad) { this.close(); this.onclose({ code: 1013 }); }
            else if (JSON.parse(event.data).type === "pong") globalThis.isHeld = true;
          };
        }
      };
      live.open();
      await until(() => pauses.length === 3);
      isBad = false;
      await until(() => globalThis.isHeld);
      isBad = true;
      live.typed();
      live.send("x");
      await until(() => pauses.length === 4);
      live.close();
      return pauses;
    """
    )

    assert seconds == [0.5, 1, 2, 0.5]


def test_whoever_leaves_when_told_how_it_is_has_left(client: Client) -> None:
    told = client.run(
        PRETENDED
        + """
      globalThis.WebSocket = Pretended;
      const states = [];
      for (const when of ["connecting", "waiting", "closed"]) {
        const leaving = new LiveSession(api, session);
        leaving.addEventListener("state", () => [when, "closed"].includes(leaving.state) && leaving.close());
        leaving.open();
        if (when === "connecting") { states.push([leaving.state, sockets.length]); continue; }
        await until(() => sockets.length > 0);
        sockets.at(-1).onclose({ code: 1012 });
        if (when === "closed") leaving.close();
        states.push([leaving.state, sockets.length]);
        sockets.length = 0;
      }
      return states;
    """
    )

    assert told == [["closed", 0], ["closed", 1], ["closed", 1]]


def test_what_no_frame_may_hold_is_refused_at_once(client: Client) -> None:
    told = client.run("""
      await live.open();
      const entry = live.send("😀".repeat(32001));
      return [entry.state, entry.error.error_code];
    """)

    assert told == ["refused", "INVALID_INPUT"]


def test_html_comes_by_rest_alone_and_is_asked_for_until_it_is_there(client: Client) -> None:
    html = client.run(
        QUICK_TIME
        + """
      const RealSocket = WebSocket;
      globalThis.WebSocket = class extends RealSocket {
        set onmessage(hear) {
          super.onmessage = ({ data }) => {
            const frame = JSON.parse(data);
            if (frame.message) frame.message.content_html = "<b>not ours</b>";
            hear({ data: JSON.stringify(frame) });
          };
        }
      };
      const realFetch = fetch;
      let failing = 1;
      globalThis.fetch = (url, how) => {
        const isHtml = /messages.[^?]+.render=html/.test(url);
        return isHtml && failing-- > 0 ? Promise.resolve(new Response("{}", { status: 500 })) : realFetch(url, how);
      };
      const shown = new LiveSession(api, session, { html: true });
      const seen = [];
      shown.addEventListener("message", ({ detail: { message } }) => seen.push(message.content_html));
      await shown.open();
      shown.send("stub:tokens=2,tag=q");
      const last = () => [...shown.messages.values()].at(-1);
      await until(() => last()?.role === "assistant" && last().content_html);
      return [last().content_html, seen.includes("<b>not ours</b>")];
    """
    )

    assert html == ["<p>q.1 q.2</p>\n", False]


def test_a_refused_message_waits_for_its_writer(client: Client) -> None:
    told = client.run("""
      await live.open();
      const entry = live.send("");
      await until(() => entry.state === "refused");
      return { code: entry.error.error_code, unsent: live.unsent.size };
    """)

    assert told == {"code": "INVALID_INPUT", "unsent": 1}
    assert client.texts() == []


def test_older_pages_come_in_their_order(client: Client) -> None:
    for number in range(7):
        client.chat.send(client.session, f"message {number}")

    told = client.run("""
      live.pageSize = 3;
      await live.open();
      const sizes = [live.messages.size];
      while (live.hasOlder) { await live.fetchOlder(); sizes.push(live.messages.size); }
      return { sizes, texts: [...live.messages.values()].map((message) => message.content) };
    """)

    assert told == {"sizes": [3, 6, 7], "texts": client.texts()}


def test_who_is_removed_is_told_and_does_not_come_back(client: Client, stack: Stack) -> None:
    owner = stack.chat()
    session = owner.new_session(SLOW)["id"]
    owner.request(
        "POST", f"/sessions/{session}/participants", json={"user_id": client.chat.user, "role": "member"}, status=201
    )
    client.session = session
    client.window.run("() => { globalThis.farewell = null; }")

    client.run("""
      live.addEventListener("state", () => { globalThis.farewell = live.closedBecause; });
      await live.open();
      await until(() => live.state === "live");
    """)
    owner.request("DELETE", f"/sessions/{session}/participants/{client.chat.user}", status=204)

    wait_until(lambda: client.window.run("() => globalThis.farewell") == "removed", why="the client knows")
