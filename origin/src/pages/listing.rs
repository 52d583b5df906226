//! A list of products as the address of its page says it: order, filters, cursor; and the addresses of its neighbours.
//!
//! Each list has one spelling. Names that are unknown here (of campaigns, mostly) are neither read nor written.

use serde_json::{Value, json};

use crate::{
    categories::Aisle,
    pagination::Sort,
    products::{Counted, ListParameters, MOST_FOUND, Narrowed},
};

/// Between the bands of prices, in cents.
pub(super) const BOUNDS: [i64; 3] = [2_500, 5_000, 10_000];

/// A band: as an address says it, in words, and its least and highest price.
const BANDS: [(&str, &str, (i64, i64)); 4] = [
    ("0-25", "Under €25", (0, BOUNDS[0] - 1)),
    ("25-50", "€25 to €50", (BOUNDS[0], BOUNDS[1] - 1)),
    ("50-100", "€50 to €100", (BOUNDS[1], BOUNDS[2] - 1)),
    ("100-", "€100 and more", (BOUNDS[2], i64::MAX)),
];

const SORTS: [(Sort, &str); 4] = [
    (Sort::Newest, "Newest first"),
    (Sort::PriceAsc, "Price, low to high"),
    (Sort::PriceDesc, "Price, high to low"),
    (Sort::Name, "Name"),
];

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// One category.
    Category,
    /// What words find, in all categories or one.
    Search,
}

#[derive(Debug)]
pub(super) struct Listing {
    path: String,
    chosen: Chosen,
    /// What of the query was understood is not written as [`Chosen::pairs`] would.
    misspelled: bool,
}

#[derive(Debug, Clone, Default)]
struct Chosen {
    words: String,
    /// Its slug, where it can be chosen.
    category: Option<String>,
    sort: Sort,
    /// Place in [`BANDS`].
    band: Option<usize>,
    in_stock: bool,
    cursor: Option<String>,
}

impl Listing {
    /// Reads the query of a list's address.
    pub(super) fn read(of: Of, path: String, query: &str) -> Self {
        let names: &[&str] = match of {
            Of::Search => &["q", "category", "sort", "price", "stock", "cursor"],
            Of::Category => &["sort", "price", "stock", "cursor"],
        };
        let sent: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        let sent: Vec<_> = sent.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect();
        let value =
            |wanted: &str| sent.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let chosen = Chosen {
            words: value("q").unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
            category: value("category").filter(|slug| storefront::is_slug(slug)).map(str::to_owned),
            sort: Sort::ALL.into_iter().find(|sort| value("sort") == Some(sort.name())).unwrap_or_default(),
            band: BANDS.iter().position(|(name, ..)| value("price") == Some(name)),
            in_stock: value("stock") == Some("in"),
            cursor: value("cursor").map(str::to_owned),
        };
        let written = chosen.pairs();
        let same = written.len() == sent.len()
            && written.iter().zip(&sent).all(|(written, sent)| written.0 == sent.0 && written.1 == sent.1);
        Self { path, chosen, misspelled: !same }
    }

    /// The right spelling, where another was sent.
    pub(super) fn other_spelling(&self) -> Option<String> {
        self.misspelled.then(|| self.address())
    }

    pub(super) fn address(&self) -> String {
        self.address_of(&self.chosen)
    }

    pub(super) fn words(&self) -> &str {
        &self.chosen.words
    }

    pub(super) fn parameters(&self, category: Option<&str>) -> ListParameters {
        ListParameters {
            category: category.map(str::to_owned).or_else(|| self.chosen.category.clone()),
            search: Some(self.chosen.words.clone()).filter(|words| !words.is_empty()),
            sort: self.chosen.sort,
            limit: None,
            cursor: self.chosen.cursor.clone(),
        }
    }

    pub(super) fn narrowed(&self) -> Narrowed {
        Narrowed {
            prices: self
                .chosen
                .band
                .map(|band| BANDS[band].2)
                .map(|(least, most)| (least.into(), most.into())),
            in_stock: self.chosen.in_stock,
        }
    }

    /// What a template shows of it: the choices, each with the address it leads to and what is found there. `aisles` are the
    /// categories, where one can be chosen.
    pub(super) fn shown(&self, counted: &[Counted], aisles: &[Aisle], next_cursor: Option<&str>) -> Value {
        let first = Chosen { cursor: None, ..self.chosen.clone() };
        let sorts = SORTS.map(|(sort, words)| {
            json!({ "name": sort.name(), "words": words, "chosen": sort == self.chosen.sort })
        });
        let kept: serde_json::Map<String, Value> = first
            .pairs()
            .into_iter()
            .filter(|(name, _)| *name != "sort")
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let next = next_cursor
            .map(|cursor| self.address_of(&Chosen { cursor: Some(cursor.to_owned()), ..first.clone() }));
        json!({
            "path": self.path,
            "sorts": sorts,
            "kept": kept,
            "filters": self.filters(&first, counted, aisles),
            // Nobody has counted the others.
            "or_more": counted.iter().map(|one| one.count).sum::<i64>() > MOST_FOUND && !self.chosen.words.is_empty(),
            "filtered": first.category.is_some() || first.band.is_some() || first.in_stock,
            "whole": self.address_of(&Chosen { words: first.words.clone(), ..Chosen::default() }),
            "narrowed": self.chosen.pairs().len() > usize::from(!self.chosen.words.is_empty()),
            "next": next,
        })
    }

    /// A filter is offered where it would leave something, and where it is chosen, so that it can be taken out.
    fn filters(&self, first: &Chosen, counted: &[Counted], aisles: &[Aisle]) -> Vec<Value> {
        let count = |category: Option<&str>, band: Option<usize>, in_stock: bool| -> i64 {
            let fits = |one: &&Counted| {
                (category.is_none() || one.category.as_deref() == category)
                    && band.is_none_or(|band| usize::try_from(one.band) == Ok(band))
                    && (one.in_stock || !in_stock)
            };
            counted.iter().filter(fits).map(|one| one.count).sum()
        };
        let here = first.category.as_deref();
        let mut filters = Vec::new();
        let mut offer = |words: &str, chosen: bool, count: i64, leads_to: &Chosen| {
            if chosen || count > 0 {
                let address = self.address_of(leads_to);
                filters.push(json!({ "words": words, "chosen": chosen, "count": count, "address": address }));
            }
        };
        for Aisle { slug, name } in aisles {
            let chosen = here == Some(slug);
            let leads_to = Chosen { category: (!chosen).then(|| slug.clone()), ..first.clone() };
            offer(name, chosen, count(Some(slug), first.band, first.in_stock), &leads_to);
        }
        let in_stock = Chosen { in_stock: !first.in_stock, ..first.clone() };
        offer("In stock", first.in_stock, count(here, first.band, true), &in_stock);
        for (band, (_, words, _)) in BANDS.iter().enumerate() {
            let chosen = first.band == Some(band);
            let leads_to = Chosen { band: (!chosen).then_some(band), ..first.clone() };
            offer(words, chosen, count(here, Some(band), first.in_stock), &leads_to);
        }
        filters
    }

    fn address_of(&self, chosen: &Chosen) -> String {
        match serde_urlencoded::to_string(chosen.pairs()) {
            Ok(query) if !query.is_empty() => format!("{}?{query}", self.path),
            _ => self.path.clone(),
        }
    }
}

impl Chosen {
    /// Whatever is not so by itself, in the order of the names: caches in front may put a query into that order before they ask,
    /// and would be sent in a circle by another.
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let mut pairs = Vec::new();
        pairs.extend(self.category.as_deref().map(|slug| ("category", slug)));
        pairs.extend(self.cursor.as_deref().map(|cursor| ("cursor", cursor)));
        pairs.extend(self.band.map(|band| ("price", BANDS[band].0)));
        pairs.extend((!self.words.is_empty()).then_some(("q", self.words.as_str())));
        pairs.extend((self.sort != Sort::Newest).then_some(("sort", self.sort.name())));
        pairs.extend(self.in_stock.then_some(("stock", "in")));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Listing {
        Listing::read(Of::Category, "/category/kitchen".to_owned(), query)
    }

    #[test]
    fn each_list_has_one_address() {
        for (sent, address) in [
            ("", None),
            ("utm_source=mail", None),
            ("cursor=x&price=25-50&sort=price_asc&stock=in", None),
            ("sort=newest", Some("/category/kitchen")),
            ("sort=price_asc&price=25-50", Some("/category/kitchen?price=25-50&sort=price_asc")),
            ("price=1-2&stock=out&cursor=", Some("/category/kitchen?cursor=")),
            ("stock=in&stock=in", Some("/category/kitchen?stock=in")),
        ] {
            assert_eq!(read(sent).other_spelling().as_deref(), address, "{sent}");
        }
        let search = Listing::read(Of::Search, "/search".to_owned(), "q=%20red%20%20kettle");
        assert_eq!(search.other_spelling().as_deref(), Some("/search?q=red+kettle"));
    }

    #[test]
    fn what_was_found_is_narrowed_by_category_too() {
        let counted = [("kitchen", 0, true, 3), ("bath", 0, false, 1), ("bath", 1, true, 2)].map(
            |(category, band, in_stock, count)| Counted {
                category: Some(category.to_owned()),
                band,
                in_stock,
                count,
            },
        );
        let aisles =
            ["bath", "kitchen", "toys"].map(|slug| Aisle { slug: slug.to_owned(), name: slug.to_owned() });
        let read = |query: &str| Listing::read(Of::Search, "/search".to_owned(), query);
        let filters = |query: &str| -> Vec<(String, i64, String)> {
            let shown = read(query).shown(&counted, &aisles, None);
            let of = |one: &Value, name: &str| one[name].as_str().unwrap_or("").to_owned();
            let all = shown["filters"].as_array().expect("a list").iter();
            all.map(|one| (of(one, "words"), one["count"].as_i64().unwrap_or(-1), of(one, "address")))
                .collect()
        };
        let row = |words: &str, count: i64, address: &str| (words.to_owned(), count, address.to_owned());
        assert_eq!(
            filters("q=red"),
            [
                row("bath", 3, "/search?category=bath&q=red"),
                row("kitchen", 3, "/search?category=kitchen&q=red"),
                row("In stock", 5, "/search?q=red&stock=in"),
                row("Under €25", 4, "/search?price=0-25&q=red"),
                row("€25 to €50", 2, "/search?price=25-50&q=red"),
            ]
        );
        assert_eq!(
            filters("category=bath&price=0-25&q=red"),
            [
                row("bath", 1, "/search?price=0-25&q=red"),
                row("kitchen", 3, "/search?category=kitchen&price=0-25&q=red"),
                row("Under €25", 1, "/search?category=bath&q=red"),
                row("€25 to €50", 2, "/search?category=bath&price=25-50&q=red"),
            ]
        );
        assert_eq!(read("q=red&category=No+slug").address(), "/search?q=red");
        assert_eq!(read("category=bath&q=red").parameters(None).category.as_deref(), Some("bath"));
    }

    #[test]
    fn an_address_is_in_the_order_of_its_names() {
        let everything = "cursor=x&price=25-50&sort=name&stock=in";
        assert_eq!(read(everything).address(), format!("/category/kitchen?{everything}"));
        let search = Listing::read(Of::Search, "/search".to_owned(), "cursor=x&q=red&sort=name");
        assert_eq!(search.other_spelling(), None);
    }

    #[test]
    fn filters_count_what_they_would_leave() {
        let counted = [(0, true, 3), (0, false, 1), (1, true, 2), (3, false, 4)]
            .map(|(band, in_stock, count)| Counted { category: None, band, in_stock, count });
        let shown = read("price=0-25").shown(&counted, &[], Some("next"));
        let filters: Vec<_> = shown["filters"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (one["words"].as_str().unwrap_or(""), one["count"].as_i64(), one["address"].as_str()))
            .collect();
        assert_eq!(
            filters,
            [
                ("In stock", Some(3), Some("/category/kitchen?price=0-25&stock=in")),
                ("Under €25", Some(4), Some("/category/kitchen")),
                ("€25 to €50", Some(2), Some("/category/kitchen?price=25-50")),
                ("€100 and more", Some(4), Some("/category/kitchen?price=100-")),
            ]
        );
        assert_eq!(shown["next"], "/category/kitchen?cursor=next&price=0-25");
        assert_eq!(
            (&shown["narrowed"], &read("").shown(&[], &[], None)["narrowed"]),
            (&json!(true), &json!(false))
        );
    }
}
