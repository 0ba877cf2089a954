/** The few words in which this page makes its elements. */

// The only door through which HTML comes in: what the server has rendered and sanitised. The page's policy closes all others.
const rendered = globalThis.trustedTypes?.createPolicy("rendered-by-server", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

/** Make an element: attributes by name, listeners as `onclick`, then its children; what is null or false is left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set an attribute; true is one without value, null and false are none. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

/** Make an icon, in the colour of the text around it; it says nothing to a screen reader. */
export function icon(name) {
  return h("span", { class: "icon", "data-icon": name, "aria-hidden": "true" });
}

/** Make a button that shows an icon only; its label is heard, and shown when pointed at. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

/** Show HTML that the server has rendered. */
export function showRendered(element, html) {
  element.innerHTML = rendered.createHTML(html);
}

/** Open a dialog and throw it away when it closes; resolves to what it closed with. */
export function openDialog(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/** Make a dialog with a heading and a button that closes it. */
export function dialogOf(title, closeLabel, ...children) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" });
  const close = iconButton("close", closeLabel, () => dialog.close());
  dialog.append(h("header", {}, heading, close), ...children);
  // A click beside it closes it, as Escape does; not one that began inside, with text being selected.
  let beganBeside = false;
  dialog.addEventListener("pointerdown", (event) => (beganBeside = isBeside(dialog, event)));
  dialog.addEventListener("click", (event) => beganBeside && isBeside(dialog, event) && dialog.close());
  return dialog;
}

function isBeside(dialog, { target, clientX: x, clientY: y }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return target === dialog && (x < left || x > right || y < top || y > bottom);
}

/** Say whether a listener's keyboard is in an element. */
export function hasFocus(element) {
  return element.contains(document.activeElement);
}

/** Show other children; if the one with the keyboard goes with them, `instead` gets it: an element, or what finds one. */
export function replaceKeepingFocus(element, children, instead) {
  const active = hasFocus(element) ? document.activeElement : null;
  element.replaceChildren(...children);
  if (!active || document.activeElement === active) return;
  if (element.contains(active)) active.focus();
  else (typeof instead === "function" ? instead(active) : instead)?.focus();
}
