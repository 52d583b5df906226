// The fields of a form: label, hint, what is wrong, and for passwords a way to see what was typed.
import { element } from "/assets/element.js";

let made = 0; // two forms have an email each, and an id names one element

/** Makes a field: `{name, input, node, mark(words)}`. Members besides these are attributes of the input. */
export function field({ name, label, hint = "", ...attributes }) {
  made += 1;
  const id = `${name}-${made}`;
  const input = element("input", { id, name, "aria-describedby": `${id}-hint ${id}-wrong`, ...attributes });
  const wrong = element("span", { class: "wrong", id: `${id}-wrong` });
  const node = element(
    "p",
    { class: "field" },
    element("label", { for: id }, label),
    attributes.type === "password" ? element("span", { class: "secret" }, input, reveal(input)) : input,
    element("span", { class: "quiet", id: `${id}-hint` }, hint),
    wrong,
  );
  return { name, input, node, mark };

  function mark(words) {
    wrong.textContent = words;
    if (words) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
}

/** What can be seen without asking the shop, as `[{field, message}]`. Whether the rest will do, the shop decides. */
export function whatIsMissing(parts) {
  return parts.flatMap(({ name, input }) => {
    if (input.required && input.value === "") return { field: name, message: "Please fill this in." };
    // Counted here, because the browser judges only what was typed and not what a password manager put in.
    if (input.value.length < input.minLength) return { field: name, message: `Please give ${input.minLength} characters or more.` };
    return [];
  });
}

/** Marks the fields that `errors` name and no others, and turns to the first; answers whether there is one. */
export function mend(parts, errors) {
  for (const part of parts) part.mark(errors.find(({ field: name }) => name === part.name)?.message ?? "");
  const first = parts.find(({ input }) => input.hasAttribute("aria-invalid"));
  first?.input.focus();
  return first !== undefined;
}

function reveal(input) {
  const button = element("button", { class: "link", type: "button", "aria-pressed": "false", "aria-label": "Show the password", click: turn }, "Show");
  return button;

  function turn() {
    const visible = input.type === "password";
    input.type = visible ? "text" : "password";
    button.setAttribute("aria-pressed", visible);
    button.textContent = visible ? "Hide" : "Show";
  }
}
