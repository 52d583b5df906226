// Into the cart, on the page of a product.
import { add, lines, mostPieces, notKept } from "/assets/cart.js";
import { element } from "/assets/element.js";
import { quantityField } from "/assets/quantity.js";

/** Fills the form of the page: `{node, limit(left)}`, with `limit` to be called when the pieces left are known. */
export function buying(node, item) {
  let left = mostPieces;
  const quantity = quantityField({ label: `Pieces of ${item.name}`, value: 1, most: left });
  const told = element("p", { class: "told", role: "status" });
  node.replaceChildren(quantity.node, element("button", { class: "button" }, "Add to cart"), told);
  node.addEventListener("submit", put);
  return { node, limit };

  function limit(known) {
    left = Math.min(known, mostPieces);
    quantity.limit(left);
  }

  function put(event) {
    event.preventDefault();
    try {
      const before = lines().find(({ id }) => id === item.id)?.quantity ?? 0;
      const now = add(item, quantity.value(), left);
      const words = now >= before + quantity.value() ? `Added: ${now} in your cart.` : `There are no more than ${left}: ${now} in your cart.`;
      told.replaceChildren(words, " ", element("a", { href: "/cart" }, "See the cart"));
      quantity.show(1);
    } catch (error) {
      told.textContent = notKept(error);
    }
  }
}
