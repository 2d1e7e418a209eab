// Small helpers for the document, and the one live region.

export const byId = (id) => document.getElementById(id);

/** A new element; properties by name, `data` and `style` as objects, then its children. */
export const make = (tag, properties = {}, ...children) => {
  const { data, style, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(style ?? {})) element.style.setProperty(name, value);
  element.append(...children);
  return element;
};

/** Sets the text of an element only where it differs, so that what is selected or read aloud is left alone. */
export const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

/** Shows an element with a text, or hides it when the text is empty. */
export const showText = (element, text) => {
  setText(element, text);
  element.hidden = !text;
};

/** Says something to those who cannot see it: beginnings, half, ends and refusals, never every step. */
export const announce = (text) => {
  const live = byId("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
};

let closing;

/** A message at the bottom, also spoken, with at most one thing to do about it. */
export const notify = (text, { act, label, stays = false } = {}) => {
  const notice = byId("notice"), button = byId("notice-act");
  setText(byId("notice-text"), text);
  button.hidden = !act;
  button.textContent = label ?? "";
  button.onclick = () => { closeNotice(); act(); };
  notice.hidden = false;
  announce(text);
  clearTimeout(closing);
  if (!stays && !act) closing = setTimeout(closeNotice, 12_000);
};

export const closeNotice = () => {
  clearTimeout(closing);
  const notice = byId("notice");
  const hadFocus = notice.contains(document.activeElement);
  notice.hidden = true;
  if (hadFocus) byId("prompt").focus();
};

/** Calls it once nothing has asked for it for `ms`. */
export const debounce = (call) => {
  let waiting;
  return (ms) => {
    clearTimeout(waiting);
    waiting = setTimeout(call, ms);
  };
};

/** Offers a file to be saved. */
export const download = (name, blob) => {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

export const prefersCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
