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

/// `hosts = ["shop.example."]` met no request, since requests lose the dot; a path written `/caf%c3%a9/*` met only
/// requests written so, and those in another spelling took the next route, with the same cache key.
#[tokio::test(start_paused = true)]
async fn a_route_meets_requests_for_its_host_and_path_in_every_spelling() {
    let upstream = Upstream::start(saying(&[], "hello"));
    let route = "[[routes]]\nname = \"a\"\nhosts = [\"shop.example.\"]\npath = \"/caf%c3%a9/*\"\nupstream = \"origin\"\n";
    let front = front_with(&upstream, route);
    for target in ["/caf%c3%a9/x", "/caf%C3%A9/x", "/%63af%c3%A9//x", "/caf%C3%A9/%"] {
        for host in ["shop.example", "SHOP.example.", "shop.example.:443"] {
            let got = front.send(http::Request::get(target).header("host", host)).await;
            assert_eq!(got.status, 200, "{target} {host}");
        }
    }
    assert_eq!(front.get("/caf%C3%A8/x").await.status, 404);
}
