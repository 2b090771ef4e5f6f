//! The observers of responses: the layer of tower and the middleware of `reqwest-middleware`.
#![cfg(test)]
#![cfg(all(feature = "tower", feature = "reqwest-middleware"))]

#[path = "observe/layer.rs"]
mod layer;
#[path = "observe/middleware.rs"]
mod middleware;
#[path = "observe/support.rs"]
mod support;
