// The shop's catalogue as functions. Answers are cached by the browser and the edge, as their Cache-Control says; the only
// memory kept here is one promise, so that a page asks for the categories once.
import { ask } from "/assets/answers.js";

let known = null;

/** Every category: `[{id, slug, name, product_count}]`. */
export function categories() {
  known ??= ask("/api/categories").then((answer) => answer.categories);
  known.catch(() => (known = null));
  return known;
}

/** One page of products: `{products, next_cursor}`. Parameters: category, search, sort, limit, cursor; empty ones are left out. */
export function products(parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return ask(query ? `/api/products?${query}` : "/api/products", { signal });
}

/** Products that may be meant by what has been typed so far, the most likely first. */
export async function suggestions(words, signal) {
  return (await ask(`/api/suggestions?${new URLSearchParams({ words })}`, { signal })).products;
}

/** One product by its slug, with its description. `cache` as of fetch: "no-cache" asks the shop whether it is still so. */
export function product(slug, cache = "default") {
  return ask(`/api/products/${encodeURIComponent(slug)}`, { cache });
}

/** How many pieces of it are left: a number that is seconds old at most. */
export async function stock(slug, cache = "default") {
  return (await ask(`/api/products/${encodeURIComponent(slug)}/stock`, { cache })).stock;
}
