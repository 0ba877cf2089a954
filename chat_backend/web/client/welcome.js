/** What is shown before a chat has begun: it is made with its first message, so none is left empty. */

import { Composer } from "./composer.js";
import { h, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";
import { ModelPicker } from "./model-picker.js";

const SUGGESTIONS = ["suggestHelp", "suggestCount", "suggestMarkdown", "suggestSlow"];

export class Welcome {
  /** `told` holds what is done about it: `begin(choice, text)`, `keepDraft(text)`, `menu()`. */
  constructor(catalogue, choice, { draft, told }) {
    this.picker = new ModelPicker(catalogue, choice);
    const begin = (text) => told.begin(this.picker.choice, text);
    this.composer = new Composer({
      draft,
      told: { send: begin, stop() {}, typed() {}, stoppedTyping() {}, keep: (text) => told.keepDraft(text) },
    });
    const suggestions = SUGGESTIONS.map((name) => h("button", { type: "button", onclick: () => begin(t(name)) }, t(name)));
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
    document.title = t("appName");
  }

  close() {}
}
