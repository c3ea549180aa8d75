// Elements out of values. Text is always text: nothing that comes from outside is ever read as markup.

export const byId = (id) => document.getElementById(id);

/** An element: `make("td", { class: "number", title: "x" }, child, "text")`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Give `parent` exactly these children, without touching it when it would look the same. */
export function fill(parent, ...children) {
  const next = document.createElement(parent.tagName);
  next.append(...children);
  if (next.innerHTML !== parent.innerHTML) parent.replaceChildren(...next.childNodes);
}

/** Set text only when it changes, so that selections and screen readers are left alone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
