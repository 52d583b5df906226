//! What the capacity guide asks of the shop: two hundred at once, and no error; and `make load`, in small.

use gatehouse_tests::{
    binaries::repository,
    capacity::{
        DEPLOYMENTS, PAINTED, SCREENS, Scale, measure,
        report::{self, TARGETS},
        visitor::Step,
    },
    load, shop,
};

#[test]
fn two_hundred_visitors_at_once_see_the_shop() {
    let shop = shop::start();
    let page = load::ab(shop.clear(), "/", 200, 200);
    assert_eq!((page.complete, page.failed, page.not_2xx), (200, 0, 0), "{page:?}");
    let assets = shop.curl_h2("/").send().text();
    let script = assets.split('"').find(|part| part.starts_with("/assets/") && part.contains(".js")).unwrap();
    for path in ["/", script] {
        let load = load::h2load(shop.tls(), path, 2_000, 200, 4);
        assert_eq!((load.complete, load.failed, load.not_2xx), (2_000, 0, 0), "{path}: {load:?}");
    }
}

#[test]
fn visitors_end_with_orders_and_the_report_has_every_row() {
    let scale = Scale::small();
    let results = measure(scale.clone(), |_| {}).unwrap();
    for guide in &results.guide {
        assert!(guide.load.complete > 0, "{guide:?}");
        assert_eq!((guide.load.failed, guide.load.not_2xx), (0, 0), "{guide:?}");
    }
    assert_eq!(results.runs.len(), DEPLOYMENTS.len() * scale.crowds.len());
    for run in &results.runs {
        let who = format!("{}, {} users", run.deployment.name, run.users);
        assert_eq!(run.account.faults(), Vec::<&str>::new(), "{who}");
        assert!(run.account.orders() > 0 && run.account.visits() > 0, "{who}: {:?}", run.account.steps);
        assert!(run.cpu.all() > 0.0 && run.seen.open > 0 && run.seen.kib > 0, "{who}: {run:?}");
        // By the last crowd every edge has been asked.
        let is_last = Some(&run.users) == scale.crowds.last();
        assert!(!is_last || run.account.hit_share(Step::Home) > 0.5, "{who}: {:?}", run.account.steps);
    }
    assert!(results.costs.steps.iter().any(|cost| cost.miss.origin > 0.0), "{:?}", results.costs);
    let tables = results.tables();
    let rows = |beginning: &str| tables.lines().filter(|line| line.starts_with(beginning)).count();
    for deployment in DEPLOYMENTS {
        for users in &scale.crowds {
            // As measured, and as predicted.
            assert_eq!(rows(&format!("| {} | {users} |", deployment.name)), 2, "{tables}");
        }
    }
    for target in TARGETS {
        assert!(tables.contains(target), "{target} in\n{tables}");
    }
    for (page, ..) in PAINTED {
        for (screen, ..) in SCREENS {
            assert_eq!(rows(&format!("| {page} | {screen} |")), 1, "{tables}");
        }
    }
    for step in Step::ALL {
        assert!(rows(&format!("| {} |", step.name())) > 0, "{tables}");
    }
    assert_eq!((rows("| `ab "), rows("| `artillery ")), (1, 1), "{tables}");
    assert_eq!((rows("| one for everything"), rows("| one for edge and database")), (3, 3), "{tables}");
    // The document that `make load` writes has a place for them.
    let document = std::fs::read_to_string(repository().join("docs/capacity.md")).unwrap();
    assert!(report::placed(&document, &tables).unwrap().contains(&tables[..100]));
}
