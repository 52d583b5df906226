// The orders of one customer, newest first: each opens to its lines, and can be cancelled.
import { cancelOrder, order, orders, session } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords, signInFirst } from "/assets/failure.js";
import { moment, price } from "/assets/numbers.js";

const atOnce = 10;
let shows = 0; // of this page so far: what an earlier one still waits for may belong to somebody who has left

export function show() {
  shows += 1;
  const current = shows;
  const place = document.getElementById("orders");
  const list = element("ul", { class: "orders" });
  const told = element("p", { class: "unseen", role: "status" });
  const rest = element("div", { class: "rest" });
  load(null);

  async function load(cursor) {
    if (cursor) rest.replaceChildren(element("p", { class: "quiet" }, "Loading…"));
    try {
      // Asked first, because nobody is no error there: strangers get a notice, and their console no refusal.
      const answer = cursor === null && (await session()) === null ? null : await orders(atOnce, cursor);
      if (current !== shows) return;
      if (answer === null) return showStranger();
      const items = answer.orders.map((each) => item(each, say));
      list.append(...items);
      rest.replaceChildren(answer.next_cursor ? element("button", { class: "button plain", type: "button", click: () => load(answer.next_cursor) }, "Load more") : "");
      place.replaceChildren(...(list.children.length === 0 ? [none()] : [list, told, rest]));
      if (cursor) {
        say(`${items.length} more orders`);
        items[0]?.querySelector("summary").focus({ preventScroll: true });
      }
    } catch (error) {
      if (current !== shows) return;
      if (error.status === 401) return showStranger();
      rest.replaceChildren(failure(error, () => load(cursor)));
      place.replaceChildren(list, told, rest);
    }
    place.removeAttribute("aria-busy");
  }

  function showStranger() {
    place.replaceChildren(stranger());
    place.removeAttribute("aria-busy");
  }

  function say(words) {
    told.textContent = words;
  }
}

/** Shows nothing of what stood there until the shop has said whose orders these are. */
export function renew() {
  const place = document.getElementById("orders");
  place.setAttribute("aria-busy", "true");
  place.replaceChildren();
  show();
}

function stranger() {
  return signInFirst("/orders", "Your orders are shown to you alone.");
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
      if (error.status === 401) return renew();
      loaded = false;
      inside.replaceChildren(failure(error, load));
    }
  }

  function draw(whole) {
    drawState(whole);
    inside.replaceChildren(bill(whole), whole.status === "placed" ? offer() : element("p", { class: "quiet" }, `Cancelled on ${moment(whole.cancelled_at)}.`));
  }

  /** Asks once more before it cancels. */
  function offer() {
    const told = element("p", { class: "told", role: "alert" });
    const question = element("p", { id: `question-${first.id}` }, "Cancel this order? That cannot be undone.");
    const choices = element("div", { class: "choices", role: "group", "aria-labelledby": question.id });
    const withdraw = button("Cancel the order", "plain", () => ask(true));
    ask(false);
    return element("div", { class: "offer" }, told, choices);

    function ask(sure) {
      const keep = button("Keep it", "plain", () => ask(false));
      choices.replaceChildren(...(sure ? [question, button("Yes, cancel it", "grave", cancel), keep] : [withdraw]));
      // What was pressed is gone; the focus goes to what does no harm.
      if (document.activeElement === document.body) (sure ? keep : withdraw).focus({ preventScroll: true });
    }

    async function cancel() {
      told.textContent = "";
      choices.replaceChildren("One moment…");
      try {
        draw(await cancelOrder(first.id));
        say(`Order ${first.id} is cancelled.`);
        details.firstElementChild.focus({ preventScroll: true });
      } catch (error) {
        told.textContent = error.status === 401 ? "You are signed out. Nothing has been cancelled." : inWords(error);
        ask(false);
      }
    }
  }
}

function button(words, kind, click) {
  return element("button", { class: `button ${kind}`, type: "button", click }, words);
}

function bill({ lines, currency, total_cents: total }) {
  const row = (attributes, name, pieces, cents) =>
    element("li", attributes, element("span", { class: "name" }, name), element("span", { class: "quiet" }, pieces), element("span", { class: "price" }, price(cents, currency)));
  return element(
    "ul",
    { class: "bill" },
    ...lines.map((line) => row({}, line.name, `${line.quantity} × ${price(line.price_cents, currency)}`, line.price_cents * line.quantity)),
    row({ class: "total" }, "Total", "", total),
  );
}
