// A list of products that came with the page: a category, or what a search has found.
import { wakeShelf } from "/assets/shelf.js";

export function show() {
  wakeShelf();
  const form = document.getElementById("order");
  // As the button without scripts does, and without a form in the history for each look at the choices.
  form?.addEventListener("change", () => form.requestSubmit());
  if (document.body.dataset.page === "search" && !document.getElementById("q").value) document.getElementById("q").focus();
}
