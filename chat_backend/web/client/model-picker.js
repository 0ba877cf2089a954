/** Provider and model: offered as the server's catalogue knows them; any other name may be written. */

import { h } from "./dom.js";
import { t } from "./i18n.js";

const FALLBACK = [{ name: "LOCAL" }, { name: "OPENROUTER" }];
const DEMO_MODEL = "demo";

let pickers = 0;

/** What the server can ask; fetched once. */
export class Catalogue {
  #providers = null;
  #models = new Map();

  constructor(api) {
    this.api = api;
  }

  providers() {
    this.#providers ??= this.api.get("/providers").then(({ providers }) => providers, () => FALLBACK);
    return this.#providers;
  }

  /** Return the names of a provider's models; none where nobody knows. */
  models(provider) {
    if (!this.#models.has(provider)) {
      const found = this.api.get(`/providers/${provider}/models`).then((list) => list.models.map(({ id }) => id), () => []);
      this.#models.set(provider, found);
    }
    return this.#models.get(provider);
  }

  /** Return a provider and model to begin with: the deployment's own, else the first there is. */
  async firstChoice() {
    const providers = await this.providers();
    const preferred = providers.find((provider) => provider.default_model);
    if (preferred) return { llm_provider: preferred.name, llm_model: preferred.default_model };
    const usable = providers.find((provider) => provider.configured !== false) ?? providers[0];
    const [model] = await this.models(usable.name);
    return { llm_provider: usable.name, llm_model: model ?? DEMO_MODEL };
  }
}

/** Two fields, for provider and model; `onchange` hears of every complete choice. */
export class ModelPicker {
  constructor(catalogue, { llm_provider: provider, llm_model: model }, onchange = () => {}) {
    this.catalogue = catalogue;
    this.provider = h("select", { "aria-label": t("provider"), onchange: () => this.#providerChosen() });
    // There may be two at once: behind a dialog, and in it.
    this.list = h("datalist", { id: `known-models-${(pickers += 1)}` });
    this.model = h("input", {
      "aria-label": t("model"),
      list: this.list.id,
      required: true,
      maxlength: "100",
      autocomplete: "off",
      spellcheck: "false",
      onchange: () => onchange(this.choice),
    });
    this.model.value = model;
    this.tell = () => onchange(this.choice);
    this.element = h(
      "div",
      { class: "model-picker" },
      h("span", { class: "provider-icon", "data-provider": provider, "aria-hidden": "true" }),
      this.provider,
      this.model,
      this.list,
    );
    this.#show([{ name: provider }], provider);
    this.#load(provider);
  }

  get choice() {
    return { llm_provider: this.provider.value, llm_model: this.model.value.trim() };
  }

  async #load(provider) {
    const found = await this.catalogue.providers();
    const known = found.some(({ name }) => name === provider) ? found : [...found, { name: provider }];
    this.#show(known, this.provider.value);
    await this.#listModels();
  }

  #show(providers, chosen) {
    const options = providers.map(({ name, configured }) =>
      h("option", { value: name, selected: name === chosen, disabled: configured === false && name !== chosen }, name),
    );
    this.provider.replaceChildren(...options);
  }

  /** List what the provider has; resolves to the names, or to none where another was chosen meanwhile. */
  async #listModels() {
    const provider = this.provider.value;
    const names = await this.catalogue.models(provider);
    if (provider !== this.provider.value) return [];
    this.list.replaceChildren(...names.map((name) => h("option", { value: name })));
    return names;
  }

  async #providerChosen() {
    this.element.querySelector(".provider-icon").dataset.provider = this.provider.value;
    // Another provider's models are no choice here; what is written while we ask stays.
    const before = this.model.value;
    const [first] = await this.#listModels();
    if (first && this.model.value === before) this.model.value = first;
    this.tell();
  }
}
