// One category: its name and size, the choice of order, and its shelf.
import { categories } from "/assets/catalogue.js";
import { element } from "/assets/element.js";
import { productCount } from "/assets/numbers.js";
import { fill } from "/assets/shelf.js";
import { chosenOrder, offerOrders } from "/assets/sorting.js";

export function show() {
  const slug = location.pathname.split("/")[2];
  const shelf = document.getElementById("shelf");
  const restock = () => fill(shelf, { category: slug, sort: chosenOrder() }, { empty: nothingHere() });
  offerOrders(document.getElementById("order"), restock);
  restock();
  describe(slug);
}

async function describe(slug) {
  let found = null;
  try {
    found = (await categories()).find((category) => category.slug === slug);
  } catch {
    // The shelf reports a shop that cannot be reached; here the slug has to do for a name.
  }
  const name = found?.name ?? slug;
  document.title = `${name} — Gatehouse Goods`;
  document.getElementById("here").textContent = name;
  document.getElementById("title").textContent = name;
  document.getElementById("count").textContent = found ? productCount(found.product_count) : "";
}

function nothingHere() {
  return element(
    "div",
    { class: "notice" },
    element("p", {}, "There is nothing on this shelf."),
    element("a", { class: "button", href: "/" }, "Back to the shop"),
  );
}
