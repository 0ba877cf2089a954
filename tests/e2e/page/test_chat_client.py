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

    texts = client.run("""
      live.pageSize = 3;
      await live.open();
      while (live.hasOlder) await live.fetchOlder();
      return [...live.messages.values()].map((message) => message.content);
    """)

    assert texts == client.texts()


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
