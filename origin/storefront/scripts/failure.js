import { element } from "/assets/element.js";

/** What to say when something failed, with a way to try again. */
export function failure(error, again) {
  return element(
    "div",
    { class: "notice", role: "alert" },
    element("p", {}, inWords(error)),
    element("button", { class: "button", type: "button", click: again }, "Try again"),
  );
}

/** A notice for those who have to sign in first, and come back `here`. */
export function signInFirst(here, words) {
  return element(
    "div",
    { class: "notice" },
    element("p", {}, words),
    element("a", { class: "button", href: `/account?next=${encodeURIComponent(here)}` }, "Sign in"),
  );
}

/** The shop's words as a sentence, and how long it wants to be left alone. */
export function inWords({ message, retryAfter }) {
  const sentence = /[.!?]$/.test(message) ? message : `${message}.`;
  if (!retryAfter) return sentence;
  const wait = retryAfter < 90 ? `${retryAfter} s` : `${Math.ceil(retryAfter / 60)} minutes`;
  return `${sentence} Please try again in ${wait}.`;
}
