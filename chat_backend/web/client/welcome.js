/** What is shown before a chat has begun: it is made with its first message, so none is left empty. */

import { Composer } from "./composer.js";
import { h, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { ModelPicker } from "./model-picker.js";

// What the built-in demo model understands, and any other too; therefore not in the reader's language.
const SUGGESTIONS = ["help", "count to 100", "markdown", "long slowly"];

export class Welcome {
  #isBeginning = false;

  /** `told` holds what is done about it: `begin(choice, text)`, which promises whether there is a chat; `keepDraft(text)`, `menu()`. */
  constructor(catalogue, choice, { draft, told }) {
    this.picker = new ModelPicker(catalogue, choice);
    this.told = told;
    const begin = (text) => this.#begin(text);
    this.composer = new Composer({
      draft,
      told: { send: begin, stop() {}, typed() {}, stoppedTyping() {}, keep: (text) => told.keepDraft(text) },
    });
    const suggestions = SUGGESTIONS.map((name) => h("button", { type: "button", onclick: () => begin(name) }, name));
    this.element = h(
      "div",
      { class: "conversation welcome" },
      h("header", { class: "bar" }, iconButton("menu", t("openChats"), told.menu, { class: "icon-button menu" }), h("div", { class: "names" })),
      h(
        "section",
        { class: "log" },
        h("div", { class: "greeting" }, icon("chat"), h("h1", {}, t("welcome")), h("p", {}, t("welcomeHint")), h("div", { class: "suggestions" }, ...suggestions)),
      ),
      h("div", { class: "below" }, this.picker.element, this.composer.element),
    );
  }

  get documentTitle() {
    return t("appName");
  }

  close() {}

  /** Begin once, however often it is clicked. */
  async #begin(text) {
    if (this.#isBeginning) return false;
    this.#isBeginning = true;
    this.#isBeginning = await this.told.begin(this.picker.choice, text);
    return this.#isBeginning;
  }
}
