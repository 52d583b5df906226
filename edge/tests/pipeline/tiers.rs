//! A tier behind memory: asked once for all who wait, before the upstream; never in anybody's way; purged before a purge is
//! acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use cache_policy::Tag;
use edge::{
    cache::{
        Key, StoredBody,
        purge::{Force, Generation, Rule},
        tier::{Found, Hearing, Hears, Kept, Offered, Purge, Tier, TierFuture},
        tiers::TierBounds,
    },
    pipeline::purge::{NotPurged, PurgeRequest as Posted},
};
use http::{HeaderMap, Request};
use scripted_upstream::{Gate, Reply, saying};

use crate::{
    front::{CACHED, Front, front_before, pass, settle, start},
    upstream::Upstream,
};

const FRESH: &[(&str, &str)] =
    &[("cache-control", "max-age=60, stale-if-error=600"), ("etag", "\"v1\""), ("surrogate-key", "shoe")];

/// A tier in memory that does as it is told.
#[derive(Default)]
struct Shelf {
    kept: Mutex<HashMap<String, (Kept, StoredBody)>>,
    acts: Mutex<Act>,
    looked_up: AtomicUsize,
    offered: AtomicUsize,
    /// The way in for others who share it.
    hears: Mutex<Option<Arc<dyn Hears>>>,
}

/// How it answers when it is asked for something.
#[derive(Clone, Default)]
enum Act {
    #[default]
    AtOnce,
    /// With what was there when it was asked, once the gate is open.
    After(Gate),
    Late,
    Fails,
}

impl Act {
    async fn perform(self) -> Result<(), edge::cache::tier::TierError> {
        match self {
            Self::AtOnce => {}
            Self::After(gate) => gate.passed().await,
            Self::Late => tokio::time::sleep(Duration::from_secs(3600)).await,
            Self::Fails => return Err("scripted".into()),
        }
        Ok(())
    }
}

impl Tier for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn look_up<'a>(&'a self, key: &'a Key, request: &'a HeaderMap) -> TierFuture<'a, Option<Found>> {
        self.looked_up.fetch_add(1, Relaxed);
        let act = self.acts.lock().unwrap().clone();
        let kept = self.kept.lock().unwrap().get(key.as_str()).cloned();
        Box::pin(async move {
            act.perform().await?;
            Ok(kept.filter(|(kept, _)| kept.answers(request)).map(|(kept, body)| Found {
                kept,
                length: body.length(),
                body: Box::pin(async { Ok(body) }),
            }))
        })
    }

    fn offer(&self, key: &Key, offered: Offered) {
        let Offered { kept, body, began: _ } = offered;
        self.offered.fetch_add(1, Relaxed);
        self.kept.lock().unwrap().insert(key.as_str().to_owned(), (kept, body));
    }

    fn forget(&self, key: &Key) {
        self.kept.lock().unwrap().remove(key.as_str());
    }

    fn attach(&self, edge: Arc<dyn Hears>) {
        *self.hears.lock().unwrap() = Some(edge);
    }

    fn purge<'a>(&'a self, purge: &'a Purge) -> TierFuture<'a, Option<u64>> {
        let act = self.acts.lock().unwrap().clone();
        Box::pin(async move {
            act.perform().await?;
            let mut purged = 0;
            self.kept.lock().unwrap().retain(|key, (kept, _)| {
                let matches = purge.matches(key, kept);
                purged += u64::from(matches);
                if matches && purge.force == Force::Soft {
                    kept.fresh_until = kept.fresh_until.min(purge.at);
                }
                !matches || purge.force == Force::Soft
            });
            Ok(Some(purged))
        })
    }
}

impl Shelf {
    /// What the edge in front of it is told by whoever shares it.
    fn hears(&self) -> Arc<dyn Hears> {
        Arc::clone(self.hears.lock().unwrap().as_ref().unwrap())
    }

    fn acts(&self, act: Act) {
        *self.acts.lock().unwrap() = act;
    }

    fn has(&self, target: &str) -> bool {
        self.kept.lock().unwrap().contains_key(&format!("https://shop.example:443{target}"))
    }

    fn looked_up(&self) -> usize {
        self.looked_up.load(Relaxed)
    }
}

fn front(shelf: &Arc<Shelf>, upstream: &Upstream) -> Front {
    front_bounded(shelf, TierBounds::default(), upstream, start())
}

fn front_bounded(
    shelf: &Arc<Shelf>,
    bounds: TierBounds,
    upstream: &Upstream,
    wall: std::time::SystemTime,
) -> Front {
    let tier: Arc<dyn Tier> = Arc::clone(shelf) as Arc<dyn Tier>;
    front_before(vec![(tier, bounds)], wall, Arc::new(upstream.clone()), CACHED)
}

/// A shelf on which an edge that is gone has left the answers to these targets, `seconds` ago, and an edge that has just
/// started.
async fn restarted(upstream: &Upstream, targets: &[&str], seconds: u64) -> (Arc<Shelf>, Front) {
    let shelf = Arc::<Shelf>::default();
    let before = front(&shelf, upstream);
    for target in targets {
        assert_eq!(before.get(target).await.cache(), "fwd=uri-miss");
    }
    pass(seconds).await;
    shelf.looked_up.store(0, Relaxed);
    let after = front_bounded(&shelf, TierBounds::default(), upstream, before.edge.clock.wall());
    (shelf, after)
}

fn outcomes(front: &Front, what: &str) -> Vec<String> {
    front.metric_lines(&format!("gatehouse_edge_tier_{what}_total{{tier=\"shelf\",outcome="))
}

async fn purge(front: &Front, rule: Rule, force: Force) -> usize {
    let purged = front.edge.memory.purge_all_tiers(vec![rule], force, front.edge.clock.now()).await;
    assert!(purged.tiers.iter().all(|(_, told)| told.is_ok()), "{purged:?}");
    purged.memory
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_for_what_a_tier_has_look_it_up_once_and_ask_nobody_else() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (shelf, front) = restarted(&upstream, &["/"], 20).await;
    let gate = Gate::closed();
    shelf.acts(Act::After(gate.clone()));
    let requests: Vec<_> = (0..1000).map(|_| front.ask("/")).collect();
    settle().await;
    gate.open();
    for request in requests {
        let got = request.await.unwrap();
        assert_eq!((got.text(), got.field("age")), ("hello", "20"), "as old as it is on every clock");
        assert_eq!(got.field("cache-status"), "gatehouse; hit; ttl=40; detail=shelf");
    }
    assert_eq!((shelf.looked_up(), upstream.count()), (1, 1));
    let hit = front.get("/").await;
    assert_eq!(hit.field("cache-status"), "gatehouse; hit; ttl=40", "it is in memory now");
    assert_eq!(
        (shelf.looked_up(), shelf.offered.load(Relaxed)),
        (1, 1),
        "and not offered to where it came from"
    );
    assert_eq!(outcomes(&front, "look_ups"), [r#""found"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_offered_and_a_miss_asks_the_tier_before_the_origin() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let shelf = Arc::<Shelf>::default();
    let front = front(&shelf, &upstream);
    assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
    assert_eq!((shelf.looked_up(), shelf.offered.load(Relaxed), shelf.has("/")), (1, 1, true));
    assert_eq!(front.get("/").await.cache(), "hit");
    assert_eq!(shelf.looked_up(), 1, "memory is asked first");
}

#[tokio::test(start_paused = true)]
async fn a_part_is_cut_from_what_a_tier_has_and_a_condition_answered_by_it() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (_shelf, front) = restarted(&upstream, &["/", "/b"], 1).await;
    let part = front.get_with("/", &[("range", "bytes=1-2")]).await;
    assert_eq!((part.status, part.text()), (206, "el"));
    assert_eq!(front.get_with("/b", &[("if-none-match", "\"v1\"")]).await.status, 304);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_a_tier_does_not_have_is_fetched() {
    let vary = &[("cache-control", "max-age=60"), ("vary", "x-language")];
    let upstream = Upstream::start(saying(vary, "hello"));
    let (_shelf, front) = restarted(&upstream, &["/"], 1).await;
    assert_eq!(front.get_with("/", &[("x-language", "de")]).await.cache(), "fwd=uri-miss");
    assert_eq!(
        front.get("/").await.cache(),
        "fwd=vary-miss",
        "the tier keeps one variant, and that is another now"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_in_a_tier_is_validated_once_and_offered_again() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (shelf, front) = restarted(&upstream, &["/"], 100).await;
    upstream.change(|seen| {
        assert_eq!(seen.headers["if-none-match"], "\"v1\"");
        Reply::status(304).fields(FRESH).late(Duration::from_secs(1))
    });
    let requests: Vec<_> = (0..100).map(|_| front.ask("/")).collect();
    for request in requests {
        let got = request.await.unwrap();
        assert_eq!((got.status, got.text(), got.cache()), (200, "hello", "fwd=stale"));
    }
    assert_eq!((upstream.count(), shelf.looked_up()), (2, 1));
    assert_eq!(shelf.offered.load(Relaxed), 2, "as fresh as it is now");
    assert_eq!(front.get("/").await.cache(), "hit");
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_in_a_tier_stands_in_for_a_dead_origin() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (_shelf, front) = restarted(&upstream, &["/"], 100).await;
    upstream.stop();
    let got = front.get("/").await;
    assert_eq!((got.status, got.text(), got.field("age")), (200, "hello", "100"));
    assert!(got.field("cache-status").contains("stale-if-error"), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_contradicts_is_forgotten_in_the_tier_too() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let (shelf, front) = restarted(&upstream, &["/"], 100).await;
    upstream.change(|seen| match seen.headers.contains_key("if-none-match") {
        true => Reply::status(304).header("etag", "\"v2\""),
        false => Reply::ok("new").fields(&[("cache-control", "max-age=60"), ("etag", "\"v2\"")]),
    });
    assert_eq!(front.get("/").await.text(), "new");
    assert_eq!(upstream.count(), 3);
    let kept = shelf.kept.lock().unwrap();
    let (kept, _) = kept.values().next().unwrap();
    assert_eq!(kept.head["etag"], "\"v2\"");
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_is_slow_or_fails_is_as_good_as_none() {
    for (act, word) in [(Act::Late, "late"), (Act::Fails, "failed")] {
        let upstream = Upstream::start(saying(FRESH, "hello"));
        let (shelf, front) = restarted(&upstream, &["/"], 1).await;
        shelf.acts(act);
        let began = front.edge.clock.now();
        assert_eq!(front.get("/").await.cache(), "fwd=uri-miss");
        assert!(front.edge.clock.now().since(began) <= TierBounds::default().look_up, "{word}");
        assert_eq!(outcomes(&front, "look_ups"), [format!("\"{word}\"}} 1")]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_look_ups_than_are_granted_are_under_way() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let shelf = Arc::<Shelf>::default();
    let bounds = TierBounds { look_ups: 1, ..TierBounds::default() };
    let front = front_bounded(&shelf, bounds, &upstream, start());
    shelf.acts(Act::Late);
    let waits = front.ask("/a");
    settle().await;
    assert_eq!(front.get("/b").await.cache(), "fwd=uri-miss");
    assert_eq!(outcomes(&front, "look_ups"), [r#""busy"} 1"#], "the other waits still");
    assert_eq!(waits.await.unwrap().text(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_as_long_as_the_tier_says_is_not_served() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (shelf, front) = restarted(&upstream, &["/"], 1).await;
    struct Torn(Arc<Shelf>);
    impl Tier for Torn {
        fn name(&self) -> &'static str {
            "shelf"
        }
        fn look_up<'a>(&'a self, key: &'a Key, request: &'a HeaderMap) -> TierFuture<'a, Option<Found>> {
            Box::pin(async move {
                Ok(self
                    .0
                    .look_up(key, request)
                    .await?
                    .map(|found| Found { length: found.length + 1, ..found }))
            })
        }
        fn offer(&self, _: &Key, _: Offered) {}
        fn forget(&self, _: &Key) {}
        fn purge<'a>(&'a self, _: &'a Purge) -> TierFuture<'a, Option<u64>> {
            Box::pin(async { Ok(Some(0)) })
        }
    }
    let tier: Arc<dyn Tier> = Arc::new(Torn(shelf));
    let wall = front.edge.clock.wall();
    let torn = front_before(vec![(tier, TierBounds::default())], wall, Arc::new(upstream.clone()), CACHED);
    assert_eq!(torn.get("/").await.cache(), "fwd=uri-miss");
    assert_eq!(outcomes(&torn, "look_ups"), [r#""failed"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn a_purge_reaches_the_tier_by_every_rule_before_it_is_acknowledged() {
    for rule in [
        Rule::Key("https://shop.example:443/a".into()),
        Rule::Prefix("https://shop.example:443/a".into()),
        Rule::Host("shop.example".into()),
        Rule::Tag(Tag::Key("shoe".into())),
        Rule::Everything,
    ] {
        let upstream = Upstream::start(saying(FRESH, "old"));
        let (shelf, front) = restarted(&upstream, &["/a"], 1).await;
        assert_eq!(purge(&front, rule.clone(), Force::Hard).await, 0, "memory has nothing of it yet");
        assert!(!shelf.has("/a"), "{rule:?}");
        assert_eq!(front.get("/a").await.cache(), "fwd=uri-miss");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_tier_was_looking_for_when_the_purge_came_is_not_found_by_anyone_later() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let (shelf, front) = restarted(&upstream, &["/"], 1).await;
    upstream.change(|_| Reply::ok("new").fields(FRESH));
    let gate = Gate::closed();
    shelf.acts(Act::After(gate.clone()));
    let before = front.ask("/");
    settle().await;
    shelf.acts(Act::AtOnce);
    purge(&front, Rule::Everything, Force::Hard).await;
    let after = front.get("/").await;
    assert_eq!((after.text(), after.cache()), ("new", "fwd=uri-miss"), "it does not join what began before");
    gate.open();
    assert_eq!(before.await.unwrap().text(), "old", "who asked before the purge may have what was there");
    assert_eq!(front.get("/").await.text(), "new");
}

#[tokio::test(start_paused = true)]
async fn while_a_tier_is_being_purged_it_is_not_asked_for_what_that_is_about() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let (shelf, front) = restarted(&upstream, &["/a", "/b"], 1).await;
    upstream.change(|_| Reply::ok("new").fields(FRESH));
    let gate = Gate::closed();
    shelf.acts(Act::After(gate.clone()));
    let purging = tokio::spawn({
        let front = front.clone();
        async move { purge(&front, Rule::Key("https://shop.example:443/a".into()), Force::Hard).await }
    });
    settle().await;
    shelf.acts(Act::AtOnce);
    assert!(shelf.has("/a") && !purging.is_finished(), "the tier still has it");
    assert_eq!(front.get("/a").await.text(), "new");
    assert_eq!(front.get("/b").await.text(), "old", "another resource is none of the purge's concern");
    gate.open();
    purging.await.unwrap();
    assert_eq!(front.get("/a").await.text(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_a_tier_does_not_acknowledge_is_an_error_and_holds_all_the_same() {
    for act in [Act::Fails, Act::Late] {
        let upstream = Upstream::start(saying(FRESH, "old"));
        let (shelf, front) = restarted(&upstream, &["/"], 1).await;
        shelf.acts(act);
        let posted = Posted { everything: true, ..Posted::default() };
        let told = posted.run(&[], &front.edge.memory, front.edge.clock.now()).await;
        assert!(matches!(told, Err(NotPurged::Unacknowledged("shelf", _))), "{told:?}");
        shelf.acts(Act::AtOnce);
        upstream.change(|_| Reply::ok("new").cache_control("max-age=5"));
        assert_eq!(front.get("/").await.text(), "new");
        assert_eq!(shelf.looked_up(), 0, "it is out of step, and not asked");
        assert!(front.edge.memory.tiers().out_of_step());
        front.edge.memory.tiers().catch_up().await;
        assert!(!front.edge.memory.tiers().out_of_step() && !shelf.has("/"));
        front.get("/other").await;
        assert_eq!(shelf.looked_up(), 1, "now it is asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_purge_tells_a_tier_first_what_it_has_missed_and_is_acknowledged() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let (shelf, front) = restarted(&upstream, &["/a", "/b"], 1).await;
    let purged = async |prefix: &str| {
        let posted = Posted { prefixes: vec![prefix.to_owned()], ..Posted::default() };
        posted.run(&[], &front.edge.memory, front.edge.clock.now()).await
    };
    shelf.acts(Act::Fails);
    let told = purged("https://shop.example/a").await;
    assert!(matches!(told, Err(NotPurged::Unacknowledged("shelf", _))), "{told:?}");
    let told = purged("https://shop.example/b").await;
    assert!(matches!(told, Err(NotPurged::Unacknowledged("shelf", _))), "it fails still: {told:?}");
    shelf.acts(Act::AtOnce);
    let told = purged("https://shop.example/c").await;
    assert!(told.is_ok(), "{told:?}");
    assert!(!shelf.has("/a") && !shelf.has("/b") && !front.edge.memory.tiers().out_of_step());
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_nobody_waits_for_any_more_is_told_later() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let (shelf, front) = restarted(&upstream, &["/"], 1).await;
    shelf.acts(Act::Late);
    let purging = tokio::spawn({
        let front = front.clone();
        async move { purge(&front, Rule::Everything, Force::Hard).await }
    });
    settle().await;
    purging.abort();
    assert!(purging.await.unwrap_err().is_cancelled());
    shelf.acts(Act::AtOnce);
    assert!(front.edge.memory.tiers().out_of_step());
    front.edge.memory.tiers().catch_up().await;
    assert!(!shelf.has("/"));
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_makes_stale_in_the_tier() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let (_shelf, front) = restarted(&upstream, &["/"], 1).await;
    purge(&front, Rule::Everything, Force::Soft).await;
    pass(1).await;
    upstream.change(|seen| {
        assert!(seen.headers.contains_key("if-none-match"));
        Reply::status(304).fields(FRESH)
    });
    let got = front.get("/").await;
    assert_eq!((got.text(), got.cache()), ("hello", "fwd=stale"));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_answered_when_the_tier_has_forgotten_what_it_made_untrue() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "POST" => Reply::ok("").header("location", "/list"),
        _ => Reply::ok("x").fields(FRESH),
    });
    let (shelf, front) = restarted(&upstream, &["/item", "/list", "/other"], 1).await;
    front.send_body(Request::post("/item"), "change").await;
    assert_eq!((shelf.has("/item"), shelf.has("/list"), shelf.has("/other")), (false, false, true));
    shelf.acts(Act::Late);
    let began = front.edge.clock.now();
    front.send_body(Request::post("/other"), "change").await;
    assert!(
        front.edge.clock.now().since(began) <= TierBounds::default().purge,
        "a slow tier holds nobody up for long"
    );
    let began = front.edge.clock.now();
    front.send_body(Request::post("/other"), "change").await;
    assert_eq!(front.edge.clock.now(), began, "nor anybody else while it is out of step");
    shelf.acts(Act::AtOnce);
    assert_eq!(front.get("/other").await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_hangs_holds_up_five_look_ups_and_is_then_left_alone_for_ever_longer() {
    let upstream = Upstream::start(saying(FRESH, "hello"));
    let shelf = Arc::<Shelf>::default();
    let front = front(&shelf, &upstream);
    shelf.acts(Act::Late);
    let mut held_up = 0;
    for number in 0..60 {
        let began = front.edge.clock.now();
        assert_eq!(front.get(&format!("/{number}")).await.cache(), "fwd=uri-miss");
        held_up += usize::from(front.edge.clock.now() != began);
    }
    assert_eq!((held_up, shelf.looked_up()), (5, 5));
    for (seconds, tried) in [(1, 6), (1, 6), (1, 7), (3, 7), (1, 8)] {
        pass(seconds).await;
        front.get(&format!("/after/{tried}/{seconds}")).await;
        front.get(&format!("/again/{tried}/{seconds}")).await;
        assert_eq!(shelf.looked_up(), tried, "one look-up tries after each pause");
    }
    shelf.acts(Act::AtOnce);
    pass(30).await;
    for number in 0..5 {
        front.get(&format!("/well/{number}")).await;
    }
    assert_eq!(shelf.looked_up(), 13, "and once it answers it is asked as ever");
}

/// What another edge that shares the tier has purged.
async fn purged_elsewhere(front: &Front, shelf: &Shelf, rule: Rule, force: Force) {
    let purge = Purge { rules: vec![rule], force, at: start(), hearing: Hearing::Everyone };
    shelf.hears().purge(purge, front.edge.clock.now()).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_edge_purges_goes_from_memory_and_from_fetches_under_way() {
    let upstream = Upstream::start(saying(FRESH, "old"));
    let shelf = Arc::<Shelf>::default();
    let front = front(&shelf, &upstream);
    front.get("/a").await;
    upstream.change(|_| Reply::ok("old").fields(FRESH).late(Duration::from_secs(5)));
    let under_way = front.ask("/b");
    settle().await;
    upstream.change(|_| Reply::ok("new").fields(FRESH));
    purged_elsewhere(&front, &shelf, Rule::Tag(Tag::Key("shoe".into())), Force::Hard).await;
    shelf.kept.lock().unwrap().clear();
    for target in ["/a", "/b"] {
        let got = front.get(target).await;
        assert_eq!((got.text(), got.cache()), ("new", "fwd=uri-miss"), "{target}");
    }
    assert_eq!(under_way.await.unwrap().text(), "old", "it asked before");
    assert_eq!(front.get("/b").await.text(), "new");
}

#[tokio::test(start_paused = true)]
async fn an_offer_says_when_its_fetch_began() {
    struct Noted(Mutex<Vec<Generation>>, Mutex<Option<Arc<dyn Hears>>>);
    impl Tier for Noted {
        fn name(&self) -> &'static str {
            "shelf"
        }
        fn look_up<'a>(&'a self, _: &'a Key, _: &'a HeaderMap) -> TierFuture<'a, Option<Found>> {
            Box::pin(async { Ok(None) })
        }
        fn offer(&self, _: &Key, offered: Offered) {
            self.0.lock().unwrap().push(offered.began);
        }
        fn forget(&self, _: &Key) {}
        fn purge<'a>(&'a self, _: &'a Purge) -> TierFuture<'a, Option<u64>> {
            Box::pin(async { Ok(None) })
        }
        fn attach(&self, edge: Arc<dyn Hears>) {
            *self.1.lock().unwrap() = Some(edge);
        }
    }
    let noted = Arc::new(Noted(Mutex::default(), Mutex::default()));
    let tier: Arc<dyn Tier> = Arc::clone(&noted) as Arc<dyn Tier>;
    let upstream = Upstream::start(|_| Reply::ok("x").fields(FRESH).late(Duration::from_secs(5)));
    let front =
        front_before(vec![(tier, TierBounds::default())], start(), Arc::new(upstream.clone()), CACHED);
    let hears = Arc::clone(noted.1.lock().unwrap().as_ref().unwrap());
    let began = hears.generation();
    let waits = front.ask("/a");
    settle().await;
    // Of something else, while it is under way.
    purge(&front, Rule::Host("other.example".into()), Force::Hard).await;
    waits.await.unwrap();
    assert!(hears.generation() > began);
    assert_eq!(*noted.0.lock().unwrap(), [began], "and not when it was stored");
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_what_is_stored_is_validated_before_it_is_served() {
    let upstream = Upstream::start(|seen| match seen.headers.get("if-none-match") {
        Some(_) => Reply::status(304).fields(FRESH),
        None => Reply::ok("hello").fields(FRESH),
    });
    let shelf = Arc::<Shelf>::default();
    let front = front(&shelf, &upstream);
    let now = || front.edge.clock.now();
    shelf.hears().standing().grant(now() + Duration::from_secs(2));
    front.get("/").await;
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 1));
    // The process stands still, and goes on.
    tokio::time::advance(Duration::from_secs(10)).await;
    let got = front.get("/").await;
    assert_eq!((got.text(), got.cache(), upstream.count()), ("hello", "fwd=stale", 2));
    assert_eq!(
        front.metric_lines("gatehouse_edge_reasons_total{route=\"all\",reason=\"purges-unheard\"} "),
        ["1"]
    );
    assert_eq!(front.get_with("/", &[("cache-control", "only-if-cached")]).await.status, 504);
    shelf.hears().standing().grant(now() + Duration::from_secs(2));
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 2));
    shelf.hears().doubt();
    assert_eq!(
        (front.get("/").await.cache(), upstream.count()),
        ("fwd=stale", 3),
        "purges may have been lost"
    );
    assert_eq!((front.get("/").await.cache(), upstream.count()), ("hit", 3), "and once is enough");
    tokio::time::advance(Duration::from_secs(10)).await;
    upstream.stop();
    let got = front.get("/").await;
    assert_eq!((got.status, got.text()), (200, "hello"));
    assert!(got.field("cache-status").contains("fresh-on-error"), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_a_request_uses_no_fetch_that_began_before_it_came() {
    let version = Arc::<AtomicUsize>::default();
    let upstream = Upstream::start({
        let version = Arc::clone(&version);
        move |_| {
            let text = version.load(Relaxed).to_string();
            Reply::ok(text).fields(FRESH).late(Duration::from_secs(1))
        }
    });
    let shelf = Arc::<Shelf>::default();
    let front = front(&shelf, &upstream);
    shelf.hears().standing().end();
    let first = front.ask("/");
    settle().await;
    // Another edge purges what has changed, and this one does not hear of it.
    version.store(1, Relaxed);
    let later: Vec<_> = (0..100).map(|_| front.ask("/")).collect();
    assert_eq!(first.await.unwrap().text(), "0");
    for request in later {
        assert_eq!(request.await.unwrap().text(), "1");
    }
    assert_eq!(upstream.count(), 2, "they share the next fetch");
}
