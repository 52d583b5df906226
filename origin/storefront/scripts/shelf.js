// A shelf as it came with the page: its buttons, and "Load more", which is a link to the next page of the list.
import { add, mostPieces, notKept } from "/assets/cart.js";
import { element } from "/assets/element.js";
import { failure } from "/assets/failure.js";
import { readPage } from "/assets/reading.js";

/** Wakes the shelf of this page, where it has one. */
export function wakeShelf() {
  const shelf = document.querySelector(".shelf");
  if (!shelf) return;
  const told = shelf.querySelector("[role=status]");
  const say = (words) => (told.textContent = words);
  wakeCards(shelf.querySelectorAll(".add"), say);
  wakeRest(shelf, say);
}

function wakeRest(shelf, say) {
  const rest = shelf.querySelector(".rest");
  const link = rest.querySelector("a");
  link?.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    load();
  });

  async function load() {
    rest.replaceChildren(element("button", { class: "button", type: "button", disabled: true }, "Loading…"));
    try {
      const page = await readPage(link.href);
      // A page that is a shelf too: its cards are taken over as they are.
      const cards = [...(page.querySelector(".grid")?.children ?? [])].map((card) => document.importNode(card, true));
      shelf.querySelector(".grid").append(...cards);
      wakeCards(cards.flatMap((card) => [...card.querySelectorAll(".add")]), say);
      const next = page.querySelector(".rest a");
      rest.replaceChildren(...(next ? [document.importNode(next, true)] : []));
      if (next) wakeRest(shelf, say);
      say(`${cards.length} more products`);
      cards[0]?.querySelector("a").focus({ preventScroll: true });
    } catch (error) {
      rest.replaceChildren(failure(error, load));
    }
  }
}

/** One piece into the cart. How many there are is not known here: the page of the cart asks. */
function wakeCards(buttons, say) {
  for (const button of buttons) {
    const item = JSON.parse(button.dataset.item);
    let shown = null;
    button.addEventListener("click", () => {
      try {
        say(`${item.name}: ${add(item, 1, mostPieces)} in your cart.`);
        button.textContent = "✓";
        clearTimeout(shown);
        shown = setTimeout(() => (button.textContent = "+"), 1500);
      } catch (error) {
        button.replaceWith(element("span", { class: "wrong", role: "alert" }, notKept(error)));
      }
    });
  }
}
