// The orders of one customer, newest first: each opens to its lines, and can be cancelled.
import { cancelOrder, order, orders } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords, signInFirst } from "/assets/failure.js";
import { moment, price } from "/assets/numbers.js";

const atOnce = 10;

export function show() {
  const place = document.getElementById("orders");
  const list = element("ul", { class: "orders", "aria-busy": "true" });
  const told = element("p", { class: "unseen", role: "status" });
  const rest = element("div", { class: "rest" });
  place.replaceChildren(list, told, rest);
  load(null);

  async function load(cursor) {
    rest.replaceChildren(element("p", { class: "quiet" }, "Loading…"));
    try {
      const answer = await orders(atOnce, cursor);
      const items = answer.orders.map((each) => item(each, say));
      list.append(...items);
      rest.replaceChildren(answer.next_cursor ? element("button", { class: "button", type: "button", click: () => load(answer.next_cursor) }, "Load more") : "");
      if (list.children.length === 0) place.replaceChildren(none());
      if (cursor) {
        say(`${items.length} more orders`);
        items[0]?.querySelector("summary").focus({ preventScroll: true });
      }
    } catch (error) {
      if (error.status === 401) place.replaceChildren(signInFirst("/orders", "Your orders are shown to you alone."));
      else rest.replaceChildren(failure(error, () => load(cursor)));
    }
    list.removeAttribute("aria-busy");
  }

  function say(words) {
    told.textContent = words;
  }
}

function none() {
  return element("div", { class: "notice" }, element("p", {}, "You have not ordered anything yet."), element("a", { class: "button", href: "/" }, "To the shop"));
}

function item(first, say) {
  const state = element("span", { class: "label" });
  const inside = element("div", { class: "inside" });
  let loaded = false;
  const details = element(
    "details",
    { toggle: () => details.open && !loaded && load() },
    element(
      "summary",
      {},
      element("span", { class: "name" }, `Order ${first.id}`),
      element("time", { class: "quiet", datetime: first.created_at }, moment(first.created_at)),
      state,
      element("span", { class: "price" }, price(first.total_cents, first.currency)),
    ),
    inside,
  );
  drawState(first);
  return element("li", {}, details);

  function drawState({ status }) {
    state.classList.toggle("good", status === "placed");
    state.textContent = status === "placed" ? "Placed" : "Cancelled";
  }

  async function load() {
    loaded = true;
    inside.replaceChildren(element("p", { class: "quiet" }, "Loading…"));
    try {
      draw(await order(first.id));
    } catch (error) {
      loaded = false;
      inside.replaceChildren(failure(error, load));
    }
  }

  function draw(whole) {
    drawState(whole);
    inside.replaceChildren(table(whole), whole.status === "placed" ? offer() : element("p", { class: "quiet" }, `Cancelled ${moment(whole.cancelled_at)}.`));
  }

  /** Asks once more before it cancels. */
  function offer() {
    const told = element("p", { class: "told", role: "alert" });
    const choices = element("p", { class: "choices" });
    const node = element("div", {}, told, choices);
    ask(false);
    return node;

    function ask(sure) {
      const button = (words, click, plain = true) => element("button", { class: plain ? "button plain" : "button", type: "button", click }, words);
      choices.replaceChildren(
        ...(sure ? [button(`Cancel order ${first.id} for good`, cancel, false), button("Keep it", () => ask(false))] : [button("Cancel the order", () => ask(true))]),
      );
      if (document.activeElement === document.body) choices.lastElementChild.focus({ preventScroll: true }); // the one that does no harm
    }

    async function cancel() {
      choices.replaceChildren("One moment…");
      try {
        draw(await cancelOrder(first.id));
        say(`Order ${first.id} is cancelled.`);
        details.firstElementChild.focus({ preventScroll: true });
      } catch (error) {
        told.textContent = inWords(error);
        ask(false);
      }
    }
  }
}

function table({ lines, currency, total_cents: total }) {
  const row = (cell, ...texts) => element("tr", {}, ...texts.map((text) => element(cell, cell === "th" ? { scope: "col" } : {}, text)));
  return element(
    "table",
    {},
    element("thead", {}, row("th", "Product", "Pieces", "Each", "Sum")),
    element("tbody", {}, ...lines.map((line) => row("td", line.name, String(line.quantity), price(line.price_cents, currency), price(line.price_cents * line.quantity, currency)))),
    element("tfoot", {}, element("tr", {}, element("th", { scope: "row", colspan: 3 }, "Total"), element("td", {}, price(total, currency)))),
  );
}
