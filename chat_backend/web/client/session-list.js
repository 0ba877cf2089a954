/** The list of chats: search as you type, active or archived, and more on request. */

import { h, icon, iconButton, setAttribute } from "./dom.js";
import { t, time } from "./i18n.js";

const PAGE_SIZE = 50;
const TYPING_PAUSE_SECONDS = 0.15;
const REFRESH_SECONDS = 20;
const SOON_SECONDS = 0.5;

export class SessionList {
  #asked = 0;
  #cursor = null;
  #pause = null;
  #soon = null;
  #sessions = new Map();

  /** `told` holds what is done about it: `open(id)`, `create()`, `settings(session)`. */
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
    this.nothing = h("p", { class: "empty", hidden: true });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.#fetch({ more: true }) }, t("moreChats"));
    this.element = h(
      "nav",
      { class: "session-list", "aria-label": t("chats") },
      h("button", { type: "button", class: "new-chat", onclick: () => told.create() }, icon("plus"), t("newChat")),
      h("div", { class: "search-field" }, icon("search"), this.search),
      h("div", { class: "tabs", role: "group", "aria-label": t("chats") }, ...this.tabs),
      h("div", { class: "scroller" }, this.list, this.nothing, this.more),
    );
    this.#showTabs();
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
    this.#pause = setTimeout(() => this.#fetch(), TYPING_PAUSE_SECONDS * 1000);
  }

  #turnTo(isActive) {
    this.isActive = isActive;
    this.#showTabs();
    this.#sessions.clear();
    this.#fetch();
  }

  async #fetch({ more = false } = {}) {
    const asked = (this.#asked += 1);
    const title = this.search.value.trim() || undefined;
    const where = more ? { cursor: this.#cursor } : { order: "desc" };
    try {
      const page = await this.api.get("/sessions", { title, is_active: this.isActive, page_size: PAGE_SIZE, ...where });
      // What was typed meanwhile has been asked for already.
      if (asked !== this.#asked) return;
      if (!more) this.#sessions.clear();
      for (const session of page.sessions) this.#sessions.set(session.id, session);
      this.#cursor = page.next_cursor;
      this.more.hidden = !page.has_more;
      this.#show();
    } catch (error) {
      if (error.status === 401) this.told.unauthenticated();
    }
  }

  #show() {
    const latestFirst = [...this.#sessions.values()].sort((a, b) => b.updated_at.localeCompare(a.updated_at));
    // Whoever is in the list with the keyboard stays where they are.
    const focused = document.activeElement?.closest?.(".sessions a")?.dataset.id;
    this.list.replaceChildren(...latestFirst.map((session) => this.#item(session)));
    if (focused) this.list.querySelector(`[data-id="${focused}"]`)?.focus();
    this.nothing.hidden = latestFirst.length > 0;
    this.nothing.textContent = t(this.search.value.trim() ? "nothingFound" : this.isActive ? "noChats" : "noArchived");
  }

  #item(session) {
    const isChosen = session.id === this.chosen;
    const link = h(
      "a",
      { href: `#/s/${session.id}`, "data-id": session.id, "aria-current": isChosen && "page" },
      h("span", { class: "provider-icon", "data-provider": session.llm_provider, role: "img", "aria-label": session.llm_provider }),
      h("span", { class: "title", dir: "auto" }, session.title || t("untitled")),
      h("span", { class: "when" }, time(session.updated_at)),
    );
    return h("li", {}, link, iconButton("more", `${t("chatSettings")}: ${session.title || t("untitled")}`, () => this.told.settings(session)));
  }

  #showTabs() {
    this.tabs.forEach((tab, number) => setAttribute(tab, "aria-pressed", String((number === 0) === this.isActive)));
  }
}
