// What the shop does for one customer. Nothing here is cached by anyone.
import { ask, write } from "/assets/answers.js";

/** Who is signed in: `{id, email, name, role}`, or null. */
export async function session() {
  const { user } = await ask("/api/session", { cache: "no-store" });
  remember(user);
  return user;
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

/** A new password for one that is known; every other session ends. */
export function changePassword(current, wanted) {
  return noted(write("PUT", "/api/account/password", { current, new: wanted }));
}

/** Has a mail sent with which a forgotten password is replaced, if there is such an account. */
export function forgetPassword(email) {
  return write("POST", "/api/account/forgotten-password", { email });
}

export function resetPassword(token, wanted) {
  return noted(write("PUT", "/api/account/forgotten-password", { token, new: wanted }));
}

export function deleteAccount(password) {
  return noted(write("POST", "/api/account/deletion", { password }));
}

/** For the header of pages that do not ask: they are the same for everybody. */
function remember(user) {
  try {
    if (user) localStorage.setItem("customer", user.name || user.email);
    else localStorage.removeItem("customer");
  } catch {
    // Without storage the header says what it says to everybody.
  }
}

async function noted(change) {
  const answer = await change;
  remember(answer?.user ?? null);
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

/**
 * The same order comes back however often the same key is sent with the same lines `[{product_id, quantity}]`. If it would cost
 * another sum than `expected` (cents; undefined: whatever it costs), it is refused.
 */
export function placeOrder(key, lines, expected) {
  return write("POST", "/api/orders", { lines, expected_total_cents: expected }, { "Idempotency-Key": key });
}

/** Once, however often it is asked. */
export function cancelOrder(id) {
  return write("POST", `/api/orders/${id}/cancel`);
}
