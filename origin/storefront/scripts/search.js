// What a search found.
import { element } from "/assets/element.js";
import { fill } from "/assets/shelf.js";
import { chosenOrder, offerOrders } from "/assets/sorting.js";

export function show() {
  const wanted = (new URLSearchParams(location.search).get("q") ?? "").trim();
  const shelf = document.getElementById("shelf");
  const box = document.getElementById("q");
  if (!wanted) {
    shelf.replaceChildren(note("What are you looking for?", "Try “lamp”, “blanket” or “blue”."));
    box.focus();
    return;
  }
  box.value = wanted;
  document.title = `${wanted} — Gatehouse Goods`;
  document.getElementById("title").textContent = `Results for “${wanted}”`;
  const nothing = note(`Nothing was found for “${wanted}”.`, "Check the spelling, or try a plainer word.");
  const restock = () => fill(shelf, { search: wanted, sort: chosenOrder() }, { empty: nothing });
  offerOrders(document.getElementById("order"), restock);
  restock();
}

function note(...lines) {
  return element("div", { class: "notice", role: "status" }, ...lines.map((line) => element("p", {}, line)));
}
