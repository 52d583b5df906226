//! Apps that others wrote, behind the edge, with a browser in front: what their users do must work, and nothing that is one
//! user's may come to another. And clients of other caches that purge here.

mod django;
mod express;
mod grpc;
mod programs;
mod purging;
