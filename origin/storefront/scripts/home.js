// The front page: a tile for each category and the newest products.
import { categories } from "/assets/catalogue.js";
import { element } from "/assets/element.js";
import { failure } from "/assets/failure.js";
import { productCount } from "/assets/numbers.js";
import { fill } from "/assets/shelf.js";

// A category this list does not know is shown by its name alone.
const pictures = {
  kitchen: "/assets/saucepan-1.webp",
  lighting: "/assets/pendant-1.webp",
  textiles: "/assets/blanket-1.webp",
  ceramics: "/assets/mug-1.webp",
  stationery: "/assets/notebook-1.webp",
  garden: "/assets/watering-can-2.webp",
  bath: "/assets/towel-2.webp",
  toys: "/assets/blocks-1.webp",
  bags: "/assets/backpack-2.webp",
  audio: "/assets/headphones-2.webp",
  outdoor: "/assets/tent-1.webp",
  prints: "/assets/shapes-1.webp",
};

export function show() {
  showTiles(document.getElementById("tiles"));
  fill(document.getElementById("shelf"), { limit: 8 }, { eager: 0 });
}

async function showTiles(tiles) {
  try {
    const list = await categories();
    tiles.replaceChildren(...list.map(tile));
  } catch (error) {
    tiles.replaceChildren(element("li", { class: "wide" }, failure(error, () => showTiles(tiles))));
  }
  tiles.removeAttribute("aria-busy");
}

function tile({ slug, name, product_count: count }) {
  const picture = pictures[slug];
  return element(
    "li",
    {},
    element(
      "a",
      { href: `/category/${slug}` },
      picture && element("img", { loading: "lazy", decoding: "async", width: 640, height: 640, alt: "", src: picture }),
      element("span", { class: "name" }, name),
      element("span", { class: "quiet" }, productCount(count)),
    ),
  );
}
