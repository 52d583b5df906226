// The shop's API as functions. Answers are cached by the browser and the edge, as their Cache-Control says; the only
// memory kept here is one promise, so that a page asks for the categories once.

/** An answer that is not a 2xx, or none at all: `status` is 0 when the network failed, `retryAfter` is in seconds. */
export class CatalogueError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let known = null;

/** Every category: `[{id, slug, name, product_count}]`. */
export function categories() {
  known ??= read("/api/categories").then((answer) => answer.categories);
  known.catch(() => (known = null));
  return known;
}

/** One page of products: `{products, next_cursor}`. Parameters: category, search, sort, limit, cursor; empty ones are left out. */
export function products(parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return read(query ? `/api/products?${query}` : "/api/products", signal);
}

/** One product by its slug, with description, stock and version. */
export function product(slug) {
  return read(`/api/products/${encodeURIComponent(slug)}`);
}

async function read(address, signal) {
  let answer;
  try {
    answer = await fetch(address, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CatalogueError("The shop cannot be reached just now.");
  }
  if (answer.ok) return answer.json();
  const seconds = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
  throw new CatalogueError(await problem(answer), answer.status, Number.isNaN(seconds) ? null : seconds);
}

/** The words of a problem+json answer (RFC 9457), or plain ones when the answer is something else. */
async function problem(answer) {
  if (answer.headers.get("content-type")?.startsWith("application/problem+json")) {
    const { detail, title } = await answer.json().catch(() => ({}));
    if (detail || title) return detail || title;
  }
  return answer.status === 429 ? "That was a little fast for the shop." : "The shop could not answer.";
}
