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
  const locales = browserLocales();
  const wanted = [recall(KEPT_AS), ...locales.map(languageOf)];
  language = wanted.find((name) => Object.hasOwn(LANGUAGES, name ?? "")) ?? "en";
  if (language !== "en") words = { ...english, ...(await import(`./languages/${language}.js`)).default };
  // Times and numbers as they are written where the reader is: en-GB is not en-US.
  locale = locales.find((name) => languageOf(name) === language) ?? language;
  document.documentElement.lang = language;
}

/** Return the browser's locales that Intl takes. Some systems name one `C` or `en_US@posix`, some name none. */
function browserLocales() {
  const named = navigator.languages?.length ? navigator.languages : [navigator.language];
  const cleaned = named.map((name) => String(name ?? "").split(/[.@]/)[0].replaceAll("_", "-"));
  return cleaned.filter((name) => {
    try {
      return Intl.DateTimeFormat.supportedLocalesOf(name).length > 0;
    } catch {
      return false;
    }
  });
}

function languageOf(name) {
  return name.split("-")[0].toLowerCase();
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
  const format = new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });
  return t("seconds", { seconds: format.format(milliseconds / 1000) });
}

/** Return a time of day, with the date if it was not today, the year if it was another, and the zone if the clock changed. */
export function time(text) {
  const at = new Date(text);
  const now = new Date();
  const shown = { hour: "2-digit", minute: "2-digit" };
  if (at.toDateString() !== now.toDateString()) Object.assign(shown, { day: "numeric", month: "short" });
  if (at.getFullYear() !== now.getFullYear()) shown.year = "numeric";
  if (isNearClockChange(at)) shown.timeZoneName = "short";
  return new Intl.DateTimeFormat(locale, shown).format(at);
}

/** Return a time of day if it was today, else the date. */
export function timeOrDate(text) {
  const at = new Date(text);
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return time(text);
  const year = at.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", ...year }).format(at);
}

/** Return a date and time in full, with the zone. */
export function fullTime(text) {
  return new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "long" }).format(new Date(text));
}

/** Whether the clock is turned within the hour: in autumn two hours have the same name. */
function isNearClockChange(at) {
  const offset = at.getTimezoneOffset();
  return [-3_600_000, 3_600_000].some((step) => new Date(at.getTime() + step).getTimezoneOffset() !== offset);
}

/** Return the longest beginning of at most `limit` code points that splits nothing which a reader sees as one sign. */
export function cutText(text, limit) {
  let end = 0;
  let count = 0;
  for (const sign of signsOf(text)) {
    count += [...sign].length;
    if (count > limit) break;
    end += sign.length;
  }
  return end || !text ? text.slice(0, end) : [...text].slice(0, limit).join("");
}

/** Return the first sign of a text as a reader sees it. */
export function firstSign(text) {
  for (const sign of signsOf(text)) return sign;
  return "";
}

function* signsOf(text) {
  if (!Intl.Segmenter) return yield* text;
  for (const { segment } of new Intl.Segmenter("en", { granularity: "grapheme" }).segment(text)) yield segment;
}
