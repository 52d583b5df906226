// The choice of order above a shelf, kept in the address so that it survives reloading and sharing.
import { element } from "/assets/element.js";

const orders = { newest: "Newest first", price_asc: "Price, low to high", price_desc: "Price, high to low", name: "Name" };

/** The order the address asks for, empty for the default. Anything unknown counts as the default. */
export function chosenOrder() {
  const asked = new URLSearchParams(location.search).get("sort");
  return asked !== "newest" && Object.hasOwn(orders, asked) ? asked : "";
}

/** Puts the choice into `place` and calls `changed` after each new choice. */
export function offerOrders(place, changed) {
  const now = chosenOrder() || "newest";
  const select = element(
    "select",
    { id: "sort", change: () => (remember(select.value), changed()) },
    ...Object.entries(orders).map(([value, name]) => element("option", { value, selected: value === now }, name)),
  );
  place.replaceChildren(element("label", { class: "sorting" }, element("span", {}, "Sort by"), select));
}

function remember(order) {
  const address = new URL(location.href);
  if (order === "newest") address.searchParams.delete("sort");
  else address.searchParams.set("sort", order);
  history.replaceState(null, "", address);
}
