/** A chat session on the page: its messages as they come, who is here, and where to write. */

import { Bubble, howItEnded, unsentBubble } from "./bubble.js";
import { Composer } from "./composer.js";
import { h, hasFocus, icon, iconButton } from "./dom.js";
import { cutText, firstSign, reasonOf, t } from "./i18n.js";
import { notify, speak } from "./notices.js";

const NEAR_PIXELS = 120;
const SPOKEN = { completed: "answerEnds", failed: "answerFailed", cancelled: "answerStopped" };
const MOST_SPOKEN = 300;
// Said right before a connection ends; how it ends is shown anyway.
const ENDINGS = ["UNAUTHENTICATED", "NOT_A_PARTICIPANT", "NOT_FOUND", "SERVER_RESTARTING", "DATABASE_UNAVAILABLE"];
const MOST_FACES = 4;

export class Conversation {
  #bubbles = new Map();
  #unsent = new Map();
  #isAtEnd = true;
  #top = 0;
  #leaving = new AbortController();

  /**
   * `told` holds what the page around does: `settings()`, `people()`, `menu()`, `keepDraft(text)`, `closed(reason)`,
   * `changed(session)`, `renamed()`.
   */
  constructor(live, session, { draft, mayWrite, told }) {
    this.live = live;
    this.session = session;
    this.told = told;
    this.mayWrite = mayWrite;
    this.#build(draft);
    this.#listen();
  }

  /** Show another title, model or role. */
  showSession(session) {
    this.session = session;
    this.title.textContent = session.title || t("untitled");
    this.model.textContent = `${session.llm_provider} · ${session.llm_model}`;
    this.providerIcon.dataset.provider = session.llm_provider;
    this.told.renamed();
  }

  get documentTitle() {
    return `${this.session.title || t("untitled")} – ${t("appName")}`;
  }

  /** Tells when the chat is left. */
  get leaving() {
    return this.#leaving.signal;
  }

  /** Let the reader write, stop and ask again, or only read. */
  allow(mayWrite) {
    this.mayWrite = mayWrite;
    this.composer.allow(mayWrite);
    for (const bubble of this.#bubbles.values()) bubble.allow(this.#acts());
    this.#showEdges();
  }

  /** Leave it: nothing of it is shown any more. What is on its way to the server goes on until it is there. */
  close() {
    this.#leaving.abort();
    this.#size.disconnect();
    const isSending = () => [...this.live.unsent.values()].some(({ state }) => state === "sending");
    if (!isSending()) return this.live.close();
    this.live.addEventListener("unsent", () => isSending() || this.live.close());
  }

  #build(draft) {
    const { live, told } = this;
    this.title = h("h1", { dir: "auto" });
    this.model = h("span", {});
    this.providerIcon = h("span", { class: "provider-icon", "aria-hidden": "true" });
    this.faces = h("button", { type: "button", class: "faces", onclick: () => told.people() });
    this.words = h("span", { class: "words", role: "status" });
    this.again = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => live.retryNow() }, t("retryNow"));
    this.connection = h("span", { class: "connection" }, h("span", { class: "lamp", "aria-hidden": "true" }), this.words, this.again);
    this.older = h("button", { type: "button", class: "quiet older", hidden: true, onclick: () => this.#showOlder() }, t("showEarlier"));
    this.empty = h("p", { class: "empty", hidden: true }, t("emptyChat"));
    this.messages = h("div", { class: "messages" }, h("p", { class: "empty" }, t("loading")));
    this.typists = h("p", { class: "typists", "aria-live": "polite" });
    this.toEnd = h(
      "button",
      { type: "button", class: "to-end", hidden: true, onclick: () => this.#goToEnd() },
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
        send: (text) => Boolean(live.send(text)),
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
    this.composer.allow(this.mayWrite);
    this.showSession(this.session);
    this.#showPresence();
    this.#showState();
    for (const entry of live.unsent.values()) this.#showUnsent(entry);
    this.#size.observe(this.log);
    this.#size.observe(this.messages);
  }

  #listen() {
    const hear = (type, act) => this.live.addEventListener(type, ({ detail }) => act(detail), { signal: this.leaving });
    hear("reset", () => this.#showAll());
    hear("message", ({ message, action }) => this.#showMessage(message, action));
    hear("text", ({ message, added }) => this.#grow(message, added));
    hear("unsent", ({ entry }) => this.#showUnsent(entry));
    hear("job", ({ job }) => this.#showJob(job));
    hear("session", ({ session }) => this.told.changed(session));
    hear("presence", () => this.#showPresence());
    hear("typing", () => this.#showTypists());
    hear("state", () => this.#showState());
    hear("fault", ({ error }) => ENDINGS.includes(error.error_code) || notify(reasonOf(error)));
  }

  // Messages

  #showAll() {
    this.#bubbles.clear();
    const bubbles = [...this.live.messages.values()].map((message) => this.#bubble(message).element);
    this.messages.replaceChildren(...bubbles, ...this.#unsent.values());
    this.#showEdges();
    this.#isAtEnd = true;
  }

  #showMessage(message, action) {
    const known = this.#bubbles.get(message.id);
    if (known) known.update(message, this.live.jobs.get(message.id));
    else this.#insert(this.#bubble(message), message);
    this.#showEdges();
    this.#speakOf(message, action);
    if (action === "new_message") this.told.changed();
  }

  #grow(message, added) {
    this.#bubbles.get(message.id)?.append(added);
  }

  #bubble(message) {
    const isMine = message.user_id === this.live.userId;
    const bubble = new Bubble(message, { isMine, acts: this.#acts(), job: this.live.jobs.get(message.id) });
    this.#bubbles.set(message.id, bubble);
    return bubble;
  }

  /** What the reader may do to a reply. */
  #acts() {
    if (!this.mayWrite) return {};
    return {
      stop: (stopped) => this.#attempt(() => this.live.cancel(stopped.job_id)),
      regenerate: (again) => this.#attempt(() => this.live.regenerate(again.id)),
    };
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
    const before = this.#unsent.get(entry.requestId);
    const hadFocus = before && hasFocus(before);
    before?.remove();
    this.#unsent.delete(entry.requestId);
    if (entry.state === "sending" || entry.state === "refused") this.#showWaiting(entry);
    this.#showEdges();
    if (hadFocus) this.composer.focus();
  }

  #showWaiting(entry) {
    const bubble = unsentBubble(entry, {
      again: () => this.live.sendAgain(entry.requestId),
      discard: () => this.live.discard(entry.requestId),
    });
    this.#unsent.set(entry.requestId, bubble);
    this.messages.append(bubble);
    this.#isAtEnd = true;
    if (entry.state === "refused") speak(t("notSent", { reason: reasonOf(entry.error) }));
  }

  #showJob(job) {
    const bubble = this.#bubbles.get(job.assistant_message_id);
    const isWaiting = bubble && bubble.message.is_streaming && !bubble.message.content;
    if (isWaiting || bubble?.message.status === "failed") bubble.update(bubble.message, job);
  }

  #showEdges() {
    this.older.hidden = !this.live.hasOlder;
    this.empty.hidden = this.messages.childElementCount > 0;
    this.composer.showStop(this.mayWrite && this.#unfinished().length > 0);
  }

  async #showOlder() {
    if (this.older.ariaBusy === "true") return;
    this.#isAtEnd = false;
    this.older.ariaBusy = "true";
    const first = this.messages.firstElementChild;
    const top = first?.getBoundingClientRect().top;
    const hadFocus = hasFocus(this.older);
    await this.#attempt(() => this.live.fetchOlder());
    this.older.ariaBusy = "false";
    this.#showEdges();
    // What was read stays where it was.
    if (first?.isConnected) this.log.scrollTop += first.getBoundingClientRect().top - top;
    if (hadFocus && this.older.hidden) this.log.focus();
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
      notify(reasonOf(error));
    }
  }

  #speakOf(message, action) {
    if (action in SPOKEN) return speak(howItEnded(message) || t(SPOKEN[action]));
    if (action !== "new_message") return;
    if (message.role === "assistant") speak(t("answerBegins"));
    else if (message.user_id !== this.live.userId) {
      speak(t("messageFrom", { user: message.user_id ?? "", text: cutText(message.content, MOST_SPOKEN) }));
    }
  }

  // Where the reader is

  // Once a frame, after all that has come in it: the end stays in view for whoever has not turned away from it.
  #size = new ResizeObserver(() => this.#isAtEnd && this.#scrollToEnd());

  /** The reader who moves up, however little, is let go; at the end they are taken along again. */
  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    const left = scrollHeight - scrollTop - clientHeight;
    if (left <= 1) this.#isAtEnd = true;
    else if (scrollTop < this.#top) this.#isAtEnd = false;
    else if (scrollTop > this.#top && left < NEAR_PIXELS) this.#isAtEnd = true;
    this.#top = scrollTop;
    this.toEnd.hidden = this.#isAtEnd;
  }

  #scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  #goToEnd() {
    this.#isAtEnd = true;
    this.#scrollToEnd();
    this.log.focus();
  }

  // Who is here, and how the connection is

  #showPresence() {
    const { online } = this.live;
    const faces = online.slice(0, MOST_FACES).map((user) => face(user));
    const more = online.length > MOST_FACES ? [h("span", { class: "face more" }, `+${online.length - MOST_FACES}`)] : [];
    this.faces.replaceChildren(...faces, ...more, ...(online.length ? [] : [icon("people")]));
    this.faces.setAttribute("aria-label", `${t("people")}: ${t("onlineNow", { count: online.length })}`);
    this.faces.title = online.join(", ") || t("people");
  }

  #showTypists() {
    const users = [...this.live.typing].filter((user) => user !== this.live.userId);
    this.typists.textContent =
      users.length === 0 ? "" : users.length === 1 ? t("typingOne", { user: users[0] }) : t("typingSeveral", { users: users.join(", ") });
  }

  #showState() {
    const { state, closedBecause } = this.live;
    const text = { live: t("stateLive"), connecting: t("stateConnecting"), waiting: t("stateWaiting"), closed: "" }[state];
    const hadFocus = hasFocus(this.again);
    this.connection.dataset.state = state;
    this.words.textContent = text;
    this.again.hidden = state !== "waiting";
    if (hadFocus && this.again.hidden) this.log.focus();
    if (state === "closed" && closedBecause !== "left") this.told.closed(closedBecause);
  }
}

/** A user as a coloured letter. */
export function face(user) {
  const hue = [...user].reduce((sum, sign) => (sum * 31 + sign.codePointAt(0)) % 8, 7);
  return h("span", { class: "face", "data-hue": String(hue), title: user, "aria-hidden": "true" }, firstSign(user).toUpperCase());
}
