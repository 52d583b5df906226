// What every page runs: the header, and the one module this page needs. Each page's module is fetched only by the page
// that names it in <body data-page>, the suggestions only when someone turns to the search box.
import { onChange, pieces } from "/assets/cart.js";
import { categories } from "/assets/catalogue.js";
import { element } from "/assets/element.js";

const pages = {
  home: () => import("/assets/home.js"),
  category: () => import("/assets/category.js"),
  product: () => import("/assets/product.js"),
  search: () => import("/assets/category.js"),
  cart: () => import("/assets/cart-page.js"),
  account: () => import("/assets/account.js"),
  orders: () => import("/assets/orders.js"),
  office: () => import("/assets/office.js"),
};
const { page } = document.body.dataset;
if (pages[page]) {
  const module = pages[page]();
  module.then(({ show }) => show(), showLoadFailure);
  // A page that was kept alive, or stands in another window, shows whoever was signed in then.
  const renew = () => module.then(({ renew: again }) => again?.());
  addEventListener("pageshow", ({ persisted }) => persisted && renew());
  addEventListener("storage", ({ key }) => key === "session" && renew());
}
showAisles();
showOwn();
suggestOnceFocused(document.getElementById("q"));

/**
 * Fills the row of categories on the pages that come without it, because they show nothing of the catalogue; without an answer
 * the row stays empty and the page still works.
 */
async function showAisles() {
  const row = document.getElementById("aisles");
  const current = row.querySelector("[aria-current]");
  if (current) center(current, document.querySelector(".aisles"));
  if (row.children.length > 0) return;
  try {
    const list = await categories();
    row.append(...list.map(({ slug, name }) => element("li", {}, element("a", { href: `/category/${slug}` }, name))));
  } catch (error) {
    console.warn("The categories could not be read:", error.message);
  }
}

/** Not `scrollIntoView`: from there on the Tab key would go, past the link that skips the header. */
function center(link, row) {
  const [inner, outer] = [link, row].map((each) => each.getBoundingClientRect());
  row.scrollLeft += inner.left + inner.width / 2 - (outer.left + outer.width / 2);
}

/** The customer's own links: which of them is here, who is signed in, and how many pieces are in the cart. */
function showOwn() {
  const greet = () => {
    const link = document.querySelector(".own a[href='/account']");
    const name = customer();
    link.textContent = name ?? "Account";
    link.title = name === null ? "" : `Signed in as ${name}`;
  };
  greet();
  addEventListener("storage", greet);
  const here = [...document.querySelectorAll(".own a")].find(({ pathname }) => pathname === location.pathname);
  here?.setAttribute("aria-current", "page");
  const count = () => {
    const badge = document.getElementById("pieces");
    const now = pieces();
    badge.hidden = now === 0;
    badge.firstElementChild.textContent = now > 99 ? "99+" : now;
  };
  count();
  onChange(count);
}

/** Who was signed in when the shop was last asked, or null. */
function customer() {
  try {
    return localStorage.getItem("customer");
  } catch {
    return null;
  }
}

function suggestOnceFocused(box) {
  const load = () => {
    const before = box.value;
    import("/assets/suggest.js").then((module) => module.suggest(box, before), () => {});
  };
  if (document.activeElement === box) {
    load();
  } else {
    box.addEventListener("focus", load, { once: true });
  }
}

/** A module that does not arrive (a lost connection, a release between page and script) is told, not swallowed. */
function showLoadFailure(error) {
  console.warn("The page's script could not be read:", error.message);
  for (const place of document.querySelectorAll("main [aria-busy]")) {
    place.replaceChildren();
    place.removeAttribute("aria-busy");
  }
  document.getElementById("main").append(
    element("p", { class: "notice", role: "alert" }, "This page did not load completely. ", element("a", { href: location.href }, "Try again"), "."),
  );
}
