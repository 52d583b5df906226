//! The origin keeps to its own description: schemathesis (PyPI) makes requests from the served OpenAPI, of the right form and of
//! wrong ones, and judges the answers by it. All its checks are on; contract/ says what is expected, and why.
#![expect(clippy::unwrap_used, reason = "a test that unwraps says where")]

use std::process::Command;

use gatehouse_tests::{
    binaries::repository,
    folder::Folder,
    origin::{Account, Origin, PASSWORD},
    python, tool,
};

#[test]
fn to_an_administrator_the_shop_answers_as_described() {
    let printed = run("admin@example.org");
    // Every operation has got behind the session and the role.
    assert!(!printed.contains("returned only 401/403"), "{printed}");
}

#[test]
fn to_a_customer_the_shop_answers_as_described() {
    let printed = run("customer@example.org");
    // And so has every one that is a customer's. A password that was forgotten is reset by a token out of a mail, which nobody reads
    // here: that is a 404.
    let refused = printed.lines().filter_map(|line| line.strip_prefix("  - "));
    let customers = |operation: &&str| {
        let others = [
            "/api/products",
            "/api/categories",
            "/api/office",
            "/api/pictures",
            "PUT /api/account/forgotten",
        ];
        !others.iter().any(|path| operation.contains(path))
    };
    let refused: Vec<&str> = refused.filter(customers).collect();
    assert!(refused.is_empty(), "{refused:?} only ever answered 401 or 403");
}

/// Runs it for somebody with this address; `admin…` is an administrator. What it printed, when it found nothing wrong.
#[track_caller]
fn run(email: &str) -> String {
    let requirements = repository().join("tests/contract/requirements.txt");
    let schemathesis = python::environment("contract", &requirements).join("bin/schemathesis");
    let origin = Origin::start("seed_when_empty = 60\n[purge]\nedges = []\n");
    let account = Account::register(origin.address(), email);
    if email.starts_with("admin") {
        origin.promote(email);
    }
    let other = Account::register(origin.address(), "other@example.org");
    // It keeps a folder of its own where it runs.
    let folder = Folder::new();
    let shop = format!("http://{}", origin.address());
    let mut command = Command::new(schemathesis);
    command
        .arg("--config-file")
        .arg(repository().join("tests/contract/schemathesis.toml"))
        .args(["run", "--no-color", "--checks", "all", "--continue-on-failure"])
        .arg(format!("{shop}/api/openapi.json"))
        .current_dir(folder.path())
        .env("CONTRACT_HOOKS", repository().join("tests/contract/hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CONTRACT_SHOP", &shop)
        .env("CONTRACT_EMAIL", &account.email)
        .env("CONTRACT_PASSWORD", PASSWORD)
        .env("CONTRACT_SESSION", &account.session)
        .env("CONTRACT_OTHER_SESSION", &other.session);
    let printed = tool::run_command(&mut command);
    println!("{printed}");
    let count = |label: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap();
        line.trim().split(['/', ' ']).next().unwrap().parse::<u32>().unwrap()
    };
    let described: serde_json::Value = origin.curl("/api/openapi.json").send().json();
    let operations: usize =
        described["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(count("Tested:") as usize, operations);
    printed
}
