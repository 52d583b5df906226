//! The pages of the shop that show the catalogue: as whole HTML, so that they can be read before any script runs, and without one.
//!
//! What they look like is the storefront's (`storefront::render`). Here is what is on them, under which addresses, and what their
//! answers say: 200 with tags and an entity tag of the catalogue's version, 301 to the one spelling of an address, 404 for what
//! has never been, 410 for a product that is offered no more. They are the same for everybody and never look at who asks.
//! Whatever goes wrong is told as a page too.

mod listing;
mod site;
pub(crate) mod sitemap;

use axum::{
    Router,
    extract::{OriginalUri, Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use self::{
    listing::{Listing, Of},
    site::Site,
};
use crate::{
    caching::{self, EntityTag, IfNoneMatch, Keeping, Tag},
    catalogue::{self, Catalogue},
    categories,
    client::Client,
    common_memory::{Made, Subject},
    database::Connection,
    pagination::Sort,
    problem::Problem,
    products::{self, ListParameters, ListRequest, Page},
    shop::Shop,
};

pub(crate) fn router() -> Router<Shop> {
    Router::new()
        .route("/", get(home))
        .route("/category/{slug}", get(category))
        .route("/product/{slug}", get(product))
        .route("/search", get(search))
        .route("/sitemap.xml", get(sitemap::index))
        .route("/sitemap/{part}", get(sitemap::part))
        .route("/robots.txt", get(sitemap::robots))
        // Spellings that people and other sites use.
        .route("/index.html", get(async || moved("/")))
        .route("/category/{slug}/", get(without_slash))
        .route("/product/{slug}/", get(without_slash))
}

async fn home(State(shop): State<Shop>, site: Site, headers: HeaderMap) -> Result<Response, Told> {
    let list = ListPage {
        template: "home",
        address: "/".to_owned(),
        tags: &[Tag::Catalogue, Tag::Categories, Tag::Storefront],
    };
    let request = ListRequest::check(parameters(None, Some(8)))?;
    list.answer(&shop, &headers, &site, async |mut connection| {
        let aisles = categories::counted(&mut connection).await?;
        let (_, newest) = request.find(&mut connection).await?;
        Ok(json!({ "aisles": aisles, "products": newest.products }))
    })
    .await
}

async fn category(
    State(shop): State<Shop>,
    site: Site,
    slug: Result<Path<String>, PathRejection>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let slug = match spelled(slug) {
        Spelled::Well(slug) => slug,
        Spelled::Otherwise(slug) => return Ok(moved(&format!("/category/{slug}"))),
        Spelled::Never => return Err(Told::NotFound),
    };
    let listing = Listing::read(Of::Category, format!("/category/{slug}"), uri.query().unwrap_or_default());
    if let Some(address) = listing.other_spelling() {
        return Ok(moved(&address));
    }
    let request = ListRequest::check(listing.parameters(Some(&slug)))?.narrowed(listing.narrowed());
    let list = ListPage {
        template: "category",
        address: listing.address(),
        tags: &[Tag::Category(&slug), Tag::Categories, Tag::Storefront],
    };
    list.answer(&shop, &headers, &site, async |mut connection| {
        let aisles = categories::names(&mut connection).await?;
        let Some(category) = aisles.iter().find(|aisle| aisle.slug == slug) else {
            return Err(Told::NotFound);
        };
        let counted = products::count_bands(&mut connection, &slug, &listing::BOUNDS.map(Into::into)).await?;
        let (_, page) = request.find(&mut connection).await?;
        let count: i64 = counted.iter().map(|counted| counted.count).sum();
        Ok(json!({
            "aisles": aisles,
            "here": slug,
            "category": category,
            "count": count,
            "products": page.products,
            "listing": listing.shown(&counted, &[], page.next_cursor.as_deref()),
        }))
    })
    .await
}

async fn product(
    State(shop): State<Shop>,
    site: Site,
    slug: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let slug = match spelled(slug) {
        Spelled::Well(slug) => slug,
        Spelled::Otherwise(slug) => return Ok(moved(&format!("/product/{slug}"))),
        Spelled::Never => return Err(Told::NotFound),
    };
    let (mut connection, control) = shop.reads.acquire_public(&headers, storefront::PAGE).await?;
    let state = connection.one("catalogue.version", sqlx::query_as(catalogue::STATE)).await?;
    let entity = entity(&site, &format!("/product/{slug}"), &state);
    if IfNoneMatch::of(&headers).is_some_and(|condition| condition.lists(&entity))
        && let Some(version) = products::version(&mut connection, &slug).await?
    {
        let [product, category] = version.tags();
        let tags = [product, category, Tag::Categories, Tag::Storefront];
        return Ok(caching::not_modified(&Keeping { control, entity, tags: &tags }));
    }
    let Some(product) = products::find(&mut connection, &slug).await? else {
        let withdrawn = products::is_withdrawn(&mut connection, &slug).await?;
        return Err(if withdrawn { Told::Gone } else { Told::NotFound });
    };
    let aisles = categories::names(&mut connection).await?;
    let (_, mut related) =
        ListRequest::check(parameters(Some(&product.category), Some(5)))?.find(&mut connection).await?;
    drop(connection);
    related.products.retain(|other| other.slug != slug);
    related.products.truncate(4);
    let shown = json!({
        "aisles": aisles,
        "here": product.category,
        "product": product,
        "products": related.products,
    });
    let tags = [Tag::Product(product.id), Tag::Category(&product.category), Tag::Categories, Tag::Storefront];
    written("product", &site, shown, &Keeping { control, entity, tags: &tags })
}

async fn search(
    State(shop): State<Shop>,
    site: Site,
    client: Client,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Told> {
    let listing = Listing::read(Of::Search, "/search".to_owned(), uri.query().unwrap_or_default());
    if let Some(address) = listing.other_spelling() {
        return Ok(moved(&address));
    }
    let page = Box::pin(searched(&shop, &site, &headers, &listing));
    if listing.words().is_empty() { page.await } else { shop.searches.within(client, page).await }
}

async fn searched(
    shop: &Shop,
    site: &Site,
    headers: &HeaderMap,
    listing: &Listing,
) -> Result<Response, Told> {
    // Words that no search can be made of have found nothing.
    let request = ListRequest::check(listing.parameters(None)).ok().filter(|_| !listing.words().is_empty());
    let request = request.map(|request| request.narrowed(listing.narrowed()));
    let list = ListPage {
        template: "search",
        address: listing.address(),
        tags: &[Tag::Catalogue, Tag::Categories, Tag::Storefront],
    };
    list.answer(shop, headers, site, async |mut connection| {
        let aisles = categories::names(&mut connection).await?;
        let (mut counted, mut products, mut next) = (Vec::new(), Vec::new(), None);
        if let Some(request) = request {
            counted = request.count_found(&mut connection, &listing::BOUNDS.map(Into::into)).await?;
            (_, Page { products, next_cursor: next, .. }) = request.find(&mut connection).await?;
        }
        Ok(json!({
            "aisles": aisles,
            "words": listing.words(),
            "products": products,
            "listing": listing.shown(&counted, &aisles, next.as_deref()),
        }))
    })
    .await
}

async fn without_slash(OriginalUri(uri): OriginalUri) -> Response {
    let path = uri.path().trim_end_matches('/').to_lowercase();
    moved(&uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

/// 301 to an address of this site.
fn moved(address: &str) -> Response {
    match HeaderValue::from_str(address) {
        Ok(location) => {
            let fields = [(header::LOCATION, location), (header::CACHE_CONTROL, storefront::PAGE)];
            (StatusCode::MOVED_PERMANENTLY, fields).into_response()
        }
        Err(_) => Told::NotFound.into_response(),
    }
}

/// How a slug in an address is written.
enum Spelled {
    Well(String),
    /// As this one, in other letters.
    Otherwise(String),
    Never,
}

fn spelled(slug: Result<Path<String>, PathRejection>) -> Spelled {
    let Ok(Path(slug)) = slug else { return Spelled::Never };
    if storefront::is_slug(&slug) {
        return Spelled::Well(slug);
    }
    let lower = slug.to_lowercase();
    if storefront::is_slug(&lower) { Spelled::Otherwise(lower) } else { Spelled::Never }
}

/// The beginning of a list, newest first.
fn parameters(category: Option<&str>, limit: Option<u32>) -> ListParameters {
    ListParameters {
        category: category.map(str::to_owned),
        search: None,
        sort: Sort::Newest,
        limit,
        cursor: None,
    }
}

/// The entity tag of the page at this address.
fn entity(site: &Site, address: &str, Catalogue { epoch, version }: &Catalogue) -> EntityTag {
    let fingerprint = storefront::pages_fingerprint();
    EntityTag::of(&["page", fingerprint, site.as_str(), address, epoch, &version.to_string()])
}

/// Writes down what a page shows. A page is never 304 here: whether the request has it is known before.
fn written(page: &str, site: &Site, mut shown: Value, keeping: &Keeping<'_>) -> Result<Response, Told> {
    shown["site"] = site.as_str().into();
    let html = storefront::render(page, shown).map_err(|error| {
        tracing::error!(%error, page, "a page cannot be rendered");
        Problem::internal()
    })?;
    Ok(caching::page(keeping, html))
}

/// A page with a list on it. What it shows is remembered, and not how it looks: that depends on under which host it is asked for.
struct ListPage<'a> {
    template: &'static str,
    address: String,
    tags: &'a [Tag<'a>],
}

impl ListPage<'_> {
    /// The state of the catalogue is read before all else: what changes while the page is made makes its tag too old, and never
    /// too new.
    async fn answer<F: Future<Output = Result<Value, Told>>>(
        &self,
        shop: &Shop,
        headers: &HeaderMap,
        site: &Site,
        find: impl FnOnce(Connection) -> F,
    ) -> Result<Response, Told> {
        let Self { template, address, tags } = self;
        let name = EntityTag::of(&["page", storefront::pages_fingerprint(), address]);
        let subject = Subject::list(name, tags).controlled(storefront::PAGE);
        let is_known = |catalogue: &Catalogue| {
            let known = entity(site, address, catalogue);
            IfNoneMatch::of(headers).is_some_and(|condition| condition.lists(&known))
        };
        let make = async {
            let (mut connection, control) = shop.reads.acquire_public(headers, storefront::PAGE).await?;
            let catalogue = connection.one("catalogue.version", sqlx::query_as(catalogue::STATE)).await?;
            let shown = if is_known(&catalogue) { None } else { Some(find(connection).await?) };
            let to_keep = shown.is_some() && control == storefront::PAGE;
            Ok::<_, Told>(Made { value: (catalogue, shown), control, to_keep })
        };
        let made = shop.memory_for(headers).recall(&subject, make).await?;
        let Made { value: (catalogue, shown), control, .. } = made;
        let keeping = Keeping { control, entity: entity(site, address, &catalogue), tags };
        match shown.filter(|_| !is_known(&catalogue)) {
            Some(shown) => written(template, site, shown, &keeping),
            None => Ok(caching::not_modified(&keeping)),
        }
    }
}

/// What goes wrong, told as a page.
#[derive(Debug)]
enum Told {
    NotFound,
    Gone,
    Problem(Problem),
}

impl<E: Into<Problem>> From<E> for Told {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::NotFound => return storefront::not_found(StatusCode::NOT_FOUND),
            Self::Gone => return storefront::not_found(StatusCode::GONE),
            // Of a query that cannot be answered, such as a cursor that nobody has given out, there is no page.
            Self::Problem(problem)
                if problem.status().is_client_error()
                    && problem.status() != StatusCode::TOO_MANY_REQUESTS =>
            {
                return storefront::not_found(StatusCode::NOT_FOUND);
            }
            Self::Problem(problem) => problem.into_response(),
        };
        let mut page = storefront::unavailable(problem.status());
        if let Some(after) = problem.headers().get(header::RETRY_AFTER) {
            page.headers_mut().insert(header::RETRY_AFTER, after.clone());
        }
        page
    }
}
