/** What is said beside the page's contents: notices to be seen for a moment, and words for screen readers alone. */

import { h } from "./dom.js";

const SHOWN_SECONDS = 6;

const notices = h("div", { class: "notices", role: "alert" });
const spoken = h("div", { class: "heard-only", "aria-live": "polite" });

/** Put both into the page; they must be there before anything is said. */
export function installNotices() {
  place();
  // An open dialog covers everything and silences the rest: what is said must be in it.
  document.addEventListener("close", ({ target }) => target.contains(notices) && place(), true);
}

/** Show a sentence for a moment. */
export function notify(text) {
  place();
  const notice = h("p", { class: "notice" }, text);
  notices.append(notice);
  setTimeout(() => notice.remove(), SHOWN_SECONDS * 1000);
}

/** Say something to who listens. */
export function speak(text) {
  place();
  spoken.replaceChildren(h("p", {}, text));
}

function place() {
  const top = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (notices.parentElement !== top) top.append(notices, spoken);
}
