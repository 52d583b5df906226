//! How often a client may ask.

use scripted_upstream::saying;

use crate::{front::front_with, upstream::Upstream};

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_refused_with_a_time_to_come_back_and_then_admitted() {
    let upstream = Upstream::start(saying(&[("cache-control", "max-age=60")], "hello"));
    let front = front_with(
        &upstream,
        "[limits.api]\nrate = \"1/h\"\nburst = 2\n\
         [[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\nlimit = \"api\"\ncache = {}\n",
    );
    let first = front.get("/").await;
    assert_eq!((first.status, first.field("ratelimit-policy")), (200, "\"api\";q=2;w=7200"));
    assert_eq!(front.get("/").await.status, 200);
    let refused = front.get("/").await;
    assert_eq!((refused.status, refused.field("content-type")), (429, "application/problem+json"));
    assert!(refused.field("retry-after").parse::<u64>().unwrap() > 3000);
}
