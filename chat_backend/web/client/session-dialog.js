/** What can be changed of a chat: its title, its model, whether it is archived, whether it is there at all. */

import { dialogOf, h, openDialog } from "./dom.js";
import { reasonOf, t } from "./i18n.js";
import { ModelPicker } from "./model-picker.js";
import { notify } from "./notices.js";

let turns = 0;

/** Show the settings of a chat as they are now; resolves to `{changed}` or `{deleted: true}`, or to null where nothing was done. */
export async function showSessionDialog(api, catalogue, { id }) {
  const turn = (turns += 1);
  const session = await api.get(`/sessions/${id}`);
  // Whoever clicks again before it opens wants what was clicked last, once.
  if (turn !== turns) return null;
  let outcome = null;
  let isAsking = false;
  const isMine = session.user_id === api.identity.user;
  const title = h("input", { maxlength: "500", autofocus: true, disabled: !isMine, dir: "auto" });
  title.value = session.title ?? "";
  const picker = new ModelPicker(catalogue, session);
  const prompt = h("textarea", { rows: "4", maxlength: "32000", disabled: !isMine, dir: "auto" });
  prompt.value = session.settings.system_prompt ?? "";

  async function act(ask, done) {
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await ask();
      outcome = done(answer);
      dialog.close();
    } catch (error) {
      notify(reasonOf(error));
    } finally {
      isAsking = false;
    }
  }
  const change = (fields) => act(() => api.put(`/sessions/${session.id}`, fields), (changed) => ({ changed }));

  function save(event) {
    event.preventDefault();
    const fields = changes();
    if (Object.keys(fields).length) change(fields);
    else dialog.close();
  }

  /** What differs from what was shown: all else may have been changed by others meanwhile. */
  function changes() {
    const { system_prompt: before = "", ...settings } = session.settings;
    const wanted = { title: title.value.trim() || null, ...picker.choice };
    const fields = Object.fromEntries(Object.entries(wanted).filter(([name, value]) => value !== session[name]));
    if (prompt.value.trim() === before.trim()) return fields;
    // Settings are replaced whole.
    return { ...fields, settings: prompt.value.trim() ? { ...settings, system_prompt: prompt.value } : settings };
  }

  function remove({ currentTarget: button }) {
    if (button.dataset.sure) return act(() => api.delete(`/sessions/${session.id}`), () => ({ deleted: true }));
    button.dataset.sure = "true";
    button.textContent = t("reallyDelete");
  }

  const archive = h("button", { type: "button", onclick: () => change({ is_active: !session.is_active }) }, t(session.is_active ? "archive" : "unarchive"));
  const buttons = [
    h("button", { type: "button", class: "danger", onclick: remove }, t("deleteChat")),
    archive,
    h("span", { class: "spring" }),
    h("button", { type: "submit", class: "primary" }, t("save")),
  ];
  const form = h(
    "form",
    { class: "fields", onsubmit: save },
    h("label", {}, t("title"), title),
    h("fieldset", { disabled: !isMine }, h("legend", {}, t("model")), picker.element),
    h("label", {}, t("systemPrompt"), prompt, h("small", {}, t("systemPromptHint"))),
    isMine ? h("div", { class: "actions" }, ...buttons) : h("p", { class: "note" }, t("ownerOnly", { owner: session.user_id })),
  );
  const dialog = dialogOf(t("chatSettings"), t("close"), form);
  await openDialog(dialog);
  return outcome;
}
