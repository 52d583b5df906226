/**
 * Makes an element. Attributes that are null or false are left out, true becomes an empty attribute, and functions
 * become listeners. Children are nodes or text: text is never parsed as HTML, so no answer can inject markup.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
