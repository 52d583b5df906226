// Signing in, becoming a customer, signing out. The forms are made here: without this script there is none that a browser
// could send by itself, with a password in its address.
import { register, session, signIn, signOut } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords } from "/assets/failure.js";
import { field, mend, whatIsMissing } from "/assets/fields.js";

const returns = ["/cart", "/orders"];

export async function show() {
  const place = document.getElementById("account");
  try {
    draw(await session());
  } catch (error) {
    place.replaceChildren(failure(error, show));
  }
  place.removeAttribute("aria-busy");
}

export { show as renew };

function draw(user, heading = user ? greeting(user) : "Your account") {
  document.getElementById("title").textContent = heading;
  document.getElementById("account").replaceChildren(user ? welcome(user) : forms());
}

/** The same after something the customer did: what had the focus is gone, so the heading takes it, and is read out. */
function proceedTo(user, heading) {
  draw(user, heading);
  document.getElementById("title").focus({ preventScroll: true });
}

function greeting({ name }) {
  return name ? `Hello, ${name}` : "Hello";
}

function welcome(user) {
  const told = element("p", { class: "told", role: "alert" });
  const leave = async () => {
    told.textContent = "";
    try {
      await signOut();
      proceedTo(null, "You are signed out");
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
  const email = () => field({ name: "email", label: "Email", type: "email", autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true });
  const password = (members) => field({ name: "password", label: "Password", type: "password", required: true, ...members });
  return element(
    "div",
    { class: "panels" },
    form("Sign in", "Sign in", [email(), password({ autocomplete: "current-password" })], (given) => signIn(given.email, given.password)),
    form(
      "New here?",
      "Make an account",
      [
        email(),
        field({ name: "name", label: "Name", type: "text", autocomplete: "name", hint: "As we should call you, if at all" }),
        password({ autocomplete: "new-password", minlength: 8, hint: "8 characters or more" }),
      ],
      (given) => register(given.email, given.name, given.password),
    ),
  );
}

function form(title, verb, parts, send) {
  const told = element("p", { class: "told", role: "alert" });
  const button = element("button", { class: "button" }, verb);
  let sending = false;
  return element(
    "form",
    { class: "panel", novalidate: true, "aria-label": title, submit },
    element("h2", {}, title),
    ...parts.map((part) => part.node),
    told,
    element("p", {}, button),
  );

  async function submit(event) {
    event.preventDefault();
    if (sending) return;
    told.textContent = "";
    if (mend(parts, whatIsMissing(parts))) return;
    sending = true;
    button.textContent = "One moment…";
    try {
      await send(Object.fromEntries(parts.map(({ name, input }) => [name, input.value])));
      const user = await session();
      if (user === null) throw new Error("The browser did not keep the session: that needs cookies, and an address with https");
      const next = new URLSearchParams(location.search).get("next");
      // The button goes on saying "One moment…" until the other page is there.
      if (returns.includes(next)) return location.replace(next);
      proceedTo(user);
    } catch (error) {
      explain(error);
    }
    button.textContent = verb;
    sending = false;
  }

  function explain(error) {
    const taken = error.kind === "email-taken" ? [{ field: "email", message: `${error.message}.` }] : null;
    const errors = taken ?? (error.errors ?? []).map((each) => ({ ...each, message: `Please give ${each.message.replaceAll("`", "")}.` }));
    if (mend(parts, errors)) return;
    told.textContent = inWords(error);
    parts.find(({ name }) => name === "password").input.select();
  }
}
