/** The page put together: who is asking, the list of chats, and what the address after `#` names. */

import { askForToken, showAccount } from "./account.js";
import { ChatApi, devIdentity, LiveSession, newId, tokenIdentity } from "./chat-client.js";
import { Conversation } from "./conversation.js";
import { h, hasFocus, icon, iconButton, setAttribute } from "./dom.js";
import { cutText, loadLanguage, reasonOf, t } from "./i18n.js";
import { Catalogue } from "./model-picker.js";
import { installNotices, notify } from "./notices.js";
import { showPeople } from "./people.js";
import {
  draft,
  forgetUnsent,
  forgetUserName,
  hasWaitedTooLong,
  keepDraft,
  keepModel,
  keepUnsent,
  lastModel,
  refuseToken,
  showTheme,
  token,
  unsent,
  userName,
  wasTokenRefused,
} from "./preferences.js";
import { showSessionDialog } from "./session-dialog.js";
import { SessionList } from "./session-list.js";
import { Status } from "./status.js";
import { Welcome } from "./welcome.js";

const NEW = "new";
const TITLE_CHARACTERS = 60;
const PATIENCE_SECONDS = 0.25;
const NARROW = matchMedia("(width < 60rem)");

class App {
  #shown = null;
  #turn = 0;
  #isLeaving = false;

  constructor(config, api) {
    this.config = config;
    this.api = api;
    this.isDev = config.auth_mode === "dev";
    this.catalogue = new Catalogue(api);
    this.list = new SessionList(api, {
      create: () => this.#go("#/"),
      settings: (session) => this.#showSettings(session),
      unauthenticated: (error) => this.#signInAgain(error),
    });
    this.main = h("main", { id: "main" });
    this.sidebar = this.#sidebar();
  }

  start() {
    const skip = h("a", { class: "skip", href: "#composer-field", onclick: (event) => this.#skip(event) }, t("skipToComposer"));
    const veil = h("div", { class: "veil", onclick: () => this.#openMenu(false) });
    document.body.append(skip, this.sidebar, veil, this.main);
    addEventListener("hashchange", () => this.#show());
    const look = () => this.#shown?.live?.lookAgain();
    for (const name of ["online", "offline", "focus"]) addEventListener(name, look);
    addEventListener("pageshow", ({ persisted }) => persisted && look());
    document.addEventListener("visibilitychange", () => document.hidden || look());
    addEventListener("keydown", (event) => this.#pressed(event));
    NARROW.addEventListener("change", () => this.#openMenu(false));
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
      { class: "sidebar", id: "sidebar" },
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
    const patience = setTimeout(() => this.#put(this.#loading()), this.#shown ? PATIENCE_SECONDS * 1000 : 0);
    const view = await this.#view(kind, id).catch((error) => this.#failed(error));
    clearTimeout(patience);
    // Whoever clicks quickly is shown what was clicked last.
    if (turn !== this.#turn) return view?.close();
    this.#put(view);
  }

  #put(view) {
    this.#shown?.close();
    this.#shown = view;
    this.main.replaceChildren(...(view ? [view.element] : []));
    this.#showMenuState();
    document.title = view?.documentTitle ?? t("appName");
    // Whoever is searching types on in the search: the next letter must not land in the message.
    const isElsewhere = document.querySelector("dialog[open]") || hasFocus(this.list.search);
    if (matchMedia("(hover: hover)").matches && !isElsewhere) view?.composer?.focus();
  }

  /** What is shown until there is something: an answer may take a while, and what was there before is not it. */
  #loading() {
    return this.#notice(h("p", { role: "status" }, t("loading")));
  }

  #notice(...said) {
    const bar = h("header", { class: "bar" }, this.#menuButton());
    const log = h("section", { class: "log" }, h("div", { class: "greeting" }, ...said));
    return { element: h("div", { class: "conversation welcome" }, bar, log), close() {} };
  }

  #menuButton() {
    return iconButton("menu", t("openChats"), () => this.#openMenu(true), { class: "icon-button menu" });
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

  /** Make a chat with its first message; promises whether there is one. The message is kept until the server has taken it. */
  async #begin(choice, text) {
    const title = this.config.session_titles === "off" ? { title: titleOf(text) } : {};
    try {
      const session = await this.api.post("/sessions", { ...choice, ...title });
      keepModel(choice);
      keepUnsent(this.api.identity.user, session.id, { requestId: newId(), content: text });
      this.list.refresh();
      this.#go(`#/s/${session.id}`);
      return true;
    } catch (error) {
      notify(reasonOf(error));
      return false;
    }
  }

  async #conversation(id) {
    const path = `/sessions/${encodeURIComponent(id)}`;
    const [session, mayWrite] = await Promise.all([this.api.get(path), this.#mayWrite(path)]);
    const live = new LiveSession(this.api, session.id, { html: true, unsent: this.#unsent(session.id) });
    live.addEventListener("unsent", ({ detail: { entry } }) => this.#keep(session.id, entry));
    const view = new Conversation(live, session, {
      draft: draft(this.api.identity.user, id),
      mayWrite,
      told: {
        settings: () => this.#showSettings(view.session),
        people: () => showPeople(this.api, live, view.session, { isDev: this.isDev, leaving: view.leaving }),
        menu: () => this.#openMenu(true),
        keepDraft: (text) => keepDraft(this.api.identity.user, id, text),
        closed: (reason) => this.#closed(reason),
        changed: (changed) => this.#changed(view, changed),
        renamed: () => this.#renamed(),
      },
    });
    live.open();
    return view;
  }

  /** What an earlier page could not say that it was sent. */
  #unsent(sessionId) {
    const late = { details: { message: t("waitedTooLong") } };
    return unsent(this.api.identity.user, sessionId).map((entry) => ({ ...entry, error: entry.error ?? (hasWaitedTooLong(entry) ? late : null) }));
  }

  #keep(sessionId, entry) {
    const isWaiting = entry.state === "sending" || entry.state === "refused";
    if (isWaiting) keepUnsent(this.api.identity.user, sessionId, entry);
    else forgetUnsent(this.api.identity.user, sessionId, entry.requestId);
  }

  /** Viewers read; who may do what is for the server to say, the page only does not offer what it refuses. */
  async #mayWrite(path) {
    const { participants } = await this.api.get(`${path}/participants`).catch(() => ({ participants: [] }));
    return participants.find(({ user_id: user }) => user === this.api.identity.user)?.role !== "viewer";
  }

  #renamed() {
    if (this.#shown?.documentTitle) document.title = this.#shown.documentTitle;
  }

  #changed(view, session) {
    if (session) {
      view.showSession(session);
      this.list.update(session);
      this.#mayWrite(`/sessions/${session.id}`).then((mayWrite) => view.allow(mayWrite));
    } else this.list.refreshSoon();
  }

  #closed(reason) {
    if (reason === "unauthenticated") return this.#signInAgain();
    notify(t(reason === "removed" ? "closedRemoved" : "closedGone"));
    this.list.refresh();
    this.#go("#/");
  }

  #failed(error) {
    if (error.status === 401) return this.#signInAgain(error);
    if (error.status === 404) return this.#closed("gone");
    return this.#fault(error);
  }

  /** What is shown where nothing could be had: why, and a way to ask again. */
  #fault(error) {
    return this.#notice(...faultOf(reasonOf(error), () => this.#show()));
  }

  #signInAgain(error) {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    if (this.isDev) return this.#nameAgain(error);
    refuseToken();
    location.reload();
  }

  /** A name that the server does not take is forgotten, or it would be refused for ever. */
  async #nameAgain(error) {
    forgetUserName();
    await showAccount({ isDev: true, fault: t("nameRefused", { reason: error?.body?.details?.message ?? "" }) });
    location.reload();
  }

  async #showSettings(session) {
    const outcome = await showSessionDialog(this.api, this.catalogue, session).catch((error) => notify(reasonOf(error)));
    const isOpen = this.#shown?.session?.id === session.id;
    if (outcome?.changed && isOpen) this.#shown.showSession(outcome.changed);
    if (outcome?.deleted) this.#forget(session.id);
    if (outcome?.deleted && isOpen) this.#go("#/");
    if (outcome) this.list.refresh();
  }

  #forget(sessionId) {
    const user = this.api.identity.user;
    keepDraft(user, sessionId, "");
    for (const { requestId } of unsent(user, sessionId)) forgetUnsent(user, sessionId, requestId);
  }

  // The keyboard, and the menu of narrow windows

  #pressed(event) {
    if (isSearchKey(event)) {
      event.preventDefault();
      if (document.querySelector("dialog[open]")) return;
      this.#openMenu(true);
      this.list.search.focus();
    } else if (event.key === "Escape" && !event.isComposing) this.#openMenu(false);
  }

  #skip(event) {
    event.preventDefault();
    this.#shown?.composer?.focus();
  }

  /** In a narrow window the chats are a drawer over the page, which is out of reach meanwhile. */
  #openMenu(isOpen) {
    const isDrawer = isOpen && NARROW.matches;
    const wasDrawer = "menu" in document.body.dataset;
    setAttribute(document.body, "data-menu", isDrawer && "open");
    this.main.inert = isDrawer;
    this.#showMenuState();
    // The search field would bring up a phone's keyboard.
    if (isDrawer) this.sidebar.querySelector(".menu").focus();
    else if (wasDrawer) this.main.querySelector(".icon-button.menu")?.focus();
  }

  #showMenuState() {
    const button = this.main.querySelector(".icon-button.menu");
    button?.setAttribute("aria-expanded", String("menu" in document.body.dataset));
    button?.setAttribute("aria-controls", "sidebar");
  }
}

/** Return the first words of a message, for a title. */
function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  const kept = cutText(line, TITLE_CHARACTERS);
  return kept === line ? line : `${kept.replace(/\s+\S*$/, "")} …`;
}

/** Whether a key is Ctrl+K or Cmd+K: by its letter, or by its place where the layout has no Latin letters. */
function isSearchKey({ key = "", code, ctrlKey, metaKey, altKey, shiftKey }) {
  const isK = /^[a-z]$/i.test(key) ? key.toLowerCase() === "k" : code === "KeyK";
  return isK && (ctrlKey || metaKey) && !altKey && !shiftKey;
}

/** Say why something could not be had, with a way to ask again. */
function faultOf(reason, again) {
  return [h("p", { role: "alert" }, reason), h("p", {}, h("button", { type: "button", class: "primary", onclick: again }, t("tryAgain")))];
}

/** Return who is asking: a name where the server believes it, else a token that it takes. */
async function identify(config) {
  if (config.auth_mode === "dev") return devIdentity(userName());
  const kept = token() && tokenIdentity(token());
  // Only the server can refuse it; that the server can't be asked is another matter.
  if (kept && !(await new ChatApi({ identity: kept }).get("/stats").then(() => false, isUnauthenticated))) return kept;
  return askForToken(whyNot, { reason: kept || wasTokenRefused() ? t("closedUnauthenticated") : "" });
}

/** Return what speaks against an identity, or nothing. */
function whyNot(identity) {
  const explain = (error) => (error.status === 401 ? t("tokenRefused") : reasonOf(error));
  return new ChatApi({ identity }).get("/stats").then(() => "", explain);
}

function isUnauthenticated(error) {
  if (error.status === 401) return true;
  throw error;
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

/** Begin, or say why not and let the reader ask again. */
async function begin() {
  try {
    await start();
  } catch (error) {
    const fault = h("main", { class: "greeting" }, ...faultOf(t("beginFailed", { reason: reasonOf(error) }), () => location.reload()));
    document.body.classList.add("failed");
    document.body.append(fault);
  }
}

begin();
