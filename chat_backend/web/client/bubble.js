/** One message on the page. Text on its way is shown as text; once it is complete, as the server has rendered it. */

import { h, icon, iconButton, replaceKeepingFocus, setAttribute, showRendered } from "./dom.js";
import { duration, fullTime, number, reasonOf, sentence, t, time } from "./i18n.js";
import { notify, speak } from "./notices.js";

const COPIED_SECONDS = 1.5;
// Why a model stopped before it was done, by the reason that the server stores.
const ENDED_EARLY = { length: "replyCut", content_filter: "replyFiltered" };

export class Bubble {
  #text = null;

  #acts = {};

  /** `acts` holds what a reader may do: `stop(message)`, `regenerate(message)`; both may be missing. `job` is as for update. */
  constructor(message, { isMine, acts = {}, job = null }) {
    this.#acts = acts;
    this.body = h("div", { class: "text", dir: "auto" });
    this.note = h("p", { class: "note", hidden: true });
    this.facts = h("span", { class: "facts" });
    this.buttons = h("span", { class: "buttons" });
    this.element = h(
      "article",
      { class: "message", "data-id": message.id, "data-role": message.role, "data-mine": isMine },
      h("header", {}, h("span", { class: "who", dir: "auto" }, whoWrote(message, isMine)), timeOf(message)),
      this.body,
      this.note,
      h("footer", {}, this.facts, this.buttons),
    );
    this.update(message, job);
  }

  /** Let the reader do this, and no more. */
  allow(acts) {
    this.#acts = acts;
    this.#showButtons();
  }

  /** Show a message as it is now; `job` is the one that writes it, as far as is known. */
  update(message, job) {
    this.message = message;
    this.element.dataset.status = message.status;
    setAttribute(this.element, "aria-busy", message.is_streaming && "true");
    this.#showText(message);
    this.#showNote(message, job);
    this.facts.textContent = factsOf(message).join(" · ");
    this.#showButtons();
  }

  #showButtons() {
    const shown = this.#buttonsFor(this.message);
    replaceKeepingFocus(this.buttons, shown, (lost) => shown.find(({ dataset }) => dataset.act === lost.dataset.act) ?? shown[0] ?? this.#itself());
  }

  /** What gets the keyboard where its button has gone. */
  #itself() {
    this.element.tabIndex = -1;
    return this.element;
  }

  /** Append what has come of a reply. */
  append(added) {
    // A browser that translates the page may have put another node in the place of ours.
    if (!this.#text?.isConnected) return this.update(this.message, null);
    this.#text.appendData(added);
    if (!this.note.hidden) this.#say("");
    this.element.dataset.status = "streaming";
  }

  #showText(message) {
    const html = message.role === "assistant" ? message.content_html : null;
    this.body.classList.toggle("plain", !html);
    if (html) {
      this.#text = null;
      showRendered(this.body, html);
      this.#dressCode();
      this.#setDirections();
    } else if (this.#text?.data !== message.content) {
      this.#text = document.createTextNode(message.content);
      this.body.replaceChildren(this.#text);
    }
  }

  #dressCode() {
    for (const code of this.body.querySelectorAll("pre > code")) {
      const copy = iconButton("copy", t("copyCode"), () => copyText(code.textContent, copy));
      const bar = h("div", { class: "code-bar" }, h("span", {}, code.dataset.language ?? ""), copy);
      const block = h("div", { class: "code-block" });
      code.parentElement.replaceWith(block);
      code.parentElement.tabIndex = 0;
      block.append(bar, code.parentElement);
    }
    for (const table of this.body.querySelectorAll("table")) {
      const scroller = h("div", { class: "table-scroller", tabindex: "0", role: "group" });
      table.replaceWith(scroller);
      scroller.append(table);
    }
  }

  /** Let each block run in the direction of its own words, and code from left to right. */
  #setDirections() {
    for (const code of this.body.querySelectorAll("code")) Object.assign(code, { dir: "ltr", translate: false });
    for (const block of this.body.children) block.dir = block.matches(".code-block") ? "ltr" : "auto";
  }

  #showNote(message, job) {
    this.note.classList.toggle("fault", message.status === "failed");
    if (message.status === "failed") this.#say(t("failed", { reason: whyFailed(message, job) }));
    else if (message.status === "cancelled") this.#say(t("cancelled"));
    else if (message.is_streaming && !message.content) this.#say(waitingFor(message, job), { dots: true });
    else this.#say(howItEnded(message));
  }

  #say(text, { dots = false } = {}) {
    this.note.hidden = !text;
    this.note.replaceChildren(...(dots ? [h("span", { class: "dots", "aria-hidden": "true" }), text] : [text]));
  }

  #buttonsFor(message) {
    const { stop, regenerate } = this.#acts;
    const found = [];
    if (message.is_streaming && message.job_id && stop) found.push(this.#button("stop", t("stop"), () => stop(message)));
    if (message.content && !message.is_streaming) {
      const copy = this.#button("copy", t("copy"), () => copyText(message.content, copy));
      found.push(copy);
    }
    if (message.role === "assistant" && !message.is_streaming && regenerate) {
      const label = message.status === "failed" ? t("tryAgain") : t("regenerate");
      found.push(this.#button("again", label, () => regenerate(message)));
    }
    return found;
  }

  #button(name, label, onclick) {
    return h("button", { type: "button", class: "quiet", "data-act": name, onclick }, icon(name), h("span", {}, label));
  }
}

/** A message of mine that the server has not taken yet. */
export function unsentBubble(entry, { again, discard }) {
  const isRefused = entry.state === "refused";
  return h(
    "article",
    { class: "message", "data-role": "user", "data-mine": true, "data-status": entry.state, "data-request": entry.requestId },
    h("div", { class: "text plain", dir: "auto" }, entry.content),
    h("p", { class: isRefused ? "note fault" : "note" }, isRefused ? t("notSent", { reason: reasonOf(entry.error) }) : t("sending")),
    isRefused &&
      h(
        "footer",
        {},
        h("button", { type: "button", class: "quiet", onclick: again }, icon("again"), t("tryAgain")),
        h("button", { type: "button", class: "quiet", onclick: discard }, icon("close"), t("discard")),
      ),
  );
}

function whoWrote(message, isMine) {
  if (message.role === "assistant") return t("assistant");
  if (message.role === "system") return t("system");
  return isMine ? t("you") : message.user_id;
}

function timeOf(message) {
  return h("time", { datetime: message.created_at, title: fullTime(message.created_at) }, time(message.created_at));
}

function waitingFor(message, job) {
  if (job?.retry_at) return t("tryingAgainAt", { time: time(job.retry_at) });
  // Who comes late knows no job; but a reply in its first or later attempt is being asked for.
  const isAsked = job ? job.status === "running" : message.attempt > 0;
  return t(isAsked ? "waitingForModel" : "waitingForWorker");
}

/** Return what a reader must know about a complete reply: that it is empty, was cut off or filtered. */
export function howItEnded({ role, status, content, metadata }) {
  if (role !== "assistant" || status !== "complete") return "";
  const reasons = [content.trim() ? null : "replyEmpty", ENDED_EARLY[metadata.finish_reason]];
  return reasons.filter(Boolean).map((name) => t(name)).join(" ");
}

function whyFailed(message, job) {
  const isKnown = job?.error_code || message.error_message;
  return isKnown ? sentence(job?.error_code, message.error_message) : t("failedUnknown");
}

function factsOf(message) {
  if (message.role !== "assistant") return [];
  const facts = [message.llm_provider, message.llm_model].filter(Boolean);
  if (message.tokens_used) {
    const tokens = t("tokens", { count: message.tokens_used });
    facts.push(message.metadata.usage_estimated ? t("estimated", { tokens }) : tokens);
  }
  if (message.response_time_ms) facts.push(duration(message.response_time_ms));
  if (message.attempt > 1) facts.push(t("attemptNumber", { count: number(message.attempt) }));
  return facts;
}

async function copyText(text, button) {
  if (!(await isCopied(text))) return notify(t("copyFailed"));
  button.dataset.done = t("copied");
  speak(t("copied"));
  setTimeout(() => delete button.dataset.done, COPIED_SECONDS * 1000);
}

/** Copy a text. On plain http, but for loopback, there is no clipboard but the one that the keyboard uses. */
async function isCopied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return isCopiedBySelection(text);
  }
}

function isCopiedBySelection(text) {
  const active = document.activeElement;
  const field = h("textarea", { class: "heard-only", "aria-hidden": "true", tabindex: "-1" });
  field.value = text;
  document.body.append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  active?.focus();
  return isDone;
}
