//! The shop people see: its pages, scripts, styles and pictures, embedded in the binary.
//!
//! Owns everything under `storefront/`, and the addresses `/cart`, `/account`, `/orders`, `/office` and `/assets/*`. Pages that show the
//! catalogue are rendered here ([`render`]) from what the origin hands over, which owns their addresses.
//! Promises that an asset's name changes when its content or anything it refers to changes, so assets may be kept for
//! a year and pages are always revalidated; that no page needs inline script or style; that a reference to a file that is
//! not there stops the origin at its start (and a test before that), never a visitor.
//! Must never touch the database nor look at who asks: pages are the same for everybody. There is one template of whatever is
//! shown, in `pages/`: scripts make nothing of the catalogue themselves, they wake what came with the page.
//!
//! In every file an asset is written `/assets/NAME`, whether in a template, in CSS or as a JavaScript specifier; that literal is
//! what gets the hash. Nothing else is parsed, so nothing else can be misread.

mod words;

use std::{collections::HashMap, sync::LazyLock};

use axum::{
    Router,
    body::Body,
    extract::{Path, rejection::PathRejection},
    response::Response,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The storefront's routes. Its fallback is the HTML page for unknown paths, so the router it is merged into has none.
///
/// # Panics
/// When the embedded files do not fit together, with the file and the reason.
pub fn router() -> Router {
    LazyLock::force(&STOREFRONT);
    Router::new()
        .route("/cart", shell("cart"))
        .route("/account", shell("account"))
        .route("/orders", shell("orders"))
        .route("/office", shell("office"))
        .route("/assets/{name}", get(asset))
        .fallback(async || not_found(StatusCode::NOT_FOUND))
}

/// The page of a template, `pages/<name>.html`, with what it shows.
///
/// # Errors
/// A template asks for something that is not in `shown`: a mistake in the source tree.
pub fn render(name: &str, shown: impl Serialize) -> Result<String, FlawedTemplate> {
    STOREFRONT.templates.page(name, Value::from_serialize(shown))
}

/// The page that says that there is none, with 404, or 410 for what has been here.
pub fn not_found(status: StatusCode) -> Response {
    STOREFRONT.page("not-found").answer(status, DO_NOT_STORE, &HeaderMap::new())
}

/// The page that asks to try again.
pub fn unavailable(status: StatusCode) -> Response {
    STOREFRONT.page("unavailable").answer(status, DO_NOT_STORE, &HeaderMap::new())
}

/// What every page says of itself beside how it may be kept.
pub fn page_fields() -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let fixed = [(header::CONTENT_TYPE, HTML), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    fixed.into_iter().chain(PAGE_PROTECTION).map(|(name, value)| (name, HeaderValue::from_static(value)))
}

/// A short text that differs when anything of a rendered page differs but what it is rendered from: templates, and the addresses
/// of what they refer to.
pub fn pages_fingerprint() -> &'static str {
    &STOREFRONT.templates.hash
}

/// The address of a picture by the stem the database holds: `kettle-1` is `/assets/kettle-1-3f2a9c01ab.webp`.
pub fn image_url(stem: &str) -> Option<&'static str> {
    STOREFRONT.images.get(stem).map(String::as_str)
}

/// Every stem that [`image_url`] knows, sorted.
pub fn image_stems() -> Vec<&'static str> {
    let mut stems: Vec<&str> = STOREFRONT.images.keys().copied().collect();
    stems.sort_unstable();
    stems
}

/// A short text that differs when any address of [`image_url`] differs, for the entity tags of answers that carry them.
/// A changed page or script leaves it as it is, so a release that only moves a button keeps every cached API answer valid.
pub fn fingerprint() -> &'static str {
    &STOREFRONT.images_hash
}

/// Whether this can be the slug of a product or a category: lower-case words joined by single hyphens. The schema's checks
/// allow nothing else.
pub fn is_slug(text: &str) -> bool {
    text.len() <= LONGEST_SLUG
        && text.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        })
}

/// A page with one address.
fn shell(page: &'static str) -> MethodRouter {
    get(move |request: HeaderMap| async move { STOREFRONT.page(page).answer(StatusCode::OK, PAGE, &request) })
}

async fn asset(name: Result<Path<String>, PathRejection>, request: HeaderMap) -> Response {
    match name.ok().and_then(|Path(name)| STOREFRONT.assets.get(&name)) {
        Some(found) => found.answer(StatusCode::OK, FOR_A_YEAR, &request),
        // An old page may ask for a name of an earlier release: that answer must not outlive the moment.
        None => plain_not_found(),
    }
}

fn plain_not_found() -> Response {
    let mut response = Response::new(Body::from("There is no such file.\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    head.insert(header::CACHE_CONTROL, DO_NOT_STORE);
    head.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Something that can be sent as it is.
struct Representation {
    content_type: &'static str,
    etag: HeaderValue,
    body: Bytes,
}

impl Representation {
    fn new(content_type: &'static str, body: Bytes) -> Self {
        let etag = HeaderValue::try_from(format!("\"{}\"", content_hash(&body)))
            .expect("quotes and hexadecimal digits are allowed in a header value");
        Self { content_type, etag, body }
    }

    /// The whole answer, or 304 when a 200 would only repeat what the client has (RFC 9110 §13.1.2, §15.4.5).
    fn answer(&self, status: StatusCode, cache_control: HeaderValue, request: &HeaderMap) -> Response {
        let unchanged = status == StatusCode::OK && self.is_known_to(request);
        let mut response =
            Response::new(if unchanged { Body::empty() } else { Body::from(self.body.clone()) });
        *response.status_mut() = if unchanged { StatusCode::NOT_MODIFIED } else { status };
        let head = response.headers_mut();
        head.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        head.insert(header::CACHE_CONTROL, cache_control);
        if status == StatusCode::OK {
            head.insert(header::ETAG, self.etag.clone());
        }
        head.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.content_type == HTML {
            page_fields().for_each(|(name, value)| drop(head.insert(name, value)));
        }
        response
    }

    /// Weak comparison, as If-None-Match asks for (RFC 9110 §13.1.2): a tag that the edge weakened still matches.
    fn is_known_to(&self, request: &HeaderMap) -> bool {
        request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.etag.as_bytes())
    }
}

/// Everything that is served, assembled once from the embedded files.
struct Storefront {
    /// Those that are the same whatever the catalogue holds, by name.
    pages: HashMap<&'static str, Representation>,
    templates: Templates,
    /// By name with hash.
    assets: HashMap<String, Representation>,
    /// Addresses of the WebP pictures by stem.
    images: HashMap<&'static str, String>,
    images_hash: String,
}

impl Storefront {
    fn assemble(files: &[File]) -> Result<Self, FlawedStorefront> {
        let mut naming = Naming::of(files)?;
        let names: Vec<&str> = naming.sources.keys().copied().collect();
        for name in &names {
            naming.address(name)?;
        }
        let images: HashMap<_, _> = names
            .iter()
            .filter_map(|name| Some((name.strip_suffix(".webp")?, naming.addresses[name].clone())))
            .filter(|(stem, _)| !stem.contains('.'))
            .collect();
        let mut addresses: Vec<&str> = images.values().map(String::as_str).collect();
        addresses.sort_unstable();
        let images_hash = content_hash(addresses.concat().as_bytes());
        let templates = Templates::of(files, &mut naming)?;
        let mut pages = HashMap::new();
        for Page { name, .. } in PAGES.iter().filter(|page| page.always_the_same) {
            let html = templates.page(name, Value::UNDEFINED)?;
            pages.insert(*name, Representation::new(HTML, html.into()));
        }
        Ok(Self { pages, templates, assets: naming.assets, images, images_hash })
    }

    fn page(&self, name: &str) -> &Representation {
        self.pages.get(name).expect("handlers name pages of PAGES, and each of those is assembled")
    }
}

/// The pages as templates, with the addresses of what they refer to written in.
struct Templates {
    environment: Environment<'static>,
    /// By page, the addresses of the modules that it preloads.
    modules: HashMap<&'static str, Vec<String>>,
    hash: String,
}

impl Templates {
    fn of(files: &[File], naming: &mut Naming) -> Result<Self, FlawedStorefront> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_formatter(words::escape);
        words::teach(&mut environment, Pictures::of(naming));
        let mut digest = Sha256::new();
        for (path, bytes) in files {
            let Some(name) = path.strip_prefix("pages/") else { continue };
            let text = std::str::from_utf8(bytes).map_err(|_| FlawedStorefront::NotText(path))?;
            let text = rewrite(text, |asset| naming.address(asset))?;
            digest.update(text.as_bytes());
            environment.add_template_owned(name, text).map_err(FlawedTemplate)?;
        }
        let mut modules = HashMap::new();
        for Page { name, script, .. } in PAGES {
            let closure = naming.static_closure(script.iter().copied().chain(["shop.js"]))?;
            let addresses: Result<Vec<_>, _> =
                closure.into_iter().map(|module| naming.address(module)).collect();
            let addresses = addresses?;
            addresses.iter().for_each(|address| digest.update(address.as_bytes()));
            modules.insert(*name, addresses);
        }
        let hash = hexadecimal(&digest.finalize());
        Ok(Self { environment, modules, hash })
    }

    fn page(&self, name: &str, shown: Value) -> Result<String, FlawedTemplate> {
        let template = self.environment.get_template(&format!("{name}.html"))?;
        let unless_shown = context! { words => "", here => "", site => "", aisles => Vec::<()>::new() };
        let shown = if shown.is_undefined() {
            context! {}
        } else {
            shown
        };
        let modules = self.modules.get(name).map_or(&[][..], Vec::as_slice);
        Ok(template.render(context! { page => name, modules, ..context! { ..shown, ..unless_shown } })?)
    }
}

/// The pictures in all their sizes: for the address of the largest, the `srcset`.
struct Pictures(HashMap<String, String>);

impl Pictures {
    fn of(naming: &Naming) -> Self {
        let set = |stem: &str, largest: &str| {
            let narrower = NARROWER.iter().filter_map(|width| {
                let address = naming.addresses.get(format!("{stem}.{width}.webp").as_str())?;
                Some(format!("{address} {width}w, "))
            });
            let narrower: String = narrower.collect();
            (!narrower.is_empty()).then(|| format!("{narrower}{largest} {WIDEST}w"))
        };
        let all = naming.addresses.iter().filter_map(|(name, address)| {
            Some((address.clone(), set(name.strip_suffix(".webp")?, address)?))
        });
        Self(all.collect())
    }
}

/// Gives each asset its address, what it refers to first, so that a new leaf renames all that lead to it.
struct Naming {
    sources: HashMap<&'static str, &'static [u8]>,
    addresses: HashMap<&'static str, String>,
    assets: HashMap<String, Representation>,
    /// The assets being named, from the first to the one referred to last.
    path: Vec<&'static str>,
}

impl Naming {
    fn of(files: &[File]) -> Result<Self, FlawedStorefront> {
        let mut sources = HashMap::new();
        for (path, bytes) in files.iter().filter(|(path, _)| !path.starts_with("pages/")) {
            let name = path.rsplit('/').next().unwrap_or(path);
            if sources.insert(name, *bytes).is_some() {
                return Err(FlawedStorefront::NameTaken(name));
            }
        }
        Ok(Self { sources, addresses: HashMap::new(), assets: HashMap::new(), path: Vec::new() })
    }

    fn address(&mut self, name: &str) -> Result<String, FlawedStorefront> {
        if let Some(address) = self.addresses.get(name) {
            return Ok(address.clone());
        }
        let (&name, &bytes) =
            self.sources.get_key_value(name).ok_or_else(|| FlawedStorefront::NoSuchAsset(name.to_owned()))?;
        if self.path.contains(&name) {
            return Err(FlawedStorefront::Circular(name));
        }
        let (stem, extension) = name.rsplit_once('.').ok_or(FlawedStorefront::UnknownType(name))?;
        let content_type = content_type(extension).ok_or(FlawedStorefront::UnknownType(name))?;
        let body = if matches!(extension, "js" | "css") {
            let text = std::str::from_utf8(bytes).map_err(|_| FlawedStorefront::NotText(name))?;
            self.path.push(name);
            let text = rewrite(text, |asset| self.address(asset))?;
            self.path.pop();
            Bytes::from(text)
        } else {
            Bytes::from_static(bytes)
        };
        let hashed = format!("{stem}-{}.{extension}", content_hash(&body));
        let address = format!("/assets/{hashed}");
        self.assets.insert(hashed, Representation::new(content_type, body));
        self.addresses.insert(name, address.clone());
        Ok(address)
    }

    /// The modules that these need before they can run, themselves included: what a page preloads, so that a chain of
    /// imports costs one round trip. Dynamic imports are left out; they wait until they are wanted.
    fn static_closure(
        &self,
        modules: impl Iterator<Item = &'static str>,
    ) -> Result<Vec<&'static str>, FlawedStorefront> {
        let mut waiting: Vec<&str> = modules.collect();
        let mut found = Vec::new();
        while let Some(module) = waiting.pop() {
            if !found.contains(&module) {
                let missing = || FlawedStorefront::NoSuchAsset(module.to_owned());
                let source = self.sources.get(module).ok_or_else(missing)?;
                let source = std::str::from_utf8(source).map_err(|_| FlawedStorefront::NotText(module))?;
                found.push(module);
                waiting.extend(
                    source.split("from \"/assets/").skip(1).filter_map(|rest| rest.split('"').next()),
                );
            }
        }
        Ok(found)
    }
}

/// Replaces each `/assets/NAME` with the address that `address` gives for NAME.
fn rewrite(
    text: &str,
    mut address: impl FnMut(&str) -> Result<String, FlawedStorefront>,
) -> Result<String, FlawedStorefront> {
    let mut parts = text.split("/assets/");
    let mut rewritten = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c)).unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        rewritten += &address(name)?;
        rewritten += rest;
    }
    Ok(rewritten)
}

/// The first 40 bits of the content's SHA-256, in hexadecimal.
fn content_hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

fn content_type(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "jpg" => "image/jpeg",
        "png" => "image/png",
        _ => return None,
    })
}

/// Why the embedded files cannot be served. Every case is a mistake in the source tree.
#[derive(Debug, thiserror::Error)]
enum FlawedStorefront {
    #[error("a file refers to /assets/{0}, which is not in storefront/")]
    NoSuchAsset(String),
    #[error("{0} exists in two folders; assets share one flat folder when served")]
    NameTaken(&'static str),
    #[error("{0} refers to itself by way of others, so its content hash cannot be computed")]
    Circular(&'static str),
    #[error("{0} has no extension with a known content type")]
    UnknownType(&'static str),
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    #[error(transparent)]
    Template(#[from] FlawedTemplate),
}

/// A template that cannot be read, or asks for what nobody gave it.
#[derive(Debug, thiserror::Error)]
#[error("a page's template: {0:#}")]
pub struct FlawedTemplate(#[from] minijinja::Error);

/// A page: the template `pages/<name>.html`, and the module it runs besides `shop.js`.
struct Page {
    name: &'static str,
    script: Option<&'static str>,
    /// Nothing of the catalogue is in it: it is rendered once.
    always_the_same: bool,
}

const PAGES: &[Page] = &[
    Page { name: "home", script: Some("home.js"), always_the_same: false },
    Page { name: "category", script: Some("category.js"), always_the_same: false },
    Page { name: "product", script: Some("product.js"), always_the_same: false },
    Page { name: "search", script: Some("category.js"), always_the_same: false },
    Page { name: "cart", script: Some("cart-page.js"), always_the_same: true },
    Page { name: "account", script: Some("account.js"), always_the_same: true },
    Page { name: "orders", script: Some("orders.js"), always_the_same: true },
    Page { name: "office", script: Some("office.js"), always_the_same: true },
    Page { name: "not-found", script: None, always_the_same: true },
    Page { name: "unavailable", script: None, always_the_same: true },
];

/// The width of a picture as it is, and those of its smaller copies, `<stem>.<width>.webp`.
const WIDEST: u32 = 640;
const NARROWER: [u32; 2] = [160, 320];

/// A path below `storefront/` and the bytes there.
type File = (&'static str, &'static [u8]);

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

static STOREFRONT: LazyLock<Storefront> =
    LazyLock::new(|| Storefront::assemble(FILES).expect("a unit test assembles these very files"));

const LONGEST_SLUG: usize = 120;
const HTML: &str = "text/html; charset=utf-8";
/// Browsers ask each time. A shared cache keeps a page until it is purged, as the storefront is when an origin starts, and
/// shows it while the origin is away: `no-cache` would forbid that.
pub const PAGE: HeaderValue =
    HeaderValue::from_static("public, max-age=0, s-maxage=600, stale-if-error=86400");
const FOR_A_YEAR: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const DO_NOT_STORE: HeaderValue = HeaderValue::from_static("no-store");

const PAGE_PROTECTION: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        // Trusted Types: the scripts build nodes and never parse HTML, so no policy is ever needed.
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
];

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: Method, path: &str, if_none_match: Option<&HeaderValue>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(tag) = if_none_match {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn read(path: &str) -> (Response<()>, String) {
        let (head, body) = ask(Method::GET, path, None).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(head, ()), String::from_utf8_lossy(&body).into_owned())
    }

    /// A page with an aisle and a shelf of products, whose words try to be markup.
    fn shown(name: &str) -> String {
        let product = |image: Option<&str>| {
            context! {
                id => 7, slug => "red-kettle", name => "A \"Red\" <Kettle> & 'lid'", image, price_cents => 123_450,
                currency => "EUR", in_stock => true, category => "kitchen", category_name => "Kitchen",
                description => "One.\n</script><b>Two</b>.",
            }
        };
        let listing = context! {
            path => "/category/kitchen", kept => context! { price => "25-50" }, narrowed => true, or_more => false,
            next => "/next",
            sorts => [context! { name => "newest", words => "Newest first", chosen => true }],
            filters => [context! { words => "In stock", chosen => false, count => 1_234, address => "/?stock=in" }],
        };
        let aisle = context! { slug => "kitchen", name => "Kitchen", product_count => 1_234 };
        let page = context! {
            site => "https://shop.example", here => "kitchen", aisles => vec![aisle.clone()], category => aisle, count => 1_234,
            words => "", products => [product(image_url("kettle-1")), product(None)], product => product(None), listing,
        };
        STOREFRONT.templates.page(name, page).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What stands between `<script type="application/ld+json">` and its end.
    fn linked_data(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once("<script type=\"application/ld+json\">").unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn pages_that_show_the_catalogue_say_what_they_are_to_machines() {
        for (name, path) in
            [("home", "/"), ("category", "/category/kitchen"), ("product", "/product/red-kettle")]
        {
            let page = shown(name);
            for told in [
                format!("<link rel=\"canonical\" href=\"https://shop.example{path}\">"),
                format!("<meta property=\"og:url\" content=\"https://shop.example{path}\">"),
                "<meta name=\"description\" content=\"".to_owned(),
                "<meta property=\"og:title\"".to_owned(),
                "<meta property=\"og:type\"".to_owned(),
            ] {
                assert!(page.contains(&told), "{name} lacks {told}:\n{page}");
            }
            assert_eq!(page.matches("<title>").count(), 1, "{name}");
        }
        let product = &linked_data(&shown("product"))[0];
        assert_eq!(product["name"], "A \"Red\" <Kettle> & 'lid'");
        assert_eq!(
            (&product["offers"]["price"], &product["offers"]["priceCurrency"]),
            (&"1234.50".into(), &"EUR".into())
        );
        assert_eq!(product["offers"]["availability"], "https://schema.org/InStock");
        assert_eq!(linked_data(&shown("category"))["itemListElement"][1]["name"], "Kitchen");
    }

    #[test]
    fn the_words_of_a_product_are_never_markup() {
        for name in ["home", "category", "product", "search"] {
            let page = shown(name);
            assert!(!page.contains("<Kettle>") && !page.contains("<b>Two"), "{name}:\n{page}");
            assert!(
                page.contains("€1,234.50")
                    && page.contains("A &quot;Red&quot; &lt;Kettle&gt; &amp; &#x27;lid&#x27;")
            );
            for inline in ["<style", " style=", " onclick=", " onload=", "<script>", "javascript:"] {
                assert!(!page.contains(inline), "{name} holds {inline}");
            }
        }
        let page = shown("category");
        let (_, line) = page.split_once("data-item='").unwrap();
        let line: serde_json::Value = serde_json::from_str(line.split_once('\'').unwrap().0).unwrap();
        assert_eq!((&line["id"], &line["name"]), (&7.into(), &"A \"Red\" <Kettle> & 'lid'".into()));
    }

    #[test]
    fn the_first_picture_of_a_shelf_comes_first_and_those_below_wait() {
        let [category, home] = ["category", "home"].map(shown);
        let shelf = |page: &str| page.split_once("class=\"grid\"").unwrap().1.to_owned();
        assert_eq!(shelf(&category).matches("fetchpriority=\"high\"").count(), 1);
        assert_eq!(shelf(&category).matches("loading=\"lazy\"").count(), 0, "both are in view");
        assert_eq!(shelf(&home).matches("loading=\"lazy\"").count(), 2, "the shelf is below the hero");
        assert_eq!(shelf(&home).matches(" width=\"640\" height=\"640\"").count(), 2);
        assert!(shelf(&home).contains(" 320w, ") && shelf(&home).contains("/assets/placeholder-"), "{home}");
    }

    fn references(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        rewrite(text, |name| {
            found.push(name.to_owned());
            Ok(String::new())
        })
        .unwrap();
        found
    }

    fn assemble_with(path: &str, content: &'static [u8]) -> Result<Storefront, FlawedStorefront> {
        let mut files: Vec<File> = FILES.iter().copied().filter(|(other, _)| *other != path).collect();
        files.push((path.to_owned().leak(), content));
        Storefront::assemble(&files)
    }

    fn named<'a>(storefront: &'a Storefront, stem: &str, extension: &str) -> &'a str {
        let mut found = storefront.assets.keys().filter(|name| {
            let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
            rest.and_then(|rest| rest.strip_suffix(extension)).is_some_and(|hash| hash.len() == 10)
        });
        found.next().unwrap_or_else(|| panic!("no asset {stem}{extension}"))
    }

    #[tokio::test]
    async fn every_reference_of_every_page_and_asset_resolves() {
        let assets = STOREFRONT.assets.values().filter(|each| each.content_type.starts_with("text/"));
        let assets = assets.map(|each| String::from_utf8(each.body.to_vec()).unwrap());
        let pages = PAGES.iter().map(|page| shown(page.name));
        let names: Vec<_> = pages.chain(assets).flat_map(|text| references(&text)).collect();
        assert!(names.len() > 30, "{names:?}");
        for name in names {
            let answer = ask(Method::GET, &format!("/assets/{name}"), None).await;
            assert_eq!(answer.status(), StatusCode::OK, "{name}");
        }
    }

    #[tokio::test]
    async fn pages_are_revalidated_and_allow_nothing_inline() {
        for path in ["/cart", "/account?next=/cart", "/orders", "/no/such/page"] {
            let (answer, html) = read(path).await;
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'self';") && !policy.contains("unsafe"),
                "{path}: {policy}"
            );
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            assert_eq!(answer.headers()[header::CONTENT_TYPE], HTML, "{path}");
            for inline in ["<style", " style=", " onclick=", " onload=", "<script>", "javascript:"] {
                assert!(!html.contains(inline), "{path} holds {inline}");
            }
            let known = path != "/no/such/page";
            assert_eq!(answer.status(), if known { StatusCode::OK } else { StatusCode::NOT_FOUND }, "{path}");
            let control = &answer.headers()[header::CACHE_CONTROL];
            assert_eq!(*control, if known { PAGE } else { DO_NOT_STORE }, "{path}");
            assert!(!answer.headers().contains_key(header::LAST_MODIFIED));
        }
    }

    #[tokio::test]
    async fn no_page_depends_on_who_asks() {
        for path in ["/cart", "/account", "/orders"] {
            let stranger = ask(Method::GET, path, None).await;
            let request = Request::builder().uri(path).header(header::COOKIE, "__Host-session=AAAA");
            let customer = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(stranger.headers(), customer.headers(), "{path}");
            assert!(!customer.headers().contains_key(header::SET_COOKIE), "{path}");
            let [one, other] = [stranger, customer].map(|answer| to_bytes(answer.into_body(), usize::MAX));
            assert_eq!(one.await.unwrap(), other.await.unwrap(), "{path}");
        }
    }

    #[test]
    fn no_page_holds_a_form_that_could_send_a_password_in_its_address() {
        for (name, page) in &STOREFRONT.pages {
            assert!(!std::str::from_utf8(&page.body).unwrap().contains("type=\"password\""), "{name}");
        }
    }

    #[tokio::test]
    async fn what_the_client_has_is_answered_304_with_its_tag() {
        let script = format!("/assets/{}", named(&STOREFRONT, "shop", ".js"));
        for path in ["/cart", script.as_str()] {
            let first = ask(Method::GET, path, None).await;
            let tag = first.headers()[header::ETAG].clone();
            let weakened = HeaderValue::try_from(format!("\"other\", W/{}", tag.to_str().unwrap())).unwrap();
            for held in [&tag, &weakened, &HeaderValue::from_static("*")] {
                let again = ask(Method::GET, path, Some(held)).await;
                assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path} {held:?}");
                assert_eq!(again.headers()[header::ETAG], tag);
                assert_eq!(again.headers()[header::CACHE_CONTROL], first.headers()[header::CACHE_CONTROL]);
                assert!(to_bytes(again.into_body(), 1).await.unwrap().is_empty());
            }
            let other = ask(Method::GET, path, Some(&HeaderValue::from_static("\"other\""))).await;
            assert_eq!(other.status(), StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn assets_are_kept_for_a_year_and_missing_ones_not_at_all() {
        for (stem, extension, kind) in [
            ("shop", ".js", "text/javascript; charset=utf-8"),
            ("shop", ".css", "text/css; charset=utf-8"),
            ("favicon", ".svg", "image/svg+xml"),
            ("kettle-1", ".webp", "image/webp"),
        ] {
            let answer =
                ask(Method::GET, &format!("/assets/{}", named(&STOREFRONT, stem, extension)), None).await;
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind);
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
        for path in ["/assets/shop.js", "/assets/shop-0000000000.js", "/assets/%ff", "/assets/%2e%2e%2fpages"]
        {
            let answer = ask(Method::GET, path, None).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{path}");
        }
    }

    #[tokio::test]
    async fn head_tells_the_length_and_sends_no_body() {
        let path = image_url("kettle-1").unwrap();
        let length = STOREFRONT.assets[path.strip_prefix("/assets/").unwrap()].body.len();
        let answer = ask(Method::HEAD, path, None).await;
        assert_eq!(answer.headers()[header::CONTENT_LENGTH], length.to_string());
        assert!(to_bytes(answer.into_body(), 1).await.unwrap().is_empty());
    }

    #[test]
    fn slugs_are_lower_case_words_joined_by_single_hyphens() {
        assert!(is_slug("enamel-kettle-2"));
        for wrong in ["", "-a", "a-", "a--b", "A", "ä", "a b", "a\0"] {
            assert!(!is_slug(wrong), "{wrong:?}");
        }
        assert!(!is_slug(&"a".repeat(LONGEST_SLUG + 1)));
    }

    #[test]
    fn a_changed_leaf_renames_its_importers_and_the_pages_but_nothing_else() {
        let changed = assemble_with(
            "scripts/numbers.js",
            b"export const price = () => \"free\", productCount = String;",
        )
        .unwrap();
        for stem in ["numbers", "orders", "cart-page", "suggest", "shop"] {
            assert_ne!(named(&changed, stem, ".js"), named(&STOREFRONT, stem, ".js"), "{stem}");
        }
        for stem in ["element", "catalogue", "shelf", "checkout"] {
            assert_eq!(named(&changed, stem, ".js"), named(&STOREFRONT, stem, ".js"), "{stem}");
        }
        assert_ne!(changed.templates.hash, STOREFRONT.templates.hash);
        assert_eq!(changed.images_hash, STOREFRONT.images_hash);
    }

    #[test]
    fn a_changed_picture_changes_its_address_and_the_fingerprint() {
        let changed = assemble_with("images/kettle-1.webp", b"another kettle").unwrap();
        assert_ne!(changed.images["kettle-1"], STOREFRONT.images["kettle-1"]);
        assert_eq!(changed.images["kettle-2"], STOREFRONT.images["kettle-2"]);
        assert_ne!(changed.images_hash, fingerprint());
    }

    #[test]
    fn a_flawed_tree_is_refused_with_its_reason() {
        let reason = |path, content| assemble_with(path, content).err().expect("refused").to_string();
        assert!(reason("scripts/numbers.js", b"import \"/assets/gone.js\"").contains("/assets/gone.js"));
        assert!(reason("scripts/numbers.js", b"import \"/assets/suggest.js\"").contains("refers to itself"));
        assert!(reason("styles/shop.js", b"").contains("two folders"));
        assert!(reason("images/notes.xyz", b"").contains("content type"));
        assert!(reason("scripts/numbers.js", b"\xff").contains("not UTF-8"));
        assert!(reason("pages/cart.html", b"{% block %}").contains("a page's template"));
        assert!(reason("pages/cart.html", b"{{ nobody_gave_it }}").contains("undefined"));
    }

    #[test]
    fn page_modules_are_imported_on_demand_and_preloaded_only_where_they_run() {
        let shop = &STOREFRONT.assets[named(&STOREFRONT, "shop", ".js")].body;
        let shop = std::str::from_utf8(shop).unwrap();
        for stem in ["home", "category", "product", "cart-page", "account", "orders", "suggest"] {
            assert!(
                shop.contains(&format!("import(\"/assets/{}\")", named(&STOREFRONT, stem, ".js"))),
                "{stem}"
            );
        }
        let preloads = |page, stem| {
            let link = format!("modulepreload\" href=\"/assets/{}\"", named(&STOREFRONT, stem, ".js"));
            shown(page).contains(&link)
        };
        for stem in ["shop", "home", "shelf", "reading"] {
            assert!(preloads("home", stem), "{stem}");
        }
        for stem in ["product", "suggest", "customer", "checkout", "buy", "fields", "numbers"] {
            assert!(!preloads("home", stem), "{stem}");
        }
        for (page, stems) in
            [("cart", ["cart-page", "checkout", "customer"]), ("account", ["account", "fields", "customer"])]
        {
            for stem in stems {
                assert!(preloads(page, stem), "{page}: {stem}");
            }
        }
    }

    #[test]
    fn the_first_load_of_any_page_is_well_under_500_kb() {
        // Uncompressed, and as if every picture of a page came at once: what its text refers to, and the twelve largest
        // pictures for the products it shows.
        let mut pictures: Vec<_> = STOREFRONT
            .assets
            .values()
            .filter(|each| each.content_type == "image/webp")
            .map(|each| each.body.len())
            .collect();
        pictures.sort_unstable();
        let products: usize = pictures.iter().rev().take(12).sum();
        for Page { name, .. } in PAGES {
            let page = shown(name);
            let mut waiting = references(&page);
            let mut seen: Vec<String> = Vec::new();
            let mut total = page.len() + products;
            while let Some(asset) = waiting.pop() {
                if !seen.contains(&asset) {
                    let found = &STOREFRONT.assets[&asset];
                    total += found.body.len();
                    if found.content_type.starts_with("text/") {
                        waiting.extend(references(std::str::from_utf8(&found.body).unwrap()));
                    }
                    seen.push(asset);
                }
            }
            assert!(total < 350_000, "{name}: {total} bytes");
        }
    }

    #[test]
    fn every_picture_is_there_in_three_sizes_each_smaller_than_the_next() {
        // Those of earlier releases' databases, and one for each kind of thing in each material.
        assert_eq!(STOREFRONT.images.len(), 48 + 144);
        let size = |address: &str| STOREFRONT.assets[address.strip_prefix("/assets/").unwrap()].body.len();
        let mut naming = Naming::of(FILES).unwrap();
        for stem in STOREFRONT.images.keys() {
            let address = |name: String, naming: &mut Naming| size(&naming.address(&name).unwrap());
            let [small, middle, large] =
                [format!("{stem}.160.webp"), format!("{stem}.320.webp"), format!("{stem}.webp")]
                    .map(|name| address(name, &mut naming));
            assert!(small < middle && middle < large && large < 16_000, "{stem}: {small} {middle} {large}");
        }
        assert!(image_url("kettle-1").unwrap().starts_with("/assets/kettle-1-"));
        assert_eq!(image_url("nonesuch"), None);
    }
}
