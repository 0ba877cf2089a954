/** Who takes part in a chat, who is here now, and a way to invite. */

import { face } from "./conversation.js";
import { dialogOf, h, iconButton, openDialog, replaceKeepingFocus } from "./dom.js";
import { reasonOf, t } from "./i18n.js";
import { notify } from "./notices.js";

const ROLES = { owner: "roleOwner", member: "roleMember", viewer: "roleViewer" };

/** Show the people of a live session until it is left; in dev mode each comes with a link that opens a window as that user. */
export async function showPeople(api, live, session, { isDev, leaving }) {
  let participants = [];
  const list = h("ul", { class: "people" });
  const mayInvite = session.user_id === api.identity.user;
  const user = h("input", { "aria-label": t("inviteUser"), placeholder: t("inviteUser"), required: true, autofocus: true, maxlength: "255", autocomplete: "off" });
  const role = h("select", { "aria-label": t("role") }, ...["member", "viewer"].map((name) => h("option", { value: name }, t(ROLES[name]))));

  async function attempt(act) {
    try {
      await act();
      ({ participants } = await api.get(`/sessions/${session.id}/participants`));
      show();
    } catch (error) {
      // Who is no longer in it is told so where the chat was.
      if (!leaving.aborted && error.status !== 404) notify(reasonOf(error));
    }
  }

  function show() {
    replaceKeepingFocus(list, participants.map(person), dialog.querySelector("input, button"));
  }

  function person({ user_id: name, role: has }) {
    const isMe = name === api.identity.user;
    const mayRemove = has !== "owner" && (mayInvite || isMe);
    const path = `/sessions/${session.id}/participants/${encodeURIComponent(name)}`;
    return h(
      "li",
      {},
      face(name),
      h("span", { class: "name" }, name, isMe && ` (${t("you")})`),
      live.online.includes(name) && h("span", { class: "here" }, t("isHere")),
      h("span", { class: "role" }, t(ROLES[has])),
      isDev && !isMe && openAs(name),
      mayRemove && iconButton("close", isMe ? t("leave") : t("remove", { user: name }), () => attempt(() => api.delete(path))),
    );
  }

  function openAs(name) {
    const label = t("openAs", { user: name });
    const href = `/?user=${encodeURIComponent(name)}#/s/${session.id}`;
    return h("a", { class: "icon-button", href, target: "_blank", rel: "noopener", "aria-label": label, title: label }, h("span", { class: "icon", "data-icon": "window" }));
  }

  function invite(event) {
    event.preventDefault();
    const body = { user_id: user.value.trim(), role: role.value };
    attempt(async () => {
      await api.post(`/sessions/${session.id}/participants`, body);
      user.value = "";
    });
  }

  const form = h("form", { class: "invite", onsubmit: invite }, user, role, h("button", { type: "submit", class: "primary" }, t("invite")));
  const dialog = dialogOf(t("people"), t("close"), list, ...(mayInvite ? [form] : []), ...(mayInvite && isDev ? [h("p", { class: "hint" }, t("inviteHint"))] : []));
  const refresh = () => attempt(async () => {});
  const close = () => dialog.close();
  const done = new AbortController();
  live.addEventListener("presence", show, { signal: done.signal });
  live.addEventListener("session", refresh, { signal: done.signal });
  leaving.addEventListener("abort", close, { signal: done.signal });
  refresh();
  await openDialog(dialog);
  done.abort();
}
