// What the shop does for one customer. Nothing here is cached by anyone.
import { ask, write } from "/assets/answers.js";

/** Who is signed in: `{id, email, name, role}`, or null. */
export async function session() {
  return (await ask("/api/session", { cache: "no-store" })).user;
}

export function register(email, name, password) {
  return noted(write("POST", "/api/users", { email, name, password }));
}

export function signIn(email, password) {
  return noted(write("POST", "/api/session", { email, password }));
}

export function signOut() {
  return noted(write("DELETE", "/api/session"));
}

async function noted(change) {
  const answer = await change;
  try {
    localStorage.setItem("session", crypto.randomUUID());
  } catch {
    // Without storage the other windows find out with their next request.
  }
  return answer;
}

/** One page of orders, newest first: `{orders, next_cursor}`. */
export function orders(limit, cursor) {
  const query = new URLSearchParams(cursor ? { limit, cursor } : { limit });
  return ask(`/api/orders?${query}`, { cache: "no-store" });
}

/** One order with its lines: `[{product_id, name, quantity, price_cents}]`. */
export function order(id) {
  return ask(`/api/orders/${id}`, { cache: "no-store" });
}

/** The same order comes back however often the same key is sent with the same lines `[{product_id, quantity}]`. */
export function placeOrder(key, lines) {
  return write("POST", "/api/orders", { lines }, { "Idempotency-Key": key });
}

/** Once, however often it is asked. */
export function cancelOrder(id) {
  return write("POST", `/api/orders/${id}/cancel`);
}
