// One product, which came with the page: how many pieces are left just now, and the way into the cart.
import { buying } from "/assets/buy.js";
import { stock } from "/assets/catalogue.js";
import { wakeShelf } from "/assets/shelf.js";

export async function show() {
  const item = JSON.parse(document.getElementById("product").dataset.item);
  const shelf = document.getElementById("stock");
  const purchase = buying(document.getElementById("buy"), item);
  wakeShelf();
  try {
    const left = await stock(item.slug);
    shelf.classList.toggle("none", left === 0);
    shelf.textContent = left === 0 ? "Sold out for now" : left <= 5 ? `Only ${left} left` : "In stock";
    purchase.node.hidden = left === 0;
    purchase.limit(left);
  } catch {
    // The page says as much as it knew when it was made.
  }
}
