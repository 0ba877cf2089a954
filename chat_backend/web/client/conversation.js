/** A chat session on the page: its messages as they come, who is here, and where to write. */

import { Bubble, unsentBubble } from "./bubble.js";
import { Composer } from "./composer.js";
import { h, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { notify, speak } from "./notices.js";

const NEAR_PIXELS = 120;
const SPOKEN = { completed: "answerEnds", failed: "answerFailed", cancelled: "answerStopped" };
const MOST_SPOKEN = 300;
const MOST_FACES = 4;

export class Conversation {
  #bubbles = new Map();
  #unsent = new Map();
  #isAtEnd = true;

  /** `told` holds what the page around does: `settings()`, `people()`, `menu()`, `keepDraft(text)`, `closed(reason)`, `changed()`. */
  constructor(live, session, { draft, told }) {
    this.live = live;
    this.session = session;
    this.told = told;
    this.#build(draft);
    this.#listen();
  }

  /** Show another title, model or role. */
  showSession(session) {
    this.session = session;
    this.title.textContent = session.title || t("untitled");
    this.model.textContent = `${session.llm_provider} · ${session.llm_model}`;
    this.providerIcon.dataset.provider = session.llm_provider;
    document.title = `${session.title || t("untitled")} – ${t("appName")}`;
  }

  /** Leave it: nothing of it goes on. What the server has not taken yet is a draft again. */
  close() {
    const unsent = [...this.live.unsent.values()].map((entry) => entry.content);
    if (unsent.length) this.told.keepDraft([...unsent, this.composer.field.value].filter(Boolean).join("\n\n"));
    this.live.close();
  }

  #build(draft) {
    const { live, told } = this;
    this.title = h("h1", {});
    this.model = h("span", {});
    this.providerIcon = h("span", { class: "provider-icon", "aria-hidden": "true" });
    this.faces = h("button", { type: "button", class: "faces", onclick: () => told.people() });
    this.connection = h("span", { class: "connection", role: "status" });
    this.older = h("button", { type: "button", class: "quiet older", hidden: true, onclick: () => this.#showOlder() }, t("showEarlier"));
    this.empty = h("p", { class: "empty", hidden: true }, t("emptyChat"));
    this.messages = h("div", { class: "messages" }, h("p", { class: "empty" }, t("loading")));
    this.typists = h("p", { class: "typists", "aria-live": "polite" });
    this.toEnd = h(
      "button",
      { type: "button", class: "to-end", hidden: true, onclick: () => this.#scrollToEnd({ always: true }) },
      icon("down"),
      t("jumpToNewest"),
    );
    this.log = h(
      "section",
      { class: "log", "aria-label": t("messages"), tabindex: "0", onscroll: () => this.#scrolled() },
      this.older,
      this.empty,
      this.messages,
      this.typists,
    );
    this.composer = new Composer({
      draft,
      told: {
        send: (text) => live.send(text),
        stop: () => this.#stopAll(),
        typed: () => live.typed(),
        stoppedTyping: () => live.stoppedTyping(),
        keep: (text) => told.keepDraft(text),
      },
    });
    this.element = h(
      "div",
      { class: "conversation" },
      h(
        "header",
        { class: "bar" },
        iconButton("menu", t("openChats"), () => told.menu(), { class: "icon-button menu" }),
        h("div", { class: "names" }, this.title, h("p", { class: "model" }, this.providerIcon, this.model)),
        this.connection,
        this.faces,
        iconButton("more", t("chatSettings"), () => told.settings(), { class: "icon-button settings" }),
      ),
      this.log,
      h("div", { class: "below" }, this.toEnd, this.composer.element),
    );
    this.showSession(this.session);
    this.#showPresence();
    this.#showState();
  }

  #listen() {
    const hear = (type, act) => this.live.addEventListener(type, ({ detail }) => act(detail));
    hear("reset", () => this.#showAll());
    hear("message", ({ message, action }) => this.#showMessage(message, action));
    hear("text", ({ message, added }) => this.#grow(message, added));
    hear("unsent", ({ entry }) => this.#showUnsent(entry));
    hear("job", ({ job }) => this.#showJob(job));
    hear("session", ({ session }) => this.told.changed(session));
    hear("presence", () => this.#showPresence());
    hear("state", () => this.#showState());
    hear("fault", ({ error }) => notify(error.details?.message ?? t("faultUnknown")));
  }

  // Messages

  #showAll() {
    this.#bubbles.clear();
    const bubbles = [...this.live.messages.values()].map((message) => this.#bubble(message).element);
    this.messages.replaceChildren(...bubbles, ...this.#unsent.values());
    this.#showEdges();
    this.#scrollToEnd({ always: true });
  }

  #showMessage(message, action) {
    const known = this.#bubbles.get(message.id);
    if (known) known.update(message, this.live.jobs.get(message.id));
    else this.#insert(this.#bubble(message), message);
    this.#showEdges();
    this.#scrollToEnd();
    this.#speakOf(message, action);
    if (action === "new_message") this.told.changed();
  }

  #grow(message, added) {
    const bubble = this.#bubbles.get(message.id);
    bubble?.append(added);
    this.#scrollToEnd();
  }

  #bubble(message) {
    const acts = {
      stop: (stopped) => this.#attempt(() => this.live.cancel(stopped.job_id)),
      regenerate: (again) => this.#attempt(() => this.live.regenerate(again.id)),
    };
    const bubble = new Bubble(message, { isMine: message.user_id === this.live.userId, acts });
    this.#bubbles.set(message.id, bubble);
    return bubble;
  }

  /** Put a bubble in its place by `seq`; mostly that is the end, before what is not sent yet. */
  #insert(bubble, message) {
    const later = [...this.messages.children].find((element) => {
      const other = this.#bubbles.get(element.dataset.id)?.message;
      return !other || other.seq > message.seq;
    });
    this.messages.insertBefore(bubble.element, later ?? null);
  }

  #showUnsent(entry) {
    this.#unsent.get(entry.requestId)?.remove();
    this.#unsent.delete(entry.requestId);
    if (entry.state === "sent") return;
    const bubble = unsentBubble(entry, {
      again: () => this.live.sendAgain(entry.requestId),
      discard: () => {
        this.live.discard(entry.requestId);
        bubble.remove();
        this.#unsent.delete(entry.requestId);
      },
    });
    this.#unsent.set(entry.requestId, bubble);
    this.messages.append(bubble);
    this.#showEdges();
    this.#scrollToEnd({ always: true });
  }

  #showJob(job) {
    const bubble = this.#bubbles.get(job.assistant_message_id);
    if (bubble && !bubble.message.content) bubble.update(bubble.message, job);
  }

  #showEdges() {
    this.older.hidden = !this.live.hasOlder;
    this.empty.hidden = this.messages.childElementCount > 0;
    this.composer.showStop(this.#unfinished().length > 0);
  }

  async #showOlder() {
    const height = this.log.scrollHeight - this.log.scrollTop;
    this.older.disabled = true;
    await this.#attempt(() => this.live.fetchOlder());
    this.older.disabled = false;
    this.#showEdges();
    this.log.scrollTop = this.log.scrollHeight - height;
  }

  #unfinished() {
    return [...this.live.messages.values()].filter((message) => message.is_streaming && message.job_id);
  }

  #stopAll() {
    for (const message of this.#unfinished()) this.#attempt(() => this.live.cancel(message.job_id));
  }

  async #attempt(act) {
    try {
      await act();
    } catch (error) {
      notify(error.message);
    }
  }

  #speakOf(message, action) {
    if (action in SPOKEN) return speak(t(SPOKEN[action]));
    if (action !== "new_message") return;
    if (message.role === "assistant") speak(t("answerBegins"));
    else if (message.user_id !== this.live.userId) {
      speak(t("messageFrom", { user: message.user_id ?? "", text: message.content.slice(0, MOST_SPOKEN) }));
    }
  }

  // Where the reader is

  #scrolled() {
    this.#isAtEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_PIXELS;
    this.toEnd.hidden = this.#isAtEnd;
  }

  #scrollToEnd({ always = false } = {}) {
    if (!always && !this.#isAtEnd) return;
    this.log.scrollTop = this.log.scrollHeight;
    this.#isAtEnd = true;
  }

  // Who is here, and how the connection is

  #showPresence() {
    const { online, typing, userId } = this.live;
    const faces = online.slice(0, MOST_FACES).map((user) => face(user));
    const more = online.length > MOST_FACES ? [h("span", { class: "face more" }, `+${online.length - MOST_FACES}`)] : [];
    this.faces.replaceChildren(...faces, ...more, ...(online.length ? [] : [icon("people")]));
    this.faces.setAttribute("aria-label", `${t("people")}: ${t("onlineNow", { count: online.length })}`);
    this.faces.title = online.join(", ") || t("people");
    const users = [...typing].filter((user) => user !== userId);
    this.typists.textContent =
      users.length === 0 ? "" : users.length === 1 ? t("typingOne", { user: users[0] }) : t("typingSeveral", { users: users.join(", ") });
    this.#scrollToEnd();
  }

  #showState() {
    const { state, closedBecause } = this.live;
    const text = { live: t("stateLive"), connecting: t("stateConnecting"), waiting: t("stateWaiting"), closed: "" }[state];
    this.connection.dataset.state = state;
    const again = h("button", { type: "button", class: "quiet", onclick: () => this.live.retryNow() }, t("retryNow"));
    this.connection.replaceChildren(h("span", { class: "lamp", "aria-hidden": "true" }), h("span", { class: "words" }, text), ...(state === "waiting" ? [again] : []));
    if (state === "closed" && closedBecause !== "left") this.told.closed(closedBecause);
  }
}

/** A user as a coloured letter. */
export function face(user) {
  const hue = [...user].reduce((sum, sign) => (sum * 31 + sign.codePointAt(0)) % 8, 7);
  return h("span", { class: "face", "data-hue": String(hue), title: user, "aria-hidden": "true" }, [...user][0].toUpperCase());
}
