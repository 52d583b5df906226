//! What binds a request to one server of its upstream.

/// What binds a request to one server of its upstream, where the upstream's settings ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    #[default]
    None,
    /// Requests with the same number go to the same server.
    Hash(u64),
    /// The server of this id, where the client was before.
    Server(u64),
}

/// A number for some octets, the same in every edge and after every start (FNV-1a, spread).
pub fn number_of(octets: &[u8]) -> u64 {
    let fnv = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    mixed(octets.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Spreads a number's bits over all of it (SplitMix64's finalizer).
pub fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
