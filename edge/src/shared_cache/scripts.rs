//! What runs within Redis, each in one piece: see `scripts/control.lua` for what lies where.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($(#[doc = $doc:literal])+ $name:ident = $flags:literal $file:literal;)+) => {
        $(
            $(#[doc = $doc])+
            pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
                Script::new(concat!($flags, include_str!("scripts/control.lua"), include_str!($file)))
            });
        )+
    };
}

// Those without which purges would not be heard run also where Redis is full.
scripts! {
    /// Begins an epoch, or joins the one that is.
    JOIN = "#!lua flags=allow-oom\n" "scripts/join.lua";
    /// Says how far an edge has heard, and brings what it has not.
    POSITION = "#!lua flags=allow-oom\n" "scripts/position.lua";
    /// Forgets an edge.
    LEAVE = "#!lua flags=allow-oom\n" "scripts/leave.lua";
    /// Stamps, and tells.
    PURGE = "#!lua flags=allow-oom\n" "scripts/purge.lua";
    /// Finds a stored response.
    LOOK_UP = "#!lua flags=allow-oom\n" "scripts/look_up.lua";
    /// Keeps a response.
    WRITE = "#!lua\n" "scripts/write.lua";
    /// Exchanges what clients have spent.
    EXCHANGE = "#!lua\n" "scripts/exchange.lua";
    /// Keys of session tickets.
    TICKETS = "#!lua\n" "scripts/tickets.lua";
    /// Takes a turn at certificates.
    TURN = "#!lua\n" "scripts/turn.lua";
    /// Has all edges show a proof.
    SHOW = "#!lua\n" "scripts/show.lua";
    /// Forgets a resource.
    FORGET = "#!lua flags=allow-oom\n" "scripts/forget.lua";
}
