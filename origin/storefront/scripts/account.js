// Signing in, becoming a customer, signing out. The forms are made here: without this script there is none that a browser
// could send by itself, with a password in its address.
import { register, session, signIn, signOut } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords } from "/assets/failure.js";

const returns = ["/cart", "/orders"];

export async function show() {
  const place = document.getElementById("account");
  place.replaceChildren();
  try {
    const user = await session();
    place.replaceChildren(user ? welcome(user) : forms());
  } catch (error) {
    place.replaceChildren(failure(error, show));
  }
  place.removeAttribute("aria-busy");
}

function welcome(user) {
  document.getElementById("title").textContent = user.name ? `Hello, ${user.name}` : "Hello";
  const told = element("p", { class: "told", role: "alert" });
  const leave = async () => {
    told.textContent = "";
    try {
      await signOut();
      document.getElementById("account").replaceChildren(forms());
      tell("You are signed out.");
    } catch (error) {
      told.textContent = inWords(error);
    }
  };
  return element(
    "div",
    { class: "panel" },
    element("p", {}, "You are signed in as ", element("strong", {}, user.email), "."),
    told,
    element(
      "p",
      { class: "choices" },
      element("a", { class: "button", href: "/orders" }, "Your orders"),
      element("button", { class: "button plain", type: "button", click: leave }, "Sign out"),
    ),
  );
}

function forms() {
  document.getElementById("title").textContent = "Your account";
  return element(
    "div",
    { class: "panels" },
    form("Sign in", "Sign in", [email(), password("current-password")], (given) => signIn(given.email, given.password)),
    form(
      "New here?",
      "Make an account",
      [email(), field("name", "Name", "text", "name", "As we should call you, if at all"), password("new-password", "8 characters or more")],
      (given) => register(given.email, given.name, given.password),
    ),
  );
}

function email() {
  return field("email", "Email", "email", "username");
}

function password(kind, hint) {
  return field("password", "Password", "password", kind, hint);
}

let fields = 0; // made so far: two forms have an email each, and an id names one element

function field(name, label, type, autocomplete, hint = "") {
  fields += 1;
  const id = `${name}-${fields}`;
  const input = element("input", { id, name, type, autocomplete, "aria-describedby": `${id}-hint ${id}-wrong` });
  const wrong = element("span", { class: "wrong", id: `${id}-wrong` });
  const node = element("p", { class: "field" }, element("label", { for: id }, label), input, element("span", { class: "quiet", id: `${id}-hint` }, hint), wrong);
  return { name, input, node, mark };

  function mark(words) {
    wrong.textContent = words;
    if (words) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
}

function form(title, verb, parts, send) {
  const told = element("p", { class: "told", role: "alert" });
  const button = element("button", { class: "button" }, verb);
  let sending = false;
  // The shop judges what is filled in, so that there is one set of rules.
  return element("form", { class: "panel", novalidate: true, submit }, element("h2", {}, title), ...parts.map((part) => part.node), told, element("p", {}, button));

  async function submit(event) {
    event.preventDefault();
    if (sending) return;
    sending = true;
    told.textContent = "";
    parts.forEach((part) => part.mark(""));
    button.textContent = "One moment…";
    try {
      await send(Object.fromEntries(parts.map(({ name, input }) => [name, input.value])));
      if ((await session()) === null) throw new Error("The browser did not keep the session: that needs cookies, and an address with https");
      proceed();
    } catch (error) {
      explain(error);
    }
    button.textContent = verb;
    sending = false;
  }

  function explain(error) {
    const taken = error.kind === "email-taken" ? [{ field: "email", message: error.message }] : null;
    const errors = taken ?? (error.errors ?? []).map((each) => ({ ...each, message: `Please give ${each.message.replaceAll("`", "")}.` }));
    const marked = errors.filter(({ field: name, message }) => {
      const part = parts.find((each) => each.name === name);
      part?.mark(message);
      return part;
    });
    if (marked.length === 0) told.textContent = inWords(error);
    parts.find(({ input }) => input.hasAttribute("aria-invalid"))?.input.focus();
  }
}

/** Back to where signing in was asked for, or to the account. */
function proceed() {
  const next = new URLSearchParams(location.search).get("next");
  if (returns.includes(next)) return location.replace(next);
  tell("You are signed in.");
  return show();
}

function tell(words) {
  document.getElementById("told").textContent = words;
}
