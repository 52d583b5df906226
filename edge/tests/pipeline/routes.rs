//! Which route a request takes.

use crate::script::{Origin, front_with};

#[tokio::test(start_paused = true)]
async fn a_path_without_a_route_is_a_404_of_the_edge() {
    let origin = Origin::saying(&[], "hello");
    let front = front_with(&origin, "[[routes]]\nname = \"a\"\npath = \"/a/*\"\nupstream = \"origin\"\n");
    let got = front.get("/b").await;
    assert_eq!((got.status, origin.requests()), (404, 0));
    assert!(got.text().contains("no-route"));
}
