//! What administrators see and put right, and customers do not.

use http::{Method, StatusCode};
use serde_json::{Value, json as value};

use crate::{
    requests::{Customer, get},
    test_server::TestServer,
};

const KETTLE: &str = "/api/office/products/harbour-enamel-kettle";

async fn outbox(server: &TestServer) -> Vec<Value> {
    sqlx::query_scalar::<_, sqlx::types::Json<Value>>("SELECT payload -> 'tags' FROM outbox ORDER BY id")
        .fetch_all(&mut server.connect().await)
        .await
        .expect("the outbox")
        .into_iter()
        .map(|tags| tags.0)
        .collect()
}

#[tokio::test]
async fn the_office_is_for_administrators() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let ada = Customer::register(&router, "ada@example.org").await;
    for path in ["/api/office/products", KETTLE, "/api/office/orders", "/api/office/orders/1"] {
        assert_eq!(get(&router, path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(ada.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for (method, path, body) in [
        (Method::PUT, format!("{KETTLE}/stock"), value!({ "was": 1, "is": 2 })),
        (Method::POST, "/api/categories".to_owned(), value!({ "slug": "x", "name": "X" })),
        (Method::PATCH, "/api/categories/kitchen".to_owned(), value!({ "name": "X" })),
    ] {
        assert_eq!(ada.send(method, &path, &[], &body).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_offered_is_listed_read_and_brought_back() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    sqlx::query("UPDATE products SET active = (id <> 1)")
        .execute(&mut server.connect().await)
        .await
        .expect("one goes");
    assert_eq!(get(&router, "/api/products/harbour-enamel-kettle").await.status, StatusCode::NOT_FOUND);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = administrator.get(&format!("/api/office/products?limit=5{cursor}")).await.json();
        for product in page["products"].as_array().expect("products") {
            seen.push((
                product["id"].as_i64().expect("an id"),
                product["active"].as_bool().expect("a state"),
            ));
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 12);
    assert_eq!(seen.iter().find(|(_, active)| !active), Some(&(1, false)));
    let hidden = administrator.get(KETTLE).await;
    assert_eq!((hidden.status, &hidden.json()["active"]), (StatusCode::OK, &value!(false)));
    let condition = [("if-match", hidden.header("etag"))];
    let path = "/api/products/harbour-enamel-kettle";
    let back = administrator.send(Method::PATCH, path, &condition, &value!({ "active": true })).await;
    assert_eq!(back.status, StatusCode::OK);
    assert_eq!(get(&router, path).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stock_is_corrected_by_who_knows_what_it_was() {
    let server = TestServer::start(12).await;
    let administrator = Customer::administrator(&server, &server.router()).await;
    let was = administrator.get(KETTLE).await.json()["stock"].as_i64().expect("a stock");
    let correct = async |was: i64, is: i64| {
        let body = value!({ "was": was, "is": is });
        administrator.send(Method::PUT, &format!("{KETTLE}/stock"), &[], &body).await
    };
    let corrected = correct(was, 3).await;
    assert_eq!((corrected.status, &corrected.json()["stock"]), (StatusCode::OK, &value!(3)));
    assert_eq!(correct(was, 5).await.status, StatusCode::PRECONDITION_FAILED, "something was sold since");
    assert_eq!(outbox(&server).await, [value!(["product-1"])]);
    assert_eq!(correct(3, 0).await.status, StatusCode::OK);
    assert_eq!(outbox(&server).await[1], value!(["catalogue", "category-kitchen", "product-1"]));
    assert_eq!(correct(0, -1).await.json()["errors"][0]["field"], "is");
}

#[tokio::test]
async fn categories_are_made_and_renamed_and_what_shows_them_is_purged() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    let new = value!({ "slug": "garden-tools", "name": "Garden tools", "position": 3 });
    let made = administrator.send(Method::POST, "/api/categories", &[], &new).await;
    assert_eq!((made.status, &made.json()["slug"]), (StatusCode::CREATED, &"garden-tools".into()));
    let again = administrator.send(Method::POST, "/api/categories", &[], &new).await;
    assert_eq!(
        (again.status, &again.json()["type"]),
        (StatusCode::CONFLICT, &"urn:gatehouse:problem:slug-taken".into())
    );
    let change = async |slug: &str, body: &Value| {
        administrator.send(Method::PATCH, &format!("/api/categories/{slug}"), &[], body).await
    };
    assert_eq!(change("kitchen", &value!({ "name": "Cooking" })).await.json()["name"], "Cooking");
    assert_eq!(change("unknown", &value!({ "name": "X" })).await.status, StatusCode::NOT_FOUND);
    for (body, field) in [
        (value!({ "name": null }), "name"),
        (value!({ "position": null }), "position"),
        (value!({ "name": "" }), "name"),
    ] {
        let refused = change("kitchen", &body).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["errors"][0]["field"]), (422, &field.into()));
    }
    let listed = get(&router, "/api/categories").await.json();
    let names: Vec<_> =
        listed["categories"].as_array().expect("categories").iter().map(|it| &it["name"]).collect();
    assert!(names.contains(&&value!("Cooking")) && names.contains(&&value!("Garden tools")), "{names:?}");
    assert_eq!(
        outbox(&server).await,
        [
            value!(["catalogue", "categories", "category-garden-tools"]),
            value!(["catalogue", "categories", "category-kitchen"])
        ]
    );
}

#[tokio::test]
async fn administrators_see_everybodys_orders() {
    let server = TestServer::start(12).await;
    let router = server.router();
    let administrator = Customer::administrator(&server, &router).await;
    let ada = Customer::register(&router, "ada@example.org").await;
    sqlx::query("UPDATE products SET stock = 9, active = true")
        .execute(&mut server.connect().await)
        .await
        .expect("stock");
    for key in ["k1", "k2", "k3"] {
        let lines = value!({ "lines": [{ "product_id": 1, "quantity": 1 }] });
        ada.send(Method::POST, "/api/orders", &[("idempotency-key", key)], &lines).await;
    }
    let first = administrator.get("/api/office/orders?limit=2").await.json();
    let next = first["next_cursor"].as_str().expect("another page").to_owned();
    let second = administrator.get(&format!("/api/office/orders?limit=2&cursor={next}")).await.json();
    let ids = |page: &Value| -> Vec<Value> {
        page["orders"].as_array().expect("orders").iter().map(|order| order["id"].clone()).collect()
    };
    assert_eq!((ids(&first), ids(&second)), (vec![value!(3), value!(2)], vec![value!(1)]));
    assert_eq!(first["orders"][0]["email"], "ada@example.org");
    assert_eq!(administrator.get("/api/office/orders/1").await.json(), ada.get("/api/orders/1").await.json());
    assert_eq!(administrator.get("/api/office/orders/99").await.status, StatusCode::NOT_FOUND);
}
