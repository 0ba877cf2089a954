/** The page put together: who is asking, the list of chats, and what the address after `#` names. */

import { askForToken, showAccount } from "./account.js";
import { ChatApi, devIdentity, LiveSession, tokenIdentity } from "./chat-client.js";
import { Conversation } from "./conversation.js";
import { h, icon, iconButton, setAttribute } from "./dom.js";
import { loadLanguage, t } from "./i18n.js";
import { Catalogue } from "./model-picker.js";
import { installNotices, notify } from "./notices.js";
import { showPeople } from "./people.js";
import { draft, keepDraft, keepModel, keepToken, lastModel, showTheme, token, userName } from "./preferences.js";
import { showSessionDialog } from "./session-dialog.js";
import { SessionList } from "./session-list.js";
import { Status } from "./status.js";
import { Welcome } from "./welcome.js";

const NEW = "new";
const TITLE_CHARACTERS = 60;

class App {
  #shown = null;
  #turn = 0;

  constructor(config, api) {
    this.config = config;
    this.api = api;
    this.isDev = config.auth_mode === "dev";
    this.catalogue = new Catalogue(api);
    this.list = new SessionList(api, {
      create: () => this.#go("#/"),
      settings: (session) => this.#showSettings(session),
      unauthenticated: () => this.#signInAgain(),
    });
    this.main = h("main", { id: "main" });
    this.sidebar = this.#sidebar();
  }

  start() {
    const skip = h("a", { class: "skip", href: "#composer-field", onclick: (event) => this.#skip(event) }, t("skipToComposer"));
    const veil = h("div", { class: "veil", onclick: () => this.#openMenu(false) });
    document.body.append(skip, this.sidebar, veil, this.main);
    addEventListener("hashchange", () => this.#show());
    addEventListener("online", () => this.#shown?.live?.retryNow());
    addEventListener("keydown", (event) => this.#pressed(event));
    this.list.start();
    this.#show();
  }

  #sidebar() {
    const account = h(
      "button",
      { type: "button", class: "account", onclick: () => showAccount({ isDev: this.isDev }) },
      icon("person"),
      h("span", {}, this.api.identity.user ?? t("account")),
    );
    return h(
      "aside",
      { class: "sidebar" },
      h("div", { class: "brand" }, icon("chat"), t("appName"), iconButton("close", t("closeChats"), () => this.#openMenu(false), { class: "icon-button menu" })),
      this.list.element,
      h("footer", {}, account, h("a", { href: "#/status", class: "icon-button", "aria-label": t("status"), title: t("status") }, icon("pulse"))),
    );
  }

  // Where we are

  #go(address) {
    if (location.hash === address) this.#show();
    else location.hash = address;
  }

  async #show() {
    const turn = (this.#turn += 1);
    const [, kind, id] = location.hash.split("/");
    this.#openMenu(false);
    this.list.choose(kind === "s" ? id : null);
    const view = await this.#view(kind, id).catch((error) => this.#failed(error));
    // Whoever clicks quickly is shown what was clicked last.
    if (turn !== this.#turn) return view?.close();
    this.#put(view);
  }

  #put(view) {
    this.#shown?.close();
    this.#shown = view;
    this.main.replaceChildren(...(view ? [view.element] : []));
    if (matchMedia("(hover: hover)").matches) view?.composer?.focus();
  }

  async #view(kind, id) {
    if (kind === "status") return new Status(this.api, { flowerUrl: this.config.flower_url, menu: () => this.#openMenu(true) });
    return kind === "s" ? this.#conversation(id) : this.#welcome();
  }

  async #welcome() {
    const choice = lastModel() ?? (await this.catalogue.firstChoice());
    return new Welcome(this.catalogue, choice, {
      draft: draft(this.api.identity.user, NEW),
      told: {
        begin: (chosen, text) => this.#begin(chosen, text),
        keepDraft: (text) => keepDraft(this.api.identity.user, NEW, text),
        menu: () => this.#openMenu(true),
      },
    });
  }

  /** Make a chat with its first message. */
  async #begin(choice, text) {
    keepModel(choice);
    try {
      const session = await this.api.post("/sessions", { ...choice, title: titleOf(text) });
      keepDraft(this.api.identity.user, NEW, "");
      this.#firstWords = { id: session.id, text };
      this.#go(`#/s/${session.id}`);
      this.list.refresh();
    } catch (error) {
      this.#shown.composer.write(text);
      notify(error.message);
    }
  }

  #firstWords = null;

  async #conversation(id) {
    const session = await this.api.get(`/sessions/${encodeURIComponent(id)}`);
    const live = new LiveSession(this.api, session.id, { html: true });
    const view = new Conversation(live, session, {
      draft: draft(this.api.identity.user, id),
      told: {
        settings: () => this.#showSettings(view.session),
        people: () => showPeople(this.api, live, view.session, { isDev: this.isDev }),
        menu: () => this.#openMenu(true),
        keepDraft: (text) => keepDraft(this.api.identity.user, id, text),
        closed: (reason) => this.#closed(reason),
        changed: (changed) => this.#changed(view, changed),
      },
    });
    this.#allow(view);
    live.open();
    if (this.#firstWords?.id === id) live.send(this.#firstWords.text);
    this.#firstWords = null;
    return view;
  }

  /** Viewers read; who may do what is for the server to say, the page only does not offer what it refuses. */
  async #allow(view) {
    const { participants } = await this.api.get(`/sessions/${view.session.id}/participants`).catch(() => ({ participants: [] }));
    const mine = participants.find(({ user_id: user }) => user === this.api.identity.user);
    view.composer.allow(mine?.role !== "viewer");
  }

  #changed(view, session) {
    if (session) {
      view.showSession(session);
      this.list.update(session);
      this.#allow(view);
    } else this.list.refreshSoon();
  }

  #closed(reason) {
    if (reason === "unauthenticated") return this.#signInAgain();
    notify(t(reason === "removed" ? "closedRemoved" : "closedGone"));
    this.list.refresh();
    this.#go("#/");
  }

  #failed(error) {
    if (error.status === 401) return this.#signInAgain();
    if (error.status === 404) return this.#closed("gone");
    return this.#fault(error);
  }

  /** What is shown where nothing could be had: why, and a way to ask again. */
  #fault(error) {
    const again = h("button", { type: "button", class: "primary", onclick: () => this.#show() }, t("tryAgain"));
    const bar = h("header", { class: "bar" }, iconButton("menu", t("openChats"), () => this.#openMenu(true), { class: "icon-button menu" }));
    const log = h("section", { class: "log" }, h("div", { class: "greeting", role: "alert" }, h("p", {}, error.message), h("p", {}, again)));
    return { element: h("div", { class: "conversation welcome" }, bar, log), close() {} };
  }

  #signInAgain() {
    keepToken(null);
    notify(t("closedUnauthenticated"));
    location.reload();
  }

  async #showSettings(session) {
    const outcome = await showSessionDialog(this.api, this.catalogue, session);
    const isOpen = this.#shown?.session?.id === session.id;
    if (outcome?.changed && isOpen) this.#shown.showSession(outcome.changed);
    if (outcome?.deleted) keepDraft(this.api.identity.user, session.id, "");
    if (outcome?.deleted && isOpen) this.#go("#/");
    if (outcome) this.list.refresh();
  }

  // The keyboard, and the menu of narrow windows

  #pressed(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "k") {
      event.preventDefault();
      this.#openMenu(true);
      this.list.search.focus();
    } else if (event.key === "Escape") this.#openMenu(false);
  }

  #skip(event) {
    event.preventDefault();
    this.#shown?.composer?.focus();
  }

  #openMenu(isOpen) {
    setAttribute(document.body, "data-menu", isOpen && "open");
    if (isOpen) this.list.search.focus();
  }
}

/** Return the first words of a message, for a title. */
function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  return line.length <= TITLE_CHARACTERS ? line : `${line.slice(0, TITLE_CHARACTERS).replace(/\s+\S*$/, "")} …`;
}

/** Return who is asking: a name where the server believes it, else a token that it takes. */
async function identify(config) {
  if (config.auth_mode === "dev") return devIdentity(userName());
  const accepts = (identity) => new ChatApi({ identity }).get("/stats").then(() => true, () => false);
  const kept = token() && tokenIdentity(token());
  if (kept && (await accepts(kept))) return kept;
  return askForToken(accepts, { refused: Boolean(kept) });
}

async function start() {
  showTheme();
  await loadLanguage();
  installNotices();
  const nobody = new ChatApi({ identity: { user: null, headers: () => ({}) } });
  const config = await nobody.get("/client-config");
  const api = new ChatApi({ identity: await identify(config) });
  new App(config, api).start();
}

start().catch((error) => notify(error.message));
