// An order from the press of the button to the shop's answer: placed once, whatever happens in between.
//
// It is written down with its key before it is sent, and forgotten only when the shop has answered for good. Until then the
// same order is sent again, never a new one, even after the page or the browser was closed.
import { Refusal } from "/assets/answers.js";
import { lines, takeOut, totals } from "/assets/cart.js";
import { placeOrder } from "/assets/customer.js";

const place = "order-under-way";
// These answers stay the same however often the order is sent.
const final = new Set(["out-of-stock", "total-changed", "mixed-currencies", "invalid-fields", "invalid-request", "idempotency-key-reused"]);
const tries = 4;
const longestWait = 5; // seconds

/** The order of this customer that has no answer yet: `{key, user, lines, totals}`, or null. */
export function underWay(user) {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    return kept?.user === user && typeof kept.key === "string" && Array.isArray(kept.lines) ? kept : null;
  } catch {
    return null;
  }
}

/** Gives up asking; whether the shop has placed it, the list of orders tells. */
export function forget() {
  localStorage.removeItem(place);
}

/**
 * Places the order that is under way or, without one, an order of the cart, if it still costs what the customer was `shown`
 * (as of `totals`). Answers `{placed, expected}`: the order, and what it should have cost.
 */
export function order(user, shown) {
  return alone(async () => {
    const sent = underWay(user) ?? begin(user, shown);
    try {
      const placed = await patiently(() => placeOrder(sent.key, sent.lines, sent.expected));
      takeOut(sent.lines);
      forget();
      return { placed, expected: sent.totals };
    } catch (error) {
      if (final.has(error.kind)) forget();
      if (error.kind === "out-of-stock") {
        error.lacking = error.errors.map(({ field }) => sent.lines[Number.parseInt(field.slice("lines[".length), 10)]?.product_id);
      }
      throw error;
    }
  });
}

function begin(user, shown) {
  const all = lines();
  if (JSON.stringify(totals(all)) !== JSON.stringify(shown)) {
    throw new Refusal("The cart has changed in another window. Please look at it again.", { kind: "cart-changed" });
  }
  const wanted = all.map(({ id, quantity }) => ({ product_id: id, quantity }));
  // An order has one currency, and is refused with two.
  const [expected] = Object.values(shown);
  const sent = { key: crypto.randomUUID(), user, lines: wanted, totals: shown, expected };
  localStorage.setItem(place, JSON.stringify(sent));
  return sent;
}

/** One tab at a time: the second finds the cart as the first has left it. */
function alone(work) {
  return navigator.locks ? navigator.locks.request(place, work) : work();
}

/** Asks again while the shop says "soon": an earlier request is under way, or it is busy. */
async function patiently(work) {
  for (let left = tries; ; left -= 1) {
    try {
      return await work();
    } catch (error) {
      if (left <= 1 || error.retryAfter === null || error.retryAfter === undefined || error.retryAfter > longestWait) throw error;
      await new Promise((done) => setTimeout(done, error.retryAfter * 1000));
    }
  }
}
