// Suggestions under the search box (the combobox pattern of WAI-ARIA): fetched once typing pauses, chosen by pointer or arrows.
import { suggestions } from "/assets/catalogue.js";
import { element } from "/assets/element.js";
import { price } from "/assets/numbers.js";

const pause = 200; // milliseconds without a key before the shop is asked

/**
 * Gives the search box its suggestions. The box stays an ordinary form field: Enter without a choice searches. `before` is what
 * stood in it when this script was sent for: whoever types faster than it arrives is not forgotten.
 */
export function suggest(box, before) {
  const list = element("ul", { id: "suggestions", class: "suggestions", role: "listbox", "aria-label": "Suggestions", hidden: true });
  box.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" })) {
    box.setAttribute(name, value);
  }
  let timer = null;
  let asking = null;
  let chosen = -1;

  box.addEventListener("input", read);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return close();
    if (list.hidden) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(chosen + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter" && chosen >= 0) {
      event.preventDefault();
      location.assign(list.children[chosen].dataset.address);
    }
  });
  box.addEventListener("blur", close);
  // Without this the box would lose focus, and the list close, before the click arrives.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[data-address]");
    if (option) location.assign(option.dataset.address);
  });
  if (box.value !== before) read();

  function read() {
    clearTimeout(timer);
    asking?.abort();
    const typed = box.value.trim();
    if (typed.length < 2) return close();
    timer = setTimeout(() => ask(typed), pause);
  }

  async function ask(typed) {
    asking = new AbortController();
    const { signal } = asking;
    try {
      const found = await suggestions(typed, signal);
      if (signal.aborted || document.activeElement !== box) return;
      list.replaceChildren(...found.map(option));
      chosen = -1;
      box.removeAttribute("aria-activedescendant");
      open(found.length > 0);
    } catch {
      close(); // A suggestion that fails is simply not made; the search itself reports errors.
    }
  }

  function choose(index) {
    const count = list.children.length;
    chosen = (index + count) % count;
    [...list.children].forEach((each, position) => each.setAttribute("aria-selected", position === chosen));
    box.setAttribute("aria-activedescendant", list.children[chosen].id);
  }

  function open(shown) {
    list.hidden = !shown;
    box.setAttribute("aria-expanded", shown);
  }

  function close() {
    clearTimeout(timer);
    asking?.abort();
    chosen = -1;
    box.removeAttribute("aria-activedescendant");
    open(false);
  }
}

function option(item, index) {
  return element(
    "li",
    { id: `suggestion-${index}`, role: "option", "aria-selected": "false", "data-address": `/product/${item.slug}` },
    element("img", { src: item.image, alt: "", width: 40, height: 40, decoding: "async" }),
    element("span", {}, item.name),
    element("span", { class: "quiet" }, price(item.price_cents, item.currency)),
  );
}
