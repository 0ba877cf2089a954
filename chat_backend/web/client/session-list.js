/** The list of chats: search as you type, active or archived, and more on request. */

import { h, hasFocus, icon, iconButton, setAttribute } from "./dom.js";
import { reasonOf, t, timeOrDate } from "./i18n.js";

const PAGE_SIZE = 50;
const MOST_AT_ONCE = 200;
const TYPING_PAUSE_SECONDS = 0.15;
const REFRESH_SECONDS = 20;
const SOON_SECONDS = 0.5;

export class SessionList {
  #asked = 0;
  #answered = 0;
  #wanted = PAGE_SIZE;
  #pause = null;
  #soon = null;
  #sessions = new Map();
  #items = new Map();
  #state = "loading";

  /** `told` holds what is done about it: `create()`, `settings(session)`, `unauthenticated(error)`. */
  constructor(api, told) {
    this.api = api;
    this.told = told;
    this.chosen = null;
    this.isActive = true;
    this.search = h("input", {
      type: "search",
      class: "search",
      placeholder: t("searchChats"),
      "aria-label": t("searchChats"),
      maxlength: "500",
      oninput: () => this.#searched(),
    });
    this.tabs = [true, false].map((isActive) =>
      h("button", { type: "button", onclick: () => this.#turnTo(isActive) }, t(isActive ? "active" : "archived")),
    );
    this.list = h("ul", { class: "sessions", "aria-label": t("chats") });
    this.note = h("p", { class: "empty", role: "status" });
    this.again = h("button", { type: "button", class: "quiet again", hidden: true, onclick: () => this.#askAgain() }, icon("again"), t("tryAgain"));
    this.more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.#showMore() }, t("moreChats"));
    this.element = h(
      "nav",
      { class: "session-list", "aria-label": t("chats") },
      h("button", { type: "button", class: "new-chat", onclick: () => told.create() }, icon("plus"), t("newChat")),
      h("div", { class: "search-field" }, icon("search"), this.search),
      h("div", { class: "tabs", role: "group", "aria-label": t("chats") }, ...this.tabs),
      h("div", { class: "scroller" }, this.list, this.note, this.again, this.more),
    );
    this.#showTabs();
    this.#showNote();
  }

  /** Fetch the list now and then: others may have invited us, or gone on elsewhere. */
  start() {
    this.refresh();
    setInterval(() => document.hidden || this.refresh(), REFRESH_SECONDS * 1000);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  refresh() {
    return this.#fetch();
  }

  /** Fetch the list in a moment, once for all that happens until then. */
  refreshSoon() {
    this.#soon ??= setTimeout(() => {
      this.#soon = null;
      this.refresh();
    }, SOON_SECONDS * 1000);
  }

  /** Mark the chat that is open. */
  choose(id) {
    this.chosen = id;
    this.#show();
  }

  /** Show a chat as it is now, where it is listed. */
  update(session) {
    if (this.#sessions.has(session.id)) this.#sessions.set(session.id, session);
    this.#show();
  }

  #searched() {
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => this.#begin(), TYPING_PAUSE_SECONDS * 1000);
  }

  #turnTo(isActive) {
    this.isActive = isActive;
    this.#showTabs();
    this.#sessions.clear();
    this.#state = "loading";
    this.#show();
    this.#begin();
  }

  #begin() {
    this.#wanted = PAGE_SIZE;
    this.#answered = this.#asked; // no answer to an earlier search is of use any more
    return this.#fetch();
  }

  #askAgain() {
    this.#state = "loading";
    this.#show();
    return this.#fetch();
  }

  async #showMore() {
    const last = this.list.lastElementChild;
    this.#wanted += PAGE_SIZE;
    await this.#fetch();
    // The keyboard goes on where there is more, not back to the beginning of the page.
    if (this.more.hidden && document.activeElement === document.body) (last?.nextElementSibling ?? last)?.querySelector("a").focus();
  }

  /** Fetch as many as are shown, and what has come. */
  async #fetch() {
    const asked = (this.#asked += 1);
    // An answer that is late is better than one that never comes.
    const isWanted = () => asked > this.#answered;
    try {
      const found = await this.#pages(isWanted);
      if (!isWanted()) return;
      this.#sessions = new Map(found.sessions.map((session) => [session.id, session]));
      this.more.hidden = !found.hasMore;
      this.#state = "ready";
    } catch (error) {
      if (error.status === 401) return this.told.unauthenticated(error);
      if (!isWanted()) return;
      // What there is stays: it was true a moment ago.
      this.#state = { reason: reasonOf(error) };
    }
    this.#answered = asked;
    this.#show();
  }

  async #pages(isWanted) {
    const sessions = [];
    const asked = { title: this.search.value.trim() || undefined, is_active: this.isActive };
    for (let where = { order: "desc" }; ; ) {
      const size = Math.min(MOST_AT_ONCE, this.#wanted - sessions.length);
      const page = await this.api.get("/sessions", { ...asked, page_size: size, ...where });
      sessions.push(...page.sessions);
      if (!page.has_more || sessions.length >= this.#wanted || !isWanted()) return { sessions, hasMore: page.has_more };
      where = { cursor: page.next_cursor };
    }
  }

  #show() {
    const latestFirst = [...this.#sessions.values()].sort((a, b) => b.updated_at.localeCompare(a.updated_at));
    const items = latestFirst.map((session) => this.#item(session));
    for (const id of this.#items.keys()) if (!this.#sessions.has(id)) this.#items.delete(id);
    this.#put(items.map(({ element }) => element));
    this.#showNote();
  }

  /** Whoever is in the list with the keyboard, or about to click, finds the same elements there. */
  #put(elements) {
    if (elements.length === this.list.childElementCount && elements.every((element, n) => element === this.list.children[n])) return;
    const active = hasFocus(this.list) ? document.activeElement : null;
    const { scrollTop } = this.list.parentElement;
    this.list.replaceChildren(...elements);
    this.list.parentElement.scrollTop = scrollTop;
    if (active) (active.isConnected ? active : this.search).focus({ preventScroll: true });
  }

  #showNote() {
    const isLoading = this.#state === "loading";
    const { reason } = this.#state;
    const nothing = t(this.search.value.trim() ? "nothingFound" : this.isActive ? "noChats" : "noArchived");
    this.note.textContent = reason ? t("chatsFailed", { reason }) : isLoading ? t("loading") : nothing;
    this.note.hidden = !reason && this.#sessions.size > 0;
    const hadFocus = hasFocus(this.again);
    this.again.hidden = !reason;
    if (hadFocus && !reason) this.search.focus();
    setAttribute(this.list, "aria-busy", isLoading && "true");
  }

  #item(session) {
    if (!this.#items.has(session.id)) this.#items.set(session.id, new Item(session.id, () => this.told.settings(this.#sessions.get(session.id))));
    const item = this.#items.get(session.id);
    item.update(session, session.id === this.chosen);
    return item;
  }

  #showTabs() {
    this.tabs.forEach((tab, number) => setAttribute(tab, "aria-pressed", String((number === 0) === this.isActive)));
  }
}

/** One chat in the list. */
class Item {
  constructor(id, settings) {
    this.icon = h("span", { class: "provider-icon", role: "img" });
    this.title = h("span", { class: "title", dir: "auto" });
    this.when = h("span", { class: "when" });
    this.link = h("a", { href: `#/s/${id}`, "data-id": id }, this.icon, this.title, this.when);
    this.settings = iconButton("more", "", settings);
    this.element = h("li", {}, this.link, this.settings);
  }

  update(session, isChosen) {
    const title = session.title || t("untitled");
    this.icon.dataset.provider = session.llm_provider;
    setAttribute(this.icon, "aria-label", session.llm_provider);
    this.title.textContent = title;
    this.title.title = title;
    this.when.textContent = timeOrDate(session.updated_at);
    setAttribute(this.link, "aria-current", isChosen && "page");
    this.settings.title = `${t("chatSettings")}: ${title}`;
    setAttribute(this.settings, "aria-label", this.settings.title);
  }
}
