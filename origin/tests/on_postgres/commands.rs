//! The `origin` command on a database that is not its own, and its messages.

use std::process::Output;

use crate::{
    origin_process::Origin,
    test_server::{TestServer, folder},
};

async fn origin(arguments: &[&str], database: Option<&str>) -> Output {
    let data = folder();
    let mut command = Origin::command(data.path());
    if let Some(url) = database {
        command.env("DATABASE_URL", url);
    }
    command.args(arguments).output().await.expect("origin runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_foreign_database_is_migrated_on_request_only() {
    let server = TestServer::start(1).await;
    let mut connection = server.connect().await;
    sqlx::query("CREATE DATABASE foreign_one").execute(&mut connection).await.expect("a database");
    let socket = server.socket().display();
    let url = format!("postgres://gatehouse@localhost/foreign_one?host={socket}&sslmode=disable");

    let refused = origin(&["serve"], Some(&url)).await;
    assert_eq!(refused.status.code(), Some(1));
    let all =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations")).expect("a folder").count();
    let lacking = format!("lacks {all} migrations: run `origin migrate`");
    assert!(errors(&refused).contains(&lacking), "{}", errors(&refused));
    let refused = origin(&["seed", "--products", "5"], Some(&url)).await;
    assert!(errors(&refused).contains("run `origin migrate`"), "{}", errors(&refused));

    for applied in [format!("{all} migrations applied"), "0 migrations applied".to_owned()] {
        let migrated = origin(&["migrate"], Some(&url)).await;
        assert!(migrated.status.success() && errors(&migrated).contains(&applied), "{}", errors(&migrated));
    }
    let seeded = origin(&["seed", "--products", "5"], Some(&url)).await;
    assert!(seeded.status.success() && errors(&seeded).contains("5 products added"), "{}", errors(&seeded));
}

#[tokio::test]
async fn a_wrong_setting_is_shown_with_its_place() {
    let folder = folder();
    let file = folder.path().join("origin.toml");
    std::fs::write(&file, "[database]\nmax_conections = 5\n").expect("a settings file");
    let output = origin(&["serve", "--config", file.to_str().expect("UTF-8")], None).await;
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(
        message.contains("origin.toml:2:1: unknown field `max_conections`, expected one of"),
        "{message}"
    );
    assert!(message.contains("2 | max_conections = 5\n  | ^^^^^^^^^^^^^^"), "{message}");
}
