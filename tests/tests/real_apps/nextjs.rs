//! Next.js (npm): a page that is built again in time, an API with a session in a cookie, notes of each user by a server action.

use std::{path::PathBuf, process::Command};

use gatehouse_tests::{
    address,
    binaries::{build_folder, repository},
    browser::Browser,
    edge::Edge,
    npm,
    process::Process,
    raw::Raw,
    tool, wait,
};

use crate::{all_is_well, asked, edge_by, nothing_of_a_user_is_shared, page};

/// The app, built beside the packages that it is built with.
fn built() -> PathBuf {
    let packages = npm::packages("apps/next");
    let place = build_folder().join("apps/next");
    let source = repository().join("tests/apps/next");
    for name in ["app", "next.config.js"] {
        let mut copy = Command::new(tool::find(&["cp"], "coreutils"));
        tool::run_command(copy.arg("-r").arg(source.join(name)).arg(&place));
    }
    tool::run_command(next(&packages, &place).arg("build"));
    place
}

fn next(packages: &std::path::Path, place: &std::path::Path) -> Command {
    let mut command = Command::new(tool::find(&["node"], "nodejs"));
    command.arg(packages.join("next/dist/bin/next")).current_dir(place).env("NEXT_TELEMETRY_DISABLED", "1");
    command
}

fn enter(browser: &mut Browser, edge: &Edge, name: &str) {
    browser.open(&page(edge, "/notes"));
    browser.fill("#name", name);
    browser.follow("#enter");
    assert_eq!(browser.text("#who"), name);
}

#[test]
fn pages_for_everyone_are_stored_and_notes_stay_with_their_author() {
    let place = built();
    let here = address::own();
    let mut command = next(&place.join("node_modules"), &place);
    command.args(["start", "--hostname", &here.ip().to_string(), "--port", &here.port().to_string()]);
    let _next = Process::start("next", &mut command);
    wait::until("Next.js listens", || Raw::try_connect(here).map(drop));
    let mut edge = edge_by("nextjs", &[("127.0.0.1:3000", &here.to_string())]);

    let front = |edge: &Edge| edge.curl_h2("/").send();
    let first = front(&edge);
    assert!(first.must("cache-control").contains("s-maxage"), "{first:#?}");
    assert!(front(&edge).is_hit());
    let script = first.text();
    let script = script.split("src=\"/_next/static/").nth(1).and_then(|rest| rest.split('"').next());
    let script = format!("/_next/static/{}", script.expect("the page has a script"));
    assert!(edge.curl_h2(&script).send().must("cache-control").contains("immutable"));
    assert!(edge.curl_h2(&script).send().is_hit(), "{script}");
    // What was built at first is shown no more once its time is over: never by a restart or a purge.
    wait::until("it is built again", || (front(&edge).text() != first.text()).then_some(()));
    // Its own script asks for the data of a page so; without the parameter it is sent to this address.
    let flight = edge.curl_h2("/?_rsc").header("RSC: 1").send();
    assert!(flight.must("content-type").contains("text/x-component"), "{flight:#?}");
    assert!(front(&edge).must("content-type").contains("text/html"), "the two stay apart");

    let (ada, bob, from) = (&mut Browser::start(), &mut Browser::start(), asked(&mut edge).len());
    enter(ada, &edge, "ada");
    ada.fill("#note", "whistles");
    ada.click("#add");
    ada.wait_until("document.querySelector('li')?.textContent === 'whistles'");
    ada.open(&page(&edge, "/notes"));
    assert_eq!(ada.text("li"), "whistles");
    ada.screenshot(&build_folder().join("screenshots/next-ada.png"));
    nothing_of_a_user_is_shared(&mut edge, from, &["assets", "tls"], &["whistles", "id=\"who\""]);
    enter(bob, &edge, "bob");
    assert_eq!(bob.text("li"), "");
    ada.evaluate("fetch('/api/session', { method: 'DELETE' }).then(() => true)");
    ada.open(&page(&edge, "/notes"));
    assert_eq!(ada.evaluate("document.querySelector('#name') !== null"), true, "she is out");
    bob.open(&page(&edge, "/notes"));
    assert_eq!(bob.text("#who"), "bob", "and he is not");
    for browser in [&*ada, &*bob] {
        all_is_well(browser);
    }
}
