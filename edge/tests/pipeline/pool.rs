//! Connections to the upstream are kept and used again, as long as their server lets them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use edge::upstream::connect::{Dial, Dialling};

use crate::script::{Origin, Reply, answer, front_over, pass};

#[tokio::test(start_paused = true)]
async fn a_connection_is_not_used_as_long_as_its_server_says_it_will_close_it() {
    const PASSED: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"origin\"\n";
    for (announced, connections) in [("timeout=5", 2), ("timeout=10", 1)] {
        let origin = Origin::new(move |_| Reply::Now(answer(200, &[("keep-alive", announced)], "x")));
        let counting = Arc::new(Counting(origin, AtomicUsize::new(0)));
        let front = front_over(Arc::clone(&counting) as Arc<dyn Dial>, PASSED);
        front.get("/").await;
        pass(5).await;
        front.get("/").await;
        assert_eq!(counting.1.load(Ordering::Relaxed), connections, "{announced}");
    }
}

/// Counts the connections that are opened to an origin.
struct Counting(Origin, AtomicUsize);

impl Dial for Counting {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.dial(host, port)
    }
}
