//! Connections to the upstream are kept and used again, as long as their server lets them.

use scripted_upstream::Reply;

use crate::{
    front::{PASSED, front_with, pass},
    upstream::Upstream,
};

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_used_as_long_as_its_server_says_it_will_close_it() {
    for (announced, connections) in [("timeout=5", 2), ("timeout=10", 1)] {
        let upstream = Upstream::start(move |_| Reply::ok("x").header("keep-alive", announced));
        let front = front_with(&upstream, PASSED);
        front.get("/").await;
        pass(5).await;
        front.get("/").await;
        assert_eq!(upstream.connections(), connections, "{announced}");
    }
}
