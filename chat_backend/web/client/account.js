/** Who uses this window, and how the page looks to them. */

import { tokenIdentity } from "./chat-client.js";
import { dialogOf, h, openDialog } from "./dom.js";
import { chooseLanguage, currentLanguage, LANGUAGES, t } from "./i18n.js";
import { chooseTheme, chooseUserName, keepToken, theme, userName } from "./preferences.js";

/** Show who I am, the theme and the language; `fault` says why the name there was can't be used. */
export function showAccount({ isDev, fault = "" }) {
  const dialog = dialogOf(t("settings"), t("close"), isDev ? nameForm(fault) : signOutForm(), looks());
  return openDialog(dialog);
}

function nameForm(fault) {
  const name = h("input", { required: true, autofocus: true, maxlength: "255", autocomplete: "username" });
  name.value = userName();
  function choose(event) {
    event.preventDefault();
    if (name.value.trim()) chooseUserName(name.value.trim());
  }
  return h(
    "form",
    { class: "fields", onsubmit: choose },
    fault && h("p", { class: "note fault", role: "alert" }, fault),
    h("label", {}, t("userName"), name, h("small", {}, t("userNameHint"))),
    h("button", { type: "submit", class: "primary" }, t("chooseName")),
  );
}

function signOutForm() {
  function signOut(event) {
    event.preventDefault();
    keepToken(null);
    location.assign("/");
  }
  return h("form", { class: "fields", onsubmit: signOut }, h("button", { type: "submit" }, t("signOut")));
}

function looks() {
  const themes = { auto: "themeAuto", light: "themeLight", dark: "themeDark" };
  const themeField = selectOf(Object.entries(themes).map(([name, label]) => [name, t(label)]), theme(), chooseTheme);
  const languageField = selectOf(Object.entries(LANGUAGES), currentLanguage(), chooseLanguage);
  return h("div", { class: "fields" }, h("label", {}, t("theme"), themeField), h("label", {}, t("language"), languageField));
}

function selectOf(choices, chosen, onchosen) {
  const options = choices.map(([value, label]) => h("option", { value, selected: value === chosen }, label));
  return h("select", { onchange: ({ target }) => onchosen(target.value) }, ...options);
}

/**
 * Ask for a token until there is one that the server takes; resolves to the identity.
 *
 * `whyNot(identity)` promises what speaks against it, or nothing; `reason` is what spoke against the one there was.
 */
export async function askForToken(whyNot, { reason = "" } = {}) {
  const field = h("textarea", { rows: "4", required: true, spellcheck: "false", autocomplete: "off" });
  const fault = h("p", { class: "note fault", role: "alert" }, reason);
  const enter = h("button", { type: "submit", class: "primary" }, t("signIn"));
  let identity = null;

  async function signIn(event) {
    event.preventDefault();
    const text = field.value.trim();
    const asked = /^[\x21-\x7e]+$/.test(text) ? tokenIdentity(text) : null;
    enter.disabled = true;
    fault.textContent = asked ? await whyNot(asked) : t("tokenRefused");
    enter.disabled = false;
    if (fault.textContent) return;
    keepToken(text);
    identity = asked;
    dialog.close();
  }

  const form = h("form", { class: "fields", onsubmit: signIn }, h("label", {}, t("token"), field, h("small", {}, t("tokenHint"), " ", t("tokenCommand"))), fault, enter);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("header", {}, h("h2", { id: "dialog-title" }, t("signIn"))), form);
  // Without a token there is nothing to go back to: a second Escape closes it all the same, and it is asked again.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  while (!identity) await openDialog(dialog);
  return identity;
}
