// One product, and a few others of its category.
import { buying } from "/assets/buy.js";
import { product, stock } from "/assets/catalogue.js";
import { element } from "/assets/element.js";
import { failure } from "/assets/failure.js";
import { price } from "/assets/numbers.js";
import { fill } from "/assets/shelf.js";

export async function show() {
  const slug = location.pathname.split("/")[2];
  const place = document.getElementById("product");
  const trail = document.getElementById("aisle");
  // Asked for at once with the product; without an answer the page says as much as the product itself tells.
  const counted = stock(slug).catch(() => null);
  try {
    const item = await product(slug);
    document.title = `${item.name} — Gatehouse Goods`;
    place.replaceChildren(...describe(item, counted));
    trail.replaceChildren(aisle(item));
    trail.hidden = false;
    document.getElementById("related").hidden = false;
    fill(document.getElementById("shelf"), { category: item.category, limit: 5 }, { eager: 0, without: slug, most: 4 });
  } catch (error) {
    trail.hidden = true;
    place.replaceChildren(error.status === 404 ? missing() : failure(error, show));
  }
  place.removeAttribute("aria-busy");
}

function describe(item, counted) {
  const shelf = element("p", { class: "stock" });
  const purchase = buying(item);
  const tell = (left) => {
    shelf.classList.toggle("none", left === 0);
    shelf.textContent = left === 0 ? "Sold out for now" : left <= 5 ? `Only ${left} left` : "In stock";
    purchase.node.hidden = left === 0;
  };
  tell(item.in_stock ? Infinity : 0);
  counted.then((left) => {
    if (left === null) return;
    tell(left);
    purchase.limit(left);
  });
  return [
    element("img", { class: "picture", width: 640, height: 640, alt: item.name, decoding: "async", fetchpriority: "high", src: item.image }),
    element(
      "div",
      { class: "about" },
      element("h1", {}, item.name),
      element("p", { class: "price" }, price(item.price_cents, item.currency)),
      shelf,
      purchase.node,
      ...item.description.split(/\n+/).map((paragraph) => element("p", {}, paragraph)),
    ),
  ];
}

function aisle({ category, category_name: name }) {
  return element("a", { href: `/category/${category}` }, name);
}

function missing() {
  document.title = "No such product — Gatehouse Goods";
  // The page itself is the same file for every product and answers 200, so this keeps it out of search engines.
  document.head.append(element("meta", { name: "robots", content: "noindex" }));
  return element(
    "div",
    { class: "notice" },
    element("h1", {}, "There is no such product"),
    element("p", {}, "It may have been sold for the last time. Others like it are on the shelves."),
    element("a", { class: "button", href: "/" }, "Back to the shop"),
  );
}
