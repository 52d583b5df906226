// The cart: kept in this browser, shared by its tabs, known to the shop only once it is ordered.
//
// A line is `{id, slug, name, image, quantity, price_cents, currency}`; the price is the one the customer saw last.

const place = "cart";
const changes = new EventTarget();

/** What one order holds at most. */
export const mostLines = 50;
export const mostPieces = 1000;

/** The lines in the order they were added. What cannot be read, or was never a line, counts as none. */
export function lines() {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    return Array.isArray(kept) ? kept.filter(isLine) : [];
  } catch {
    return [];
  }
}

export function pieces() {
  return lines().reduce((sum, line) => sum + line.quantity, 0);
}

/** Adds pieces of a product, up to `most` together with those in the cart; answers how many are in it then. */
export function add({ id, slug, name, image, price_cents, currency }, quantity, most) {
  const all = lines();
  const before = all.find((line) => line.id === id);
  if (!before && all.length >= mostLines) throw new RangeError(`A cart holds ${mostLines} different products at most.`);
  const sum = Math.min((before?.quantity ?? 0) + quantity, most, mostPieces);
  const line = { id, slug, name, image, price_cents, currency, quantity: sum };
  keep(before ? all.map((other) => (other === before ? line : other)) : [...all, line]);
  return sum;
}

/** Why something could not be added, in words. */
export function notKept(error) {
  return error instanceof RangeError ? error.message : "This browser keeps no cart: it lets the shop store nothing.";
}

/** Changes some members of a line. */
export function update(id, members) {
  keep(lines().map((line) => (line.id === id ? { ...line, ...members } : line)));
}

export function remove(id) {
  keep(lines().filter((line) => line.id !== id));
}

/** Takes out what has been ordered, `[{product_id, quantity}]`; what was added since stays. */
export function takeOut(ordered) {
  const left = lines().map((line) => {
    const taken = ordered.find(({ product_id: id }) => id === line.id);
    return { ...line, quantity: line.quantity - (taken?.quantity ?? 0) };
  });
  keep(left.filter((line) => line.quantity > 0));
}

/** Calls back after every change, in this tab or another, and when the browser shows a page again that it has kept alive. */
export function onChange(changed) {
  addEventListener("pageshow", ({ persisted }) => persisted && changed());
  changes.addEventListener("change", changed);
  addEventListener("storage", (event) => (event.key === place || event.key === null) && changed());
}

/** Sums by currency, in cents: `{EUR: 1250}`. */
export function totals(all) {
  const sums = {};
  for (const { currency, price_cents: cents, quantity } of all) sums[currency] = (sums[currency] ?? 0) + cents * quantity;
  return sums;
}

function keep(all) {
  localStorage.setItem(place, JSON.stringify(all));
  changes.dispatchEvent(new Event("change"));
}

function isLine(line) {
  return (
    Number.isSafeInteger(line?.id) &&
    Number.isSafeInteger(line.price_cents) &&
    Number.isInteger(line.quantity) &&
    line.quantity >= 1 &&
    line.quantity <= mostPieces &&
    [line.slug, line.name].every((text) => typeof text === "string") &&
    /^[A-Z]{3}$/.test(line.currency)
  );
}
