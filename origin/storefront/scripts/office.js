// Where administrators put in pictures of products: chosen, shown as they will be cut, sent, and given to a product.
import { ask, refusal, write } from "/assets/answers.js";
import { session } from "/assets/customer.js";
import { element } from "/assets/element.js";
import { failure, inWords, signInFirst } from "/assets/failure.js";
import { field, mend, whatIsMissing } from "/assets/fields.js";
import { upload } from "/assets/upload.js";

// As the shop itself judges, which has the last word.
const kinds = ["image/jpeg", "image/png", "image/webp"];
const largest = 10 * 2 ** 20;
const [shortest, longest] = [200, 8192];
const shown = 320; // a side of the preview, in pixels

export async function show() {
  const place = document.getElementById("office");
  try {
    place.replaceChildren(of(await session()));
  } catch (error) {
    place.replaceChildren(failure(error, show));
  }
  place.removeAttribute("aria-busy");
}

export { show as renew };

function of(user) {
  if (user === null) return signInFirst("/office", "The office is for the shop’s own people.");
  if (user.role === "administrator") return element("div", { class: "panels" }, form());
  return element("div", { class: "notice" }, element("p", {}, "The office is for the shop’s own people."), element("a", { class: "button", href: "/" }, "To the shop"));
}

function form() {
  const product = field({ name: "product", label: "Product", type: "text", list: "kept", required: true, autocomplete: "off", autocapitalize: "none", spellcheck: "false", hint: "As the address of its page ends, such as harbour-enamel-kettle" });
  const picture = field({ name: "picture", label: "Picture", type: "file", accept: kinds.join(), required: true, hint: `JPEG, PNG or WebP of 10 MB at most, from ${shortest} to ${longest} pixels a side` });
  const parts = [product, picture];
  const preview = element("canvas", { class: "preview", width: shown, height: shown, role: "img", "aria-label": "The picture as it will be cut", hidden: true });
  const bar = element("progress", { max: 1, "aria-label": "How much of the picture has been sent", hidden: true });
  const state = element("p", { class: "quiet", role: "status" });
  const told = element("p", { class: "told", role: "alert" });
  const done = element("div", { class: "done" });
  const button = element("button", { class: "button" }, "Put it in");
  const known = element("datalist", { id: "kept" });
  let sending = false;
  picture.input.addEventListener("change", look);
  product.input.value = decodeURIComponent(location.hash.slice(1));
  suggest(known);
  return element(
    "form",
    { class: "panel", novalidate: true, "aria-label": "A picture for a product", submit },
    product.node,
    known,
    picture.node,
    preview,
    bar,
    state,
    told,
    element("p", {}, button),
    done,
  );

  /** Shows what was chosen, or what is wrong with it; answers whether it will do. */
  async function look() {
    const [file] = picture.input.files;
    preview.hidden = true;
    const wrong = file ? await draw(file, preview) : "Please choose a picture.";
    if (file !== picture.input.files[0]) return look();
    preview.hidden = wrong !== null;
    picture.mark(wrong ?? "");
    return wrong === null;
  }

  async function submit(event) {
    event.preventDefault();
    if (sending) return;
    told.textContent = "";
    done.replaceChildren();
    if (mend(parts, whatIsMissing(parts))) return;
    sending = true;
    button.textContent = "One moment…";
    try {
      if (await look()) finish(await put(product.input.value.trim(), picture.input.files[0]));
      else picture.input.focus();
    } catch (error) {
      explain(error);
    }
    bar.hidden = true;
    state.textContent = "";
    button.textContent = "Put it in";
    sending = false;
  }

  async function put(slug, file) {
    const version = await versionOf(slug);
    bar.value = 0;
    bar.hidden = false;
    state.textContent = "The picture is being sent.";
    const { image, address } = await upload("/api/pictures", file, (share) => {
      bar.value = share;
      if (share === 1) state.textContent = "It is there, and being converted.";
    });
    await write("PATCH", `/api/products/${encodeURIComponent(slug)}`, { image }, { "If-Match": version });
    return { slug, address };
  }

  function finish({ slug, address }) {
    const link = element("a", { href: `/product/${encodeURIComponent(slug)}` }, slug);
    const words = element("p", { tabindex: "-1", role: "status" }, "This is the picture of ", link, " now.");
    done.replaceChildren(words, element("img", { src: address, width: shown, height: shown, alt: "" }));
    picture.input.value = "";
    preview.hidden = true;
    words.focus();
  }

  function explain(error) {
    if (error.status === 412) error.message = "Somebody has changed the product in the meantime: please try once more.";
    const errors = (error.errors ?? []).map(({ message }) => ({ field: "picture", message: `Please give ${message}.` }));
    if (error.status === 404) errors.push({ field: "product", message: "There is no such product." });
    if ([413, 415].includes(error.status)) errors.push({ field: "picture", message: inWords(error) });
    if (!mend(parts, errors)) told.textContent = inWords(error);
  }
}

/** Draws the middle of a picture, as the shop will cut it; answers what is wrong with it, or null. */
async function draw(file, canvas) {
  if (!kinds.includes(file.type)) return "Please choose a JPEG, a PNG or a WebP.";
  if (file.size > largest) return "Please choose a picture of 10 MB at most.";
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return "This is not a whole picture.";
  }
  const { width, height } = picture;
  const side = Math.min(width, height);
  if (side < shortest || Math.max(width, height) > longest) return `Please choose one from ${shortest} to ${longest} pixels a side: this one has ${width} by ${height}.`;
  const brush = canvas.getContext("2d");
  brush.fillStyle = "white";
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.drawImage(picture, (width - side) / 2, (height - side) / 2, side, side, 0, 0, canvas.width, canvas.height);
  picture.close();
  return null;
}

/** The entity tag by which a change is only made to the product as it is now. */
async function versionOf(slug) {
  const answer = await fetch(`/api/office/products/${encodeURIComponent(slug)}`, { cache: "no-store" });
  if (!answer.ok) throw await refusal(answer);
  return answer.headers.get("etag");
}

/** Offers the newest products. Without them the form is as good: it takes what is typed. */
async function suggest(known) {
  try {
    const { products } = await ask("/api/office/products?limit=100", { cache: "no-store" });
    known.append(...products.map(({ slug, name }) => element("option", { value: slug }, name)));
  } catch (error) {
    console.warn("The products could not be read:", error.message);
  }
}
