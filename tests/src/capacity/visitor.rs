//! One visitor of the shop: what a person with a browser asks for on the way from the front page to an order, in the order in
//! which the storefront's scripts ask, over one HTTP/2 connection of their own.
//!
//! A page brings what it names and the browser does not have yet: styles, scripts, and pictures in the size that a browser
//! chooses, down to what it loads ahead of the scrolling. Pages that are known are asked for with their entity tags.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, task::JoinSet, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{origin::PASSWORD, steady::connect_from, wait};

/// How long a visitor waits for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pictures below the fold that a browser loads all the same, because they are near.
const AHEAD: usize = 12;
/// What shows the shop that the storefront's own scripts have asked.
const REQUESTED_WITH: &str = "x-requested-with";
/// Products that caches soon know.
const FEW: usize = 20;
const CATEGORIES: &str = "/api/categories";

/// What visitors find, and whom they ask for it.
#[derive(Debug)]
pub struct Scene {
    /// The edges, by the number of a visitor; they have one port.
    addresses: Vec<SocketAddr>,
    tls: Arc<ClientConfig>,
    categories: Vec<String>,
    products: Vec<Product>,
    /// Accounts that there are: `c1@example.org` and so on, with the sessions `token-1` and so on.
    customers: u32,
    /// What pages name, by their address and entity tag: as many as there are pages.
    parts: Mutex<HashMap<String, Arc<[String]>>>,
}

impl Scene {
    /// A shop at these addresses, reached by this configuration of TLS.
    #[must_use]
    pub fn new(
        addresses: Vec<SocketAddr>,
        tls: ClientConfig,
        categories: Vec<String>,
        products: Vec<Product>,
        customers: u32,
    ) -> Self {
        Self { addresses, tls: Arc::new(tls), categories, products, customers, parts: Mutex::default() }
    }

    /// Where the visitor of this number goes.
    fn address(&self, number: u32) -> SocketAddr {
        self.addresses[number as usize % self.addresses.len()]
    }

    /// The same with so few products that caches soon know them all.
    #[must_use]
    pub fn with_few_products(&self) -> Self {
        let products = self.products.iter().take(FEW).cloned().collect();
        Self {
            addresses: self.addresses.clone(),
            tls: Arc::clone(&self.tls),
            categories: self.categories.clone(),
            products,
            customers: self.customers,
            parts: Mutex::default(),
        }
    }
}

/// Something to buy.
#[derive(Clone, Debug)]
pub struct Product {
    pub(super) id: i64,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) price_cents: i64,
}

/// What a visitor does between two thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Comes, by a new connection, to the front page.
    Home,
    /// A page of a category.
    Category,
    /// Words typed, with suggestions, and the page of what was found.
    Search,
    /// A product's page; it goes into the basket.
    Product,
    /// The basket, which asks for price and stock anew.
    Basket,
    /// The page where one signs in.
    Account,
    /// Signing in.
    SignIn,
    /// The basket once more, and the order.
    Order,
    /// The list of one's orders.
    Orders,
}

impl Step {
    /// The way through the shop.
    pub const ALL: [Self; 9] = [
        Self::Home,
        Self::Category,
        Self::Search,
        Self::Product,
        Self::Basket,
        Self::Account,
        Self::SignIn,
        Self::Order,
        Self::Orders,
    ];

    /// Whether everybody who looks around does it, and not only who buys.
    #[must_use]
    pub fn is_looking(self) -> bool {
        matches!(self, Self::Home | Self::Category | Self::Search | Self::Product)
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Category => "category",
            Self::Search => "search",
            Self::Product => "product",
            Self::Basket => "basket",
            Self::Account => "account",
            Self::SignIn => "sign in",
            Self::Order => "order",
            Self::Orders => "orders",
        }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same for everybody: caches may answer it.
    Shared,
    /// A file that a page names.
    Part,
    /// Somebody's own, or to be asked anew: the shop itself answers.
    Personal,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it was for.
    pub kind: Kind,
    /// Whether the edge's cache answered.
    pub hit: bool,
    /// From the request to the last byte of its answer.
    pub latency: Duration,
    /// Why the answer was not the right one.
    pub fault: Option<String>,
}

/// What became of one step.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which one.
    pub step: Step,
    /// When it began.
    pub at: Instant,
    /// Until all its answers were there.
    pub took: Duration,
    /// Its requests.
    pub asked: Vec<Asked>,
}

impl Done {
    /// Whether every answer was right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.asked.iter().all(|asked| asked.fault.is_none())
    }
}

/// Files that a browser has kept, and the entity tags of pages; without a tag: not asked for again.
pub type Kept = HashMap<String, Option<String>>;

type Connection = http2::SendRequest<Full<Bytes>>;

/// A visitor with a connection.
#[derive(Debug)]
pub struct Visitor {
    scene: Arc<Scene>,
    number: u32,
    connection: Connection,
    kept: Kept,
    cookies: BTreeMap<String, String>,
    basket: usize,
    chance: StdRng,
    asked: Vec<Asked>,
    /// Whether caches are told to ask the shop.
    pub anew: bool,
}

struct Wanted {
    kind: Kind,
    path: String,
    method: Method,
    fields: Vec<(&'static str, String)>,
    content: String,
    right: &'static [StatusCode],
}

struct Got {
    asked: Asked,
    status: StatusCode,
    fields: HeaderMap,
    content: Bytes,
}

impl Visitor {
    /// The visitor of this number connects from an address of their own.
    ///
    /// # Errors
    /// In words, when there is no connection.
    pub async fn connect(scene: &Arc<Scene>, number: u32) -> Result<Self, String> {
        let connection = timeout(PATIENCE, connection(scene, number)).await;
        let connection = connection.map_err(|_| "no connection in time".to_owned())??;
        Ok(Self {
            scene: Arc::clone(scene),
            number,
            connection,
            kept: Kept::new(),
            cookies: BTreeMap::new(),
            basket: 0,
            chance: StdRng::seed_from_u64(number.into()),
            asked: Vec::new(),
            anew: false,
        })
    }

    /// With what a browser has kept of an earlier visit.
    #[must_use]
    pub fn with_kept(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// With a session that has been opened already.
    #[must_use]
    pub fn signed_in(mut self) -> Self {
        let token = format!("token-{}", self.customer());
        self.cookies.insert("__Host-session".to_owned(), token);
        self
    }

    /// What the browser has by now of what every page uses: scripts, styles, the categories.
    #[must_use]
    pub fn scripts_kept(&self) -> Kept {
        let is_script =
            |path: &str| path == CATEGORIES || [".js", ".css", ".svg"].iter().any(|end| path.ends_with(end));
        self.kept
            .iter()
            .filter(|(path, _)| is_script(path))
            .map(|(path, tag)| (path.clone(), tag.clone()))
            .collect()
    }

    /// Does it. What was asked before an answer came that was not the right one is told, too.
    pub async fn take(&mut self, step: Step) -> Done {
        let at = wait::now();
        // What comes back matters only where something follows from it; faults are in the list.
        let _ = match step {
            Step::Home => self.page("/".to_owned()).await,
            Step::Category => self.category().await,
            Step::Search => self.search().await,
            Step::Product => self.product().await,
            Step::Basket => self.look_into_basket().await,
            Step::Account => self.account().await,
            Step::SignIn => self.sign_in().await,
            Step::Order => self.order().await,
            Step::Orders => self.orders().await,
        };
        Done { step, at, took: at.elapsed(), asked: std::mem::take(&mut self.asked) }
    }

    async fn category(&mut self) -> Option<()> {
        let category = self.chance.random_range(0..self.scene.categories.len());
        self.page(format!("/category/{}", self.scene.categories[category])).await
    }

    async fn search(&mut self) -> Option<()> {
        let found = self.chance.random_range(0..self.scene.products.len());
        let plain = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let name = self.scene.products[found].name.to_lowercase();
        let words: Vec<String> = name.split(' ').map(plain).filter(|word| word.len() > 2).collect();
        let last = words.last().cloned().unwrap_or_default();
        let typed: String = last.chars().take(3).collect();
        for words in [&typed, &last] {
            self.ask(Wanted::shared(format!("/api/suggestions?words={words}"))).await?;
        }
        let two = words.get(words.len().saturating_sub(2)..).unwrap_or_default().join("+");
        self.page(format!("/search?q={two}")).await
    }

    async fn product(&mut self) -> Option<()> {
        self.basket = self.chance.random_range(0..self.scene.products.len());
        let slug = self.scene.products[self.basket].slug.clone();
        self.page(format!("/product/{slug}")).await?;
        self.ask(Wanted::shared(format!("/api/products/{slug}/stock"))).await?;
        Some(())
    }

    async fn look_into_basket(&mut self) -> Option<()> {
        self.page("/cart".to_owned()).await?;
        self.aisles().await?;
        self.ask(Wanted::personal("/api/session")).await?;
        self.check_basket().await
    }

    async fn account(&mut self) -> Option<()> {
        self.page("/account".to_owned()).await?;
        self.aisles().await?;
        self.ask(Wanted::personal("/api/session")).await?;
        Some(())
    }

    async fn sign_in(&mut self) -> Option<()> {
        let email = format!("c{}@example.org", self.customer());
        let content = json!({ "email": email, "password": PASSWORD });
        let got = self.ask(Wanted::written("/api/session", &content, &[StatusCode::OK])).await?;
        self.expect(got, |answer| answer["user"]["email"] == email).await
    }

    async fn order(&mut self) -> Option<()> {
        self.look_into_basket().await?;
        // What the button does.
        self.ask(Wanted::personal("/api/session")).await?;
        self.check_basket().await?;
        let product = self.scene.products[self.basket].clone();
        let quantity = self.chance.random_range(1..=3);
        let total = product.price_cents * quantity;
        let lines = json!([{ "product_id": product.id, "quantity": quantity }]);
        let content = json!({ "lines": lines, "expected_total_cents": total });
        let mut wanted = Wanted::written("/api/orders", &content, &[StatusCode::CREATED]);
        wanted.fields.push(("idempotency-key", format!("{:032x}", self.chance.random::<u128>())));
        let got = self.ask(wanted).await?;
        self.expect(got, |answer| answer["total_cents"] == total).await
    }

    async fn orders(&mut self) -> Option<()> {
        self.page("/orders".to_owned()).await?;
        self.aisles().await?;
        self.ask(Wanted::personal("/api/session")).await?;
        let got = self.ask(Wanted::personal("/api/orders?limit=10")).await?;
        self.expect(got, |answer| answer["orders"].is_array()).await
    }

    /// The categories, on pages that come without: the browser keeps them for minutes.
    async fn aisles(&mut self) -> Option<()> {
        if self.kept.contains_key(CATEGORIES) {
            return Some(());
        }
        self.ask(Wanted::shared(CATEGORIES.to_owned())).await?;
        self.kept.insert(CATEGORIES.to_owned(), None);
        Some(())
    }

    /// Price and stock as they are now.
    async fn check_basket(&mut self) -> Option<()> {
        let slug = self.scene.products[self.basket].slug.clone();
        for path in [format!("/api/products/{slug}"), format!("/api/products/{slug}/stock")] {
            let mut wanted = Wanted::personal(&path);
            wanted.fields.push(("cache-control", "max-age=0".to_owned()));
            self.ask(wanted).await?;
        }
        Some(())
    }

    /// A page with all that belongs to it.
    async fn page(&mut self, path: String) -> Option<()> {
        let mut wanted = Wanted::shared(path.clone());
        wanted.fields.push(("accept", "text/html,application/xhtml+xml,*/*;q=0.8".to_owned()));
        if let Some(Some(tag)) = self.kept.get(&path) {
            wanted.fields.push(("if-none-match", tag.clone()));
            wanted.right = &[StatusCode::OK, StatusCode::NOT_MODIFIED];
        }
        let got = self.ask(wanted).await?;
        if got.status == StatusCode::NOT_MODIFIED {
            return Some(());
        }
        let tag = field(&got.fields, "etag");
        let known = format!("{path} {}", tag.as_deref().unwrap_or_default());
        let parts = lock(&self.scene.parts).get(&known).cloned();
        let parts = match parts {
            Some(parts) => parts,
            None => {
                let parts: Arc<[String]> = parts_of(&decoded(&got).await).into();
                if parts.is_empty() {
                    self.fault(format!("{path} is a page that names nothing"));
                    return None;
                }
                lock(&self.scene.parts).insert(known, Arc::clone(&parts));
                parts
            }
        };
        self.kept.insert(path, tag);
        self.parts(&parts).await
    }

    /// All that the browser lacks of these, at once.
    async fn parts(&mut self, parts: &[String]) -> Option<()> {
        let mut coming = JoinSet::new();
        for path in parts {
            if self.kept.contains_key(path) {
                continue;
            }
            self.kept.insert(path.clone(), None);
            let wanted = Wanted { kind: Kind::Part, ..Wanted::shared(path.clone()) };
            coming.spawn(ask(self.connection.clone(), self.request(&wanted), wanted));
        }
        let mut all = Some(());
        for got in coming.join_all().await {
            if got.asked.fault.is_some() {
                all = None;
            }
            self.asked.push(got.asked);
        }
        all
    }

    async fn ask(&mut self, wanted: Wanted) -> Option<Got> {
        let request = self.request(&wanted);
        let got = ask(self.connection.clone(), request, wanted).await;
        for line in got.fields.get_all(header::SET_COOKIE) {
            let pair = line.to_str().ok().and_then(|line| line.split(';').next()?.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let is_right = got.asked.fault.is_none();
        self.asked.push(got.asked.clone());
        is_right.then_some(got)
    }

    fn request(&self, wanted: &Wanted) -> Request<Full<Bytes>> {
        let port = self.scene.address(self.number).port();
        let mut request = Request::builder()
            .method(wanted.method.clone())
            .uri(format!("https://localhost:{port}{}", wanted.path))
            .header("accept-encoding", "gzip, deflate, br, zstd")
            .header("user-agent", "Mozilla/5.0 (visitor)");
        for (name, value) in &wanted.fields {
            request = request.header(*name, value);
        }
        if self.anew && wanted.kind == Kind::Shared {
            request = request.header(header::CACHE_CONTROL, "no-cache");
        }
        if !self.cookies.is_empty() {
            let all: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(header::COOKIE, all.join("; "));
        }
        request
            .body(Full::from(wanted.content.clone()))
            .expect("visitors ask for plain paths by plain fields")
    }

    /// Whether the answer says what it ought to.
    async fn expect(&mut self, got: Got, says: impl Fn(&Value) -> bool) -> Option<()> {
        let text = decoded(&got).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        if says(&answer) {
            return Some(());
        }
        self.fault(format!("the answer says something else: {answer:.200}"));
        None
    }

    /// The last answer was not the right one after all.
    fn fault(&mut self, why: String) {
        if let Some(last) = self.asked.last_mut() {
            last.fault = Some(why);
        }
    }

    fn customer(&self) -> u32 {
        self.number % self.scene.customers + 1
    }
}

impl Wanted {
    fn shared(path: String) -> Self {
        let (kind, method) = (Kind::Shared, Method::GET);
        Self { kind, path, method, fields: Vec::new(), content: String::new(), right: &[StatusCode::OK] }
    }

    fn personal(path: &str) -> Self {
        Self { kind: Kind::Personal, ..Self::shared(path.to_owned()) }
    }

    fn written(path: &str, content: &Value, right: &'static [StatusCode]) -> Self {
        let mut wanted = Self { method: Method::POST, right, ..Self::personal(path) };
        wanted.fields.push(("content-type", "application/json".to_owned()));
        wanted.fields.push((REQUESTED_WITH, "storefront".to_owned()));
        wanted.content = content.to_string();
        wanted
    }
}

async fn ask(mut connection: Connection, request: Request<Full<Bytes>>, wanted: Wanted) -> Got {
    let began = wait::now();
    let whole = async {
        let (head, body) = connection.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
    };
    let came = timeout(PATIENCE, whole).await;
    let latency = began.elapsed();
    let (status, fields, content, fault) = match came {
        Ok(Ok((head, content))) => {
            let fault = (!wanted.right.contains(&head.status)).then(|| {
                let begin = String::from_utf8_lossy(&content[..content.len().min(200)]).into_owned();
                format!("{} for {} {}: {begin}", head.status.as_u16(), wanted.method, wanted.path)
            });
            (head.status, head.headers, content, fault)
        }
        Ok(Err(error)) => {
            let fault = format!("{} {}: {error}", wanted.method, wanted.path);
            (StatusCode::BAD_GATEWAY, HeaderMap::new(), Bytes::new(), Some(fault))
        }
        Err(_) => {
            let fault = format!("{} {}: no end of it in time", wanted.method, wanted.path);
            (StatusCode::GATEWAY_TIMEOUT, HeaderMap::new(), Bytes::new(), Some(fault))
        }
    };
    let hit = field(&fields, "cache-status").is_some_and(|text| text.split("; ").any(|word| word == "hit"));
    Got { asked: Asked { kind: wanted.kind, hit, latency, fault }, status, fields, content }
}

async fn connection(scene: &Scene, number: u32) -> Result<Connection, String> {
    // A part of the loopback network that nobody listens in.
    let from = IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number));
    let stream =
        connect_from(from, scene.address(number)).await.map_err(|error| format!("connecting: {error}"))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::clone(&scene.tls)).connect(name, stream).await;
    let tls = tls.map_err(|error| format!("the handshake: {error}"))?;
    let made = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await;
    let (sender, connection) = made.map_err(|error| format!("the preface: {error}"))?;
    // Ends with its senders, which go with the visitor; its errors reach them.
    tokio::spawn(connection);
    Ok(sender)
}

/// The addresses of what a page names and a browser loads with it.
fn parts_of(page: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut ahead = 0;
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let part = match tag.split_whitespace().next() {
            Some("link") => attribute(tag, "href").filter(|_| {
                attribute(tag, "rel")
                    .is_some_and(|rel| ["stylesheet", "modulepreload", "icon"].contains(&rel))
            }),
            Some("script") => attribute(tag, "src"),
            Some("img") if attribute(tag, "loading") == Some("lazy") => {
                ahead += 1;
                picture(tag).filter(|_| ahead <= AHEAD)
            }
            Some("img") => picture(tag),
            _ => None,
        };
        if let Some(part) = part.filter(|part| !parts.iter().any(|known| known == part)) {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// The file that a browser takes of a picture on a screen of 1280 pixels: the middle one of three sizes, where it has a choice.
fn picture(tag: &str) -> Option<&str> {
    let set = attribute(tag, "srcset").unwrap_or_default();
    let middle = set.split(", ").find_map(|one| one.trim().strip_suffix(" 320w"));
    middle.or_else(|| attribute(tag, "src"))
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

fn field(fields: &HeaderMap, name: &str) -> Option<String> {
    Some(fields.get(name)?.to_str().ok()?.to_owned())
}

async fn decoded(got: &Got) -> String {
    let mut content: &[u8] = &got.content;
    let mut text = String::new();
    let read = match field(&got.fields, "content-encoding").as_deref().unwrap_or_default() {
        "br" => BrotliDecoder::new(content).read_to_string(&mut text).await,
        "zstd" => ZstdDecoder::new(content).read_to_string(&mut text).await,
        "gzip" => GzipDecoder::new(content).read_to_string(&mut text).await,
        _ => content.read_to_string(&mut text).await,
    };
    // What cannot be read says nothing, and that is a fault of the answer.
    read.map(|_| text).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_brings_its_styles_scripts_and_the_pictures_near_the_screen() {
        let lazy: String =
            (0..20).map(|number| format!("<img src=\"/assets/{number}.webp\" loading=\"lazy\">")).collect();
        let page = format!(
            "<link rel=\"canonical\" href=\"/\"><link rel=\"stylesheet\" href=\"/assets/a.css\">\
             <link rel=\"modulepreload\" href=\"/assets/b.js\"><script type=\"module\" src=\"/assets/c.js\"></script>\
             <img src=\"/assets/d.640.webp\" srcset=\"/assets/d.160.webp 160w, /assets/d.320.webp 320w\" alt=\"\">{lazy}"
        );
        let parts = parts_of(&page);
        assert_eq!(parts[..4], ["/assets/a.css", "/assets/b.js", "/assets/c.js", "/assets/d.320.webp"]);
        assert_eq!(parts.len(), 4 + AHEAD);
    }
}
