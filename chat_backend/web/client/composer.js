/** Where a message is written: Enter sends, Shift+Enter breaks the line, and what is not sent yet is kept. */

import { h, iconButton, setAttribute } from "./dom.js";
import { t } from "./i18n.js";

export const MOST_CHARACTERS = 32_000;
const IDLE_SECONDS = 4;
const SIZES_ITSELF = CSS.supports("field-sizing", "content");

export class Composer {
  #idle = null;

  /** `told` holds what is done about it: `send(text)`, `stop()`, `typed()`, `stoppedTyping()`, `keep(text)`. */
  constructor({ draft, told }) {
    this.told = told;
    this.field = h("textarea", {
      id: "composer-field",
      rows: "1",
      "aria-label": t("message"),
      "aria-describedby": "composer-hint",
      placeholder: t("messagePlaceholder"),
      oninput: () => this.#changed(),
      onkeydown: (event) => this.#pressed(event),
      dir: "auto",
    });
    this.field.value = draft;
    this.hint = h("p", { id: "composer-hint", class: "hint" }, t("composerHint"));
    this.sendButton = iconButton("send", t("send"), null, { type: "submit", class: "icon-button send" });
    this.stopButton = iconButton("stop", t("stop"), () => told.stop(), { class: "icon-button stop", hidden: true });
    const row = h("div", { class: "composer-row" }, this.field, this.stopButton, this.sendButton);
    this.element = h("form", { class: "composer", onsubmit: (event) => this.#submit(event) }, row, this.hint);
    this.#fit();
  }

  focus() {
    this.field.focus();
  }

  write(text) {
    this.field.value = text;
    this.#fit();
  }

  /** Show whether there is a reply to stop. */
  showStop(isWriting) {
    this.stopButton.hidden = !isWriting;
  }

  /** Let somebody write here, or read only. */
  allow(mayWrite) {
    this.field.disabled = !mayWrite;
    this.sendButton.disabled = !mayWrite;
    this.field.placeholder = mayWrite ? t("messagePlaceholder") : t("mayOnlyRead");
  }

  #pressed(event) {
    // While an input method composes a word, Enter is its key, not ours.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  #submit(event) {
    event.preventDefault();
    const text = this.field.value;
    if (!text.trim() || this.#isTooLong()) return this.focus();
    this.write("");
    this.told.keep("");
    this.#rest();
    this.told.send(text);
    this.focus();
  }

  #changed() {
    this.#fit();
    this.told.keep(this.field.value);
    if (!this.field.value) return this.#rest();
    this.told.typed();
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#rest(), IDLE_SECONDS * 1000);
  }

  #rest() {
    clearTimeout(this.#idle);
    this.told.stoppedTyping();
  }

  #isTooLong() {
    return [...this.field.value].length > MOST_CHARACTERS;
  }

  #fit() {
    if (!SIZES_ITSELF) {
      this.field.style.height = "auto";
      this.field.style.height = `${this.field.scrollHeight}px`;
    }
    const isTooLong = this.field.value.length > MOST_CHARACTERS && this.#isTooLong();
    setAttribute(this.field, "aria-invalid", isTooLong && "true");
    this.hint.classList.toggle("fault", isTooLong);
    this.hint.textContent = isTooLong
      ? t("tooLong", { most: MOST_CHARACTERS, count: [...this.field.value].length })
      : t("composerHint");
  }
}
