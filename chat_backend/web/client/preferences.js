/** What this browser remembers for who uses it: never anything secret but a token, and that only as long as the window. */

const NAME = "chat.user";
const TOKEN = "chat.token";
const THEME = "chat.theme";
const MODEL = "chat.model";
const DEFAULT_USER = "anonymous";

/** Return the user of this window: the one in its address, else the one chosen here, else the last one chosen. */
export function userName() {
  const named = new URLSearchParams(location.search).get("user");
  return named || sessionStorage.getItem(NAME) || localStorage.getItem(NAME) || DEFAULT_USER;
}

export function chooseUserName(name) {
  sessionStorage.setItem(NAME, name);
  localStorage.setItem(NAME, name);
  location.assign("/");
}

export function token() {
  return sessionStorage.getItem(TOKEN);
}

export function keepToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

export function theme() {
  return localStorage.getItem(THEME) ?? "auto";
}

/** Show the page light, dark, or as the system is. */
export function chooseTheme(name) {
  localStorage.setItem(THEME, name);
  showTheme();
}

export function showTheme() {
  document.documentElement.dataset.theme = theme();
}

/** Return the provider and model that were chosen last, or null. */
export function lastModel() {
  return JSON.parse(localStorage.getItem(MODEL) ?? "null");
}

export function keepModel(choice) {
  localStorage.setItem(MODEL, JSON.stringify(choice));
}

/** Return what was written and not sent, of one user in one chat. */
export function draft(user, sessionId) {
  return localStorage.getItem(draftName(user, sessionId)) ?? "";
}

export function keepDraft(user, sessionId, text) {
  if (text) localStorage.setItem(draftName(user, sessionId), text);
  else localStorage.removeItem(draftName(user, sessionId));
}

function draftName(user, sessionId) {
  return `chat.draft ${sessionId} ${user}`;
}
