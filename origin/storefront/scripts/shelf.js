// A shelf: a grid of products with its waiting, empty and failed states, and "Load more" along the cursor.
import { add, mostPieces, notKept } from "/assets/cart.js";
import { products } from "/assets/catalogue.js";
import { element } from "/assets/element.js";
import { failure } from "/assets/failure.js";
import { price } from "/assets/numbers.js";

/**
 * Fills `place` with the products of one query and offers the rest page by page. `options.empty` is the node shown when
 * nothing was found, `options.eager` is how many pictures are likely in view at once and so are not lazy. A shelf that only
 * samples names the slug it does `without` and how many it shows at `most`; it has no "Load more".
 */
export function fill(place, query, { empty = null, eager = 4, without = null, most = Infinity } = {}) {
  const grid = element("ul", { class: "grid" }, ...ghosts(Math.min(query.limit ?? 8, most, 8)));
  const told = element("p", { class: "unseen", role: "status" });
  const rest = element("div", { class: "rest" });
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(grid, told, rest);
  load(null);

  async function load(cursor) {
    rest.replaceChildren(cursor ? element("button", { class: "button", type: "button", disabled: true }, "Loading…") : "");
    try {
      const answer = await products({ ...query, cursor });
      const cards = answer.products
        .filter(({ slug }) => slug !== without)
        .slice(0, most)
        .map((item, index) => card(item, cursor === null && index < eager, say));
      show(cards, cursor === null, answer.next_cursor);
    } catch (error) {
      if (cursor === null) grid.replaceChildren();
      rest.replaceChildren(failure(error, () => load(cursor)));
    }
    place.removeAttribute("aria-busy");
  }

  function say(words) {
    told.textContent = words;
  }

  function show(cards, first, next) {
    if (first) grid.replaceChildren(...cards);
    else grid.append(...cards);
    if (first && cards.length === 0 && empty) place.replaceChildren(empty);
    if (!first) {
      say(`${cards.length} more products`);
      cards[0]?.querySelector("a").focus({ preventScroll: true });
    }
    rest.replaceChildren(
      next && most === Infinity ? element("button", { class: "button", type: "button", click: () => load(next) }, "Load more") : "",
    );
  }
}

function card(item, eager, say) {
  return element(
    "li",
    { class: item.in_stock ? "card" : "card sold-out" },
    element(
      "a",
      { href: `/product/${item.slug}` },
      // `loading` is set before `src`: set after it, the picture would already be on its way.
      element("img", { loading: eager ? "eager" : "lazy", decoding: "async", width: 640, height: 640, alt: "", src: item.image }),
      element("span", { class: "name" }, item.name),
    ),
    element(
      "p",
      { class: "terms" },
      element("span", { class: "price" }, price(item.price_cents, item.currency)),
      item.in_stock ? adding(item, say) : element("span", { class: "label" }, "Sold out"),
    ),
  );
}

/** One piece into the cart. How many there are is not known here: the page of the cart asks. */
function adding(item, say) {
  const button = element("button", { class: "add", type: "button", "aria-label": `Add ${item.name} to the cart`, click: put }, "+");
  let shown = null;
  return button;

  function put() {
    try {
      say(`${item.name}: ${add(item, 1, mostPieces)} in your cart.`);
      button.textContent = "✓";
      clearTimeout(shown);
      shown = setTimeout(() => (button.textContent = "+"), 1500);
    } catch (error) {
      button.replaceWith(element("span", { class: "wrong", role: "alert" }, notKept(error)));
    }
  }
}

function ghosts(count) {
  return Array.from({ length: count }, () => element("li", { class: "card ghost", "aria-hidden": "true" }, element("div"), element("p"), element("p")));
}
