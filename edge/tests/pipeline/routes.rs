//! Which route a request takes.

use scripted_upstream::saying;

use crate::{front::front_with, upstream::Upstream};

#[tokio::test(start_paused = true)]
async fn a_path_without_a_route_is_a_404_of_the_edge() {
    let upstream = Upstream::start(saying(&[], "hello"));
    let front = front_with(&upstream, "[[routes]]\nname = \"a\"\npath = \"/a/*\"\nupstream = \"origin\"\n");
    let got = front.get("/b").await;
    assert_eq!((got.status, upstream.count()), (404, 0));
    assert!(got.text().contains("no-route"));
}
