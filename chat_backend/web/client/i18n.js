/** The page's words, in the language of who reads. A language is one file in `languages/` and one line here. */

import english from "./languages/en.js";
import { recall, remember } from "./preferences.js";

export const LANGUAGES = { en: "English", ru: "Русский" };
const KEPT_AS = "chat.language";

let words = english;
let language = "en";
let locale = "en";

/** Load the language that was chosen, else the first of the browser's that there is. */
export async function loadLanguage() {
  const wanted = [recall(KEPT_AS), ...navigator.languages.map((name) => name.slice(0, 2))];
  language = wanted.find((name) => name in LANGUAGES) ?? "en";
  if (language !== "en") words = { ...english, ...(await import(`./languages/${language}.js`)).default };
  // Times and numbers as they are written where the reader is: en-GB is not en-US.
  locale = navigator.languages.find((name) => name.startsWith(language)) ?? language;
  document.documentElement.lang = language;
}

export function currentLanguage() {
  return language;
}

/** Choose a language for this browser; the page is made anew in it. */
export function chooseLanguage(name) {
  remember(KEPT_AS, name);
  location.reload();
}

/** Return a text by its name, `{values}` put in; one with several forms takes that of `count`. */
export function t(name, values = {}) {
  const found = words[name] ?? name;
  const text = typeof found === "string" ? found : found[new Intl.PluralRules(language).select(values.count)];
  return text.replace(/\{(\w+)\}/g, (_, key) => (typeof values[key] === "number" ? number(values[key]) : values[key]));
}

/** Return why something did not work, of what the server has answered: by its code, else in its own words. */
export function reasonOf(error) {
  return sentence(error?.code ?? error?.error_code, error?.details?.message ?? error?.message);
}

/** Return a sentence for one of the server's error codes, else its own words. */
export function sentence(code, said) {
  return code in words ? t(code, { said: said ?? "" }).trim() : said || t("faultUnknown");
}

export function number(value) {
  return new Intl.NumberFormat(locale).format(value);
}

/** Return milliseconds as seconds for people. */
export function duration(milliseconds) {
  const digits = milliseconds < 10_000 ? 1 : 0;
  return t("seconds", { seconds: (milliseconds / 1000).toFixed(digits).replace(".", decimalSign()) });
}

function decimalSign() {
  return new Intl.NumberFormat(locale).format(0.5)[1];
}

/** Return a time of day, with the date where it was not today. */
export function time(text) {
  const at = new Date(text);
  const isToday = at.toDateString() === new Date().toDateString();
  const date = isToday ? {} : { day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", ...date }).format(at);
}
