// How the storefront asks the shop's API: one way to ask, and one error for every way it can say no.

/**
 * An answer that is not a 2xx, or none at all. `status` is 0 when the network failed; `kind` is the last part of the
 * problem's type (RFC 9457), such as "out-of-stock"; `errors` is `[{field, message}]`; `retryAfter` is in seconds.
 */
export class Refusal extends Error {
  constructor(message, { status = 0, kind = "", errors = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, kind, errors, retryAfter });
  }
}

/** The JSON of an answer, null when it has none. */
export async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The shop cannot be reached just now.");
  }
  if (!answer.ok) throw await refusal(answer);
  if ([202, 204].includes(answer.status)) return null;
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The answer of the shop did not arrive whole.");
  }
}

/** Asks for a change. The header shows the shop that no other site has made the browser send it. */
export function write(method, address, value, headers = {}) {
  const body = value === undefined ? {} : { body: JSON.stringify(value) };
  const kind = value === undefined ? {} : { "Content-Type": "application/json" };
  return ask(address, { method, ...body, headers: { ...kind, "X-Requested-With": "storefront", ...headers } });
}

/** What an answer that is not a 2xx says. */
export async function refusal(answer) {
  const seconds = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
  const facts = { status: answer.status, retryAfter: Number.isNaN(seconds) ? null : seconds };
  // What a failing server says is meant for those who run it.
  if (answer.status >= 500) return new Refusal("The shop cannot answer just now.", facts);
  if (answer.headers.get("content-type")?.startsWith("application/problem+json")) {
    const { type, title, detail, errors } = await answer.json().catch(() => ({}));
    if (title || detail) return new Refusal(detail || title, { ...facts, kind: type?.split(":").pop(), errors });
  }
  return new Refusal(answer.status === 429 ? "That was a little fast for the shop." : "The shop does not take that.", facts);
}
