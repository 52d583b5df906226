//! Apps that others wrote, behind the edge, with a browser in front: what their users do must work, and nothing that is one
//! user's may come to another.

mod django;
mod express;
mod grpc;
mod programs;
