// Signing in, becoming a customer, signing out. The forms are made here: without this script there is none that a browser
// could send by itself, with a password in its address.
import { changePassword, deleteAccount, forgetPassword, register, resetPassword, session, signIn, signOut } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords } from "/assets/failure.js";
import { field, mend, whatIsMissing } from "/assets/fields.js";

const returns = ["/cart", "/orders", "/office"];
const mailed = "#reset="; // what the mail's link ends with, before the token

export async function show() {
  const place = document.getElementById("account");
  const token = location.hash.startsWith(mailed) ? location.hash.slice(mailed.length) : null;
  if (token) return offerReset(place, token);
  try {
    draw(await session());
  } catch (error) {
    place.replaceChildren(failure(error, show));
  }
  place.removeAttribute("aria-busy");
}

export { show as renew };

/** For whoever comes from the mail. The token stays out of addresses that are sent anywhere, and of the history. */
function offerReset(place, token) {
  history.replaceState(null, "", location.pathname);
  document.getElementById("title").textContent = "A new password";
  const send = async ({ password }) => {
    await resetPassword(token, password);
    proceedTo(null, "Your password is changed: sign in with it");
  };
  place.replaceChildren(form("A new password", "Change it", [newPassword()], send, () => {}));
  place.removeAttribute("aria-busy");
}

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
  const panel = element(
    "div",
    { class: "panel" },
    element("p", {}, "You are signed in as ", element("strong", {}, user.email), "."),
    told,
    element(
      "p",
      { class: "choices" },
      element("a", { class: "button", href: "/orders" }, "Your orders"),
      user.role === "administrator" && element("a", { class: "button plain", href: "/office" }, "The office"),
      element("button", { class: "button plain", type: "button", click: leave }, "Sign out"),
    ),
  );
  const current = () => field({ name: "current", label: "Current password", type: "password", autocomplete: "current-password", required: true });
  const change = form("Another password", "Change the password", [current(), newPassword()], (given) => changePassword(given.current, given.password));
  const end = form(
    "The end of this account",
    "Delete the account",
    [current()],
    async (given) => {
      await deleteAccount(given.current);
      proceedTo(null, "Your account is deleted");
    },
    () => {},
  );
  end.prepend(element("p", { class: "quiet" }, "Your orders stay with the shop, without your name."));
  return element("div", {}, panel, element("div", { class: "panels" }, change, end));
}

function newPassword() {
  return field({ name: "password", label: "New password", type: "password", autocomplete: "new-password", required: true, minlength: 8, hint: "8 characters or more" });
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
    form(
      "Forgotten?",
      "Send me a mail",
      [email()],
      async (given) => {
        await forgetPassword(given.email);
        proceedTo(null, "If there is such an account, it has mail now");
      },
      () => {},
    ),
  );
}

/** A form that sends what was given and then does what is to be `done`: by default, show who is signed in. */
function form(title, verb, parts, send, done = arrive) {
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
      // The button goes on saying "One moment…" until the other page is there.
      if (await done()) return;
    } catch (error) {
      explain(error);
    }
    button.textContent = verb;
    sending = false;
  }

  function explain(error) {
    const taken = error.kind === "email-taken" ? [{ field: "email", message: `${error.message}.` }] : null;
    const errors = taken ?? (error.errors ?? []).map((each) => ({ ...each, message: `Please give ${each.message.replaceAll("`", "")}.` }));
    if (mend(parts, errors.map((each) => (each.field === "new" ? { ...each, field: "password" } : each)))) return;
    told.textContent = inWords(error);
    parts.find(({ input }) => input.type === "password")?.input.select();
  }
}

/** After signing in: where the customer wanted to go, if it was elsewhere; answers whether they are on their way. */
async function arrive() {
  const user = await session();
  if (user === null) throw new Error("The browser did not keep the session: that needs cookies, and an address with https");
  const next = new URLSearchParams(location.search).get("next");
  if (returns.includes(next)) {
    location.replace(next);
    return true;
  }
  proceedTo(user);
  return false;
}
