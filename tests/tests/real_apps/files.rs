//! A server of files that browsers page through: `serve` (npm) behind the recipe of one app by its port.

use std::process::Command;

use gatehouse_tests::{
    address, browser::Browser, edge::Edge, folder::Folder, npm, process::Process, raw::Raw, recipe, tool,
    wait,
};

use crate::{all_is_well, page};

#[test]
fn folders_are_browsed_and_parts_of_files_come_from_the_cache() {
    let here = address::own();
    let folder = Folder::new();
    let content: String = (0..20_000).map(|number| format!("{number:05}\n")).collect();
    folder.write("public/deep/numbers.txt", &content);
    folder.write("public/deep/other.txt", "other");
    let mut node = Command::new(tool::find(&["node"], "nodejs"));
    node.arg(npm::packages("apps/files").join("serve/build/main.js")).current_dir(folder.path());
    node.args(["--no-clipboard", "--listen", &format!("tcp://{here}"), "public"]);
    let _serve = Process::start("serve", &mut node);
    wait::until("it listens", || Raw::try_connect(here).map(drop));

    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"";
    let settings = recipe::settings(
        "express",
        &[
            ("[[listen]]\naddress = \"[::]:8443\"", &format!("{listen}\n\n{listen}")),
            ("127.0.0.1:9900", "127.0.0.1:0"),
            ("127.0.0.1:3000", &here.to_string()),
        ],
    );
    let place = Folder::new();
    place.write("edge.toml", &settings);
    let edge = Edge::start_in(place);
    let browser = &mut Browser::start();
    browser.open(&page(&edge, "/"));
    browser.follow("a[href='/deep/'], a[href='/deep'], a[title='deep/']");
    assert!(browser.text("body").contains("numbers.txt"));
    browser.open(&page(&edge, "/deep/numbers.txt"));
    assert!(browser.text("body").starts_with("00000"));
    all_is_well(browser);

    let part = |range: &str| edge.curl_h2("/deep/numbers.txt").header(&format!("Range: {range}")).send();
    for (range, expected) in [("bytes=6-10", "00001"), ("bytes=-6", "19999\n"), ("bytes=119994-", "19999\n")]
    {
        let answer = part(range);
        assert_eq!((answer.status, answer.text().as_str()), (206, expected), "{range}");
    }
    assert_eq!(part("bytes=200000-").status, 416);
    let whole = edge.curl_h2("/deep/numbers.txt").send();
    assert_eq!(whole.text(), content);
    let again =
        edge.curl_h2("/deep/numbers.txt").header(&format!("If-None-Match: {}", whole.must("etag"))).send();
    assert_eq!(again.status, 304, "{again:#?}");
}
