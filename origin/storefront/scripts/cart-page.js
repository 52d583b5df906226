// The cart as a page: what is in it, whether that can still be had at that price, and the order.
import { mostPieces, lines, onChange, remove, totals, update } from "/assets/cart.js";
import { product, stock } from "/assets/catalogue.js";
import { forget, order, underWay } from "/assets/checkout.js";
import { session } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { inWords } from "/assets/failure.js";
import { pieceCount, price } from "/assets/numbers.js";
import { quantityField } from "/assets/quantity.js";

const atOnce = 4; // products asked about at the same time

/** Asks once more who is signed in; made by `show`. */
export let renew = null;

export function show() {
  const place = document.getElementById("cart");
  const rows = new Map(); // by product id
  const list = element("ul", { class: "lines", "aria-label": "Products" });
  const sums = element("div", { class: "sums", "aria-live": "polite", "aria-atomic": "true" });
  const told = element("p", { class: "told", role: "alert" });
  const action = element("div", { class: "action" });
  const summary = element("section", { class: "summary", "aria-label": "Summary" }, sums, told, action);
  let user; // undefined as long as the shop has not said who is signed in
  let asked = false;
  let offered = null; // what the summary offers: made anew only when that changes, so that nobody's press or focus is lost
  let thanked = false;

  draw();
  onChange(draw);
  place.removeAttribute("aria-busy");
  check().catch(() => {}); // The rows say for themselves what could not be read.
  identify();
  renew = identify;

  async function identify() {
    try {
      user = await session();
    } catch {
      // Asked again with the order; an answer from before stands until then.
    }
    asked = true;
    draw();
  }

  function draw() {
    if (thanked) return;
    const all = lines();
    for (const [id, row] of rows) {
      if (all.some((line) => line.id === id)) continue;
      row.node.remove();
      rows.delete(id);
    }
    for (const line of all) {
      if (!rows.has(line.id)) {
        rows.set(line.id, rowOf(line));
        list.append(rows.get(line.id).node);
      }
      rows.get(line.id).draw(line);
    }
    const next = sumsOf(all);
    if (sums.textContent !== next.map((node) => node.textContent).join("")) sums.replaceChildren(...next);
    drawAction();
    const shown = all.length > 0 ? [list, summary] : waits() ? [summary] : [empty()];
    if (shown.length !== place.children.length || shown[0] !== place.firstElementChild) place.replaceChildren(...shown);
  }

  function drawAction() {
    if (!asked) return;
    const offer = user === null ? "sign in" : waits() ? "ask again" : "order";
    if (offer === offered) return;
    offered = offer;
    if (offer === "sign in") {
      action.replaceChildren(element("p", {}, "Sign in to place the order. The cart stays as it is."), element("a", { class: "button", href: "/account?next=/cart" }, "Sign in"));
    } else if (offer === "ask again") {
      action.replaceChildren(
        element("p", {}, `Your order of ${totalText(underWay(user.id).totals)} has not been answered yet. Asking again cannot place it twice.`),
        element("button", { class: "button", type: "button", click: buy }, "Ask again"),
        element("button", { class: "button plain", type: "button", click: () => (forget(), say(""), draw()) }, "Leave it"),
        element("p", { class: "quiet" }, "If you leave it, ", element("a", { href: "/orders" }, "your orders"), " show whether it has arrived."),
      );
    } else {
      action.replaceChildren(
        element("button", { class: "button", type: "button", click: buy }, "Place the order"),
        element("p", { class: "quiet" }, "A demonstration: nothing is paid, nothing is sent."),
      );
    }
  }

  function waits() {
    return Boolean(user && underWay(user.id));
  }

  /** Reads prices and stock of every line anew. */
  async function check() {
    const waiting = [...lines()];
    const worker = async () => {
      for (let line = waiting.shift(); line; line = waiting.shift()) await rows.get(line.id)?.check(line);
    };
    const outcomes = await Promise.allSettled(Array.from({ length: atOnce }, worker));
    draw();
    const failed = outcomes.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
  }

  async function buy() {
    if (place.inert) return; // the second half of a double click
    busy(true);
    say("");
    try {
      user = await session();
      if (user === null) return say("You are signed out.");
      const shown = totals(lines());
      if (!waits()) {
        await check();
        const stopped = lines().some((line) => rows.get(line.id)?.stops(line));
        if (stopped) return say("Some of this cannot be ordered. Please change the marked lines.");
        if (totalText(totals(lines())) !== totalText(shown)) {
          return say("A price has changed since you looked. Please read the new total and place the order again.");
        }
      }
      thank(await order(user.id, shown));
    } catch (error) {
      if (error.kind === "not-signed-in") user = null;
      for (const id of error.lacking ?? []) rows.get(id)?.lack();
      if (error.lacking || error.kind === "total-changed") await check().catch(() => {});
      say(refused(error, waits()));
    } finally {
      busy(false);
      draw();
      if (!thanked) action.querySelector(".button")?.focus({ preventScroll: true });
    }
  }

  function busy(now) {
    summary.setAttribute("aria-busy", now);
    place.inert = now;
    if (now) action.querySelector(".button").textContent = "One moment…";
    else offered = null;
  }

  function say(words) {
    told.textContent = words;
  }

  function thank({ placed, expected }) {
    thanked = true;
    const count = placed.lines.reduce((sum, line) => sum + line.quantity, 0);
    const total = totalText({ [placed.currency]: placed.total_cents });
    const heading = document.getElementById("title");
    heading.textContent = "Thank you";
    document.title = "Thank you — Gatehouse Goods";
    place.replaceChildren(
      element(
        "div",
        { class: "notice" },
        element("p", {}, `Order ${placed.id} is placed: ${pieceCount(count)}, ${total}.`),
        total !== totalText(expected) &&
          element("p", {}, `A price changed at that very moment: you were shown ${totalText(expected)}. You can still cancel the order.`),
        element(
          "p",
          { class: "choices" },
          element("a", { class: "button", href: "/orders" }, "See your orders"),
          element("a", { class: "button plain", href: "/" }, "Back to the shop"),
        ),
      ),
    );
    heading.focus({ preventScroll: true });
  }

  function empty() {
    return element(
      "div",
      { class: "notice" },
      element("p", {}, "There is nothing in it yet. What you add stays in this browser until you order it."),
      element("a", { class: "button", href: "/" }, "To the shop"),
    );
  }

  /** One line: its node and what the shop has said about the product. */
  function rowOf(first) {
    const { id, slug, name } = first;
    let known = null; // `{gone}`, `{unread}` or `{left}`, and `before`: the price that was shown until now
    const picture = element("img", { alt: "", width: 640, height: 640, decoding: "async", src: first.image });
    const each = element("p", { class: "quiet" });
    const note = element("p", { class: "note", id: `note-${id}`, role: "status" });
    const sum = element("p", { class: "price" });
    const quantity = quantityField({ label: `Pieces of ${name}`, value: first.quantity, most: mostPieces, changed: (now) => update(id, { quantity: now }) });
    const node = element(
      "li",
      { class: "line", "aria-describedby": note.id },
      picture,
      element("div", { class: "what" }, element("a", { class: "name", href: `/product/${slug}` }, name), each, note),
      quantity.node,
      sum,
      element("button", { class: "link", type: "button", "aria-label": `Remove ${name}`, click: dismiss }, "Remove"),
    );
    return { node, draw: drawRow, check: checkRow, lack, stops };

    function drawRow(line) {
      each.textContent = `${price(line.price_cents, line.currency)} each`;
      sum.textContent = price(line.price_cents * line.quantity, line.currency);
      if (quantity.value() !== line.quantity) quantity.show(line.quantity);
      const words = noteOf(line);
      if (note.textContent !== words) note.textContent = words;
      node.classList.toggle("stopped", stops(line));
    }

    async function checkRow(line) {
      try {
        const [item, left] = await Promise.all([product(slug, "no-cache"), stock(slug, "no-cache")]);
        const changed = item.price_cents !== line.price_cents || item.currency !== line.currency;
        known = { left, before: changed ? line : known?.before };
        quantity.limit(Math.min(left, mostPieces));
        if (item.image && picture.getAttribute("src") !== item.image) picture.src = item.image;
        const { name: called, image, price_cents, currency } = item;
        if (changed || image !== line.image || called !== line.name) update(id, { name: called, image, price_cents, currency });
      } catch (error) {
        known = error.status === 404 ? { gone: true } : { ...known, unread: true };
        if (error.status !== 404) throw error;
      }
    }

    function lack() {
      known = { ...known, left: 0 };
    }

    function stops(line) {
      return Boolean(known?.gone || known?.left < line.quantity);
    }

    function noteOf(line) {
      if (known?.gone) return "No longer sold: please remove it.";
      if (known?.left === 0) return "Sold out for now: please remove it, or come back.";
      if (known?.left < line.quantity) return `Only ${known.left} left: please take fewer.`;
      if (known?.unread) return "Whether it is still there at this price could not be checked just now.";
      if (known?.before) return `The price has changed: it was ${price(known.before.price_cents, known.before.currency)}.`;
      return "";
    }

    function dismiss() {
      const next = node.nextElementSibling ?? node.previousElementSibling;
      remove(id);
      // The focus goes on with the list, and does not fall back to the top of the page.
      (next?.querySelector(".link") ?? document.getElementById("title")).focus();
    }
  }
}

function sumsOf(all) {
  const count = all.reduce((sum, line) => sum + line.quantity, 0);
  const sums = Object.entries(totals(all));
  return [
    element("p", { class: "quiet" }, pieceCount(count)),
    ...sums.map(([currency, cents]) => element("p", { class: "total" }, element("span", {}, "Total"), element("span", { class: "price" }, price(cents, currency)))),
    sums.length > 1 && element("p", { class: "note" }, "One order has one currency: please order these one after the other."),
  ].filter(Boolean);
}

/** "€12.50", or several joined by "and". */
function totalText(sums) {
  return Object.entries(sums).map(([currency, cents]) => price(cents, currency)).join(" and ");
}

function refused(error, sent) {
  if (error.status === 0 && sent) return "The shop did not answer, so the order may have arrived or not. Asking again cannot place it twice.";
  switch (error.kind) {
    case "not-signed-in":
      return "You are signed out.";
    case "out-of-stock":
      return "Somebody was faster: not all of this is left. Nothing has been ordered.";
    case "mixed-currencies":
      return "One order has one currency: please order these one after the other. Nothing has been ordered.";
    default:
      return inWords(error);
  }
}
