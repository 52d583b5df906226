//! `make run-three`: three edges that are one, three instances of the origin, PostgreSQL with a replica, and Redis, until Ctrl-C.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use gatehouse_tests::three::Three;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From now on: what is started meanwhile gets the same signal from the terminal, and is seen to have ended.
    let (mut interrupt, mut terminate) = runtime
        .block_on(async {
            Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
        })
        .context("cannot listen for signals")?;
    println!("starting PostgreSQL and a replica, Redis, three origins and three edges …");
    let mut three = Three::start();
    show(&three)?;
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    println!("stopping");
    // Edges first: whoever is still being answered is answered to the end.
    three.edges.clear();
    three.origins.clear();
    Ok(())
}

fn show(three: &Three) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (number, edge) in (1..).zip(&three.edges) {
        writeln!(
            out,
            "edge-{number}: https://{} http://{} admin http://{}",
            edge.tls(),
            edge.clear(),
            edge.admin()
        )?;
    }
    for (number, origin) in (1..).zip(&three.origins) {
        writeln!(out, "origin-{number}: http://{}", origin.address())?;
    }
    let primary = three.primary.as_ref().context("it has just started")?;
    for (name, server) in [("primary", primary), ("replica", &three.replica)] {
        writeln!(out, "{name}: process {} in {}", server.id(), server.socket_folder().display())?;
    }
    writeln!(out, "redis: {}", three.redis.address())?;
    let (tls, authority) = (three.edges[0].tls(), three.edges[0].authority());
    let (port, authority) = (tls.port(), authority.display());
    writeln!(
        out,
        "\nOne shop at https://localhost:{port}, by any of its edges (what one has stored the others find):\n\
         \x20 for i in 1 2 3; do curl -sv --cacert {authority} --connect-to localhost:{port}:127.0.0.$i:{port} \
         https://localhost:{port}/api/products 2>&1 | grep -i cache-status; done\n\
         The primary dies, the replica takes its place, and the shop goes on:\n\
         \x20 kill -INT {} && psql -h {} -U gatehouse gatehouse -c 'SELECT pg_promote()'\n\
         Ctrl-C stops everything, and nothing is left.\nready",
        primary.id(),
        three.replica.socket_folder().display(),
    )?;
    out.flush()?;
    Ok(())
}
