/** What this browser remembers for who uses it: never anything secret but a token, and that only as long as the window. */

const NAME = "chat.user";
const TOKEN = "chat.token";
const REFUSED = "chat.token.refused";
const THEME = "chat.theme";
const MODEL = "chat.model";
const DEFAULT_USER = "anonymous";
/** The server knows a message again by its name for 24 hours; what is older is not sent again by itself. */
const SURE_HOURS = 23;

// A browser may refuse to store anything, or be full: then it is remembered until the page is left.
const memory = new Map();

/** Return what is remembered under a name, or null. */
export function recall(name, storage = "localStorage") {
  if (memory.has(name)) return memory.get(name);
  try {
    return globalThis[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Remember a text under a name; null forgets it. */
export function remember(name, text, storage = "localStorage") {
  memory.delete(name);
  try {
    if (text === null) globalThis[storage].removeItem(name);
    else globalThis[storage].setItem(name, text);
  } catch {
    memory.set(name, text);
  }
}

// Who I am

/** Return the user of this window: the one in its address, else the one chosen here, else the last one chosen. */
export function userName() {
  const named = new URLSearchParams(location.search).get("user");
  // A header can't hold control characters.
  const name = (named || recall(NAME, "sessionStorage") || recall(NAME) || "").replace(/\p{Cc}/gu, "").trim().normalize("NFC");
  return name || DEFAULT_USER;
}

export function chooseUserName(name) {
  remember(NAME, name, "sessionStorage");
  remember(NAME, name);
  location.assign("/");
}

/** Forget a name that the server does not take, wherever it came from. */
export function forgetUserName() {
  remember(NAME, null, "sessionStorage");
  remember(NAME, null);
  history.replaceState(null, "", `/${location.hash}`);
}

export function token() {
  return recall(TOKEN, "sessionStorage");
}

export function keepToken(text) {
  remember(TOKEN, text, "sessionStorage");
  remember(REFUSED, null, "sessionStorage");
}

/** Forget a token that the server takes no more, but not why there is none. */
export function refuseToken() {
  keepToken(null);
  remember(REFUSED, "true", "sessionStorage");
}

export function wasTokenRefused() {
  return recall(REFUSED, "sessionStorage") !== null;
}

// How it looks

export function theme() {
  return recall(THEME) ?? "auto";
}

/** Show the page light, dark, or as the system is. */
export function chooseTheme(name) {
  remember(THEME, name);
  showTheme();
}

export function showTheme() {
  document.documentElement.dataset.theme = theme();
}

/** Return the provider and model that were chosen last, or null. */
export function lastModel() {
  return parsed(recall(MODEL));
}

export function keepModel(choice) {
  remember(MODEL, JSON.stringify(choice));
}

// What is written

/** Return what was written in this window and not sent, of one user in one chat. Each window has a draft of its own. */
export function draft(user, sessionId) {
  return recall(draftName(user, sessionId), "sessionStorage") ?? "";
}

export function keepDraft(user, sessionId, text) {
  remember(draftName(user, sessionId), text || null, "sessionStorage");
}

function draftName(user, sessionId) {
  return `chat.draft ${sessionId} ${user}`;
}

/** Return what was sent and not yet taken by the server, of one user in one chat: `{requestId, content}` each, oldest first. */
export function unsent(user, sessionId) {
  return parsed(recall(unsentName(user, sessionId))) ?? [];
}

/** Remember a message until the server has taken it; `error` is why it did not. */
export function keepUnsent(user, sessionId, { requestId, content, error = null }) {
  const before = unsent(user, sessionId);
  const at = before.find((entry) => entry.requestId === requestId)?.at ?? Date.now();
  const entry = { requestId, content, at, ...(error ? { error } : {}) };
  const isKnown = before.some((other) => other.requestId === requestId);
  write(user, sessionId, isKnown ? before.map((other) => (other.requestId === requestId ? entry : other)) : [...before, entry]);
}

export function forgetUnsent(user, sessionId, requestId) {
  write(user, sessionId, unsent(user, sessionId).filter((entry) => entry.requestId !== requestId));
}

/** Whether the server may have forgotten that it has stored such a message. */
export function hasWaitedTooLong({ at }) {
  return Date.now() - at > SURE_HOURS * 3_600_000;
}

function write(user, sessionId, entries) {
  remember(unsentName(user, sessionId), entries.length ? JSON.stringify(entries) : null);
}

function unsentName(user, sessionId) {
  return `chat.unsent ${sessionId} ${user}`;
}

function parsed(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}
