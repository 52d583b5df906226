// How many: a number field with a button on either side.
import { element } from "/assets/element.js";

/**
 * Makes the field: `{node, value(), show(value), limit(most)}`. Whatever is typed, its value is a whole number from 1 to
 * the limit; `changed` is called with each value the customer chooses. `label` says of what.
 */
export function quantityField({ label, value, most, changed = () => {} }) {
  let now = value;
  const input = element("input", { type: "number", inputmode: "numeric", min: 1, max: most, value, "aria-label": label, change: () => choose(input.valueAsNumber) });
  const step = (by, name, sign) => element("button", { type: "button", "aria-label": `${name}: ${label}`, click: () => choose(now + by) }, sign);
  const [fewer, more] = [step(-1, "One fewer", "−"), step(1, "One more", "+")];
  const node = element("span", { class: "quantity" }, fewer, input, more);
  bound();
  return { node, value: () => now, show, limit };

  function choose(wanted) {
    const before = now;
    show(Number.isFinite(wanted) ? Math.max(1, Math.min(Math.trunc(wanted), Math.max(most, 1))) : now);
    if (now !== before) changed(now);
  }

  function show(shown) {
    now = shown;
    input.value = shown;
    bound();
  }

  function limit(left) {
    most = left;
    input.max = Math.max(left, 1);
    bound();
  }

  /** Not `disabled`, which would take the focus away from whoever has just pressed it. */
  function bound() {
    fewer.setAttribute("aria-disabled", now <= 1);
    more.setAttribute("aria-disabled", now >= most);
  }
}
