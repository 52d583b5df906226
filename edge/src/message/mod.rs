//! The words that all rooms share. Nothing here imports any of them.

pub mod affinity;
pub mod body_error;
pub mod byte_budget;
pub mod byte_stream;
pub mod certified;
pub mod challenges;
pub mod client_budget;
pub mod client_shares;
pub mod content;
pub mod entity_tag;
pub mod failure;
pub mod head_room;
pub mod hop_by_hop;
pub mod interim;
pub mod long_lived;
pub mod number;
pub mod on_demand;
pub mod patience;
pub mod reasons;
pub mod request_id;
pub mod shared_orders;
pub mod target;
pub mod ticket_keys;
pub mod trailers;
pub mod turn;
pub mod websocket;
