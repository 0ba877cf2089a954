/** Where a message is written: Enter sends, Shift+Enter breaks the line, and what is not sent yet is kept. */

import { countPoints, MOST_CHARACTERS } from "./chat-client.js";
import { h, hasFocus, iconButton, setAttribute } from "./dom.js";
import { t } from "./i18n.js";

// The key that browsers report for one that an input method has taken; not each says `isComposing` at the last.
const TAKEN_BY_INPUT_METHOD = 229;
const IDLE_SECONDS = 4;
const SIZES_ITSELF = CSS.supports("field-sizing", "content");

export class Composer {
  #idle = null;
  #mayWrite = true;
  #isBusy = false;

  /**
   * `told` holds what is done about it: `send(text)`, which says whether the text was taken, or promises to; `stop()`,
   * `typed()`, `stoppedTyping()`, `keep(text)`.
   */
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
    const hadFocus = hasFocus(this.stopButton);
    this.stopButton.hidden = !isWriting;
    if (hadFocus && !isWriting) this.focus();
  }

  /** Let somebody write here, or read only. */
  allow(mayWrite) {
    this.#mayWrite = mayWrite;
    this.field.placeholder = mayWrite ? t("messagePlaceholder") : t("mayOnlyRead");
    this.#showWhetherOpen();
  }

  #showWhetherOpen() {
    this.field.disabled = !this.#mayWrite;
    // Read only, not disabled: the keyboard stays where it is.
    this.field.readOnly = this.#isBusy;
    this.sendButton.disabled = this.#isBusy || !this.#mayWrite;
    setAttribute(this.element, "aria-busy", this.#isBusy && "true");
  }

  #pressed(event) {
    // While an input method composes a word, Enter is its key, not ours.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === TAKEN_BY_INPUT_METHOD) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  async #submit(event) {
    event.preventDefault();
    const text = this.field.value;
    if (this.#isBusy || !text.trim() || this.#isTooLong()) return this.focus();
    // Only what is taken, and kept by whoever took it, is no draft any more.
    if (!(await this.#taken(text))) return this.focus();
    this.write("");
    this.told.keep("");
    this.#rest();
    this.focus();
  }

  async #taken(text) {
    const taken = this.told.send(text);
    if (!(taken instanceof Promise)) return taken;
    this.#isBusy = true;
    this.#showWhetherOpen();
    const isTaken = await taken;
    this.#isBusy = false;
    this.#showWhetherOpen();
    return isTaken;
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
    return countPoints(this.field.value) > MOST_CHARACTERS;
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
      ? t("tooLong", { most: MOST_CHARACTERS, count: countPoints(this.field.value) })
      : t("composerHint");
  }
}
