//! Observes a provider's ordinary responses while they pass through a program's own HTTP client or proxy.
//!
//! [`ObserveLayer`] is a layer of tower (feature `tower`), and [`ObserveMiddleware`] a middleware of `reqwest-middleware` (feature
//! `reqwest-middleware`). Both show each response to a [`ResponseObserver`] and pass it on unchanged: status, headers, body and
//! trailers, with HTTP/1 and HTTP/2.
//!
//! - The body of a successful response is never read, so streams are not buffered. The observer runs when the headers
//!   arrive.
//! - The body of a rejection often contains its reason. The observer runs when the body ends, fails, is dropped, or exceeds
//!   [`MAX_BODY`]. It gets the bytes up to that limit. The caller receives each part of the body without delay.
//! - A panic of the observer is caught and logged. A response without rate-limit headers costs no allocation.
//!
//! The layer needs decompressed bodies. So put it outside of a layer that decompresses bodies.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "tower")]
//! # {
//! use quota_core::ProviderId;
//! use quota_http::observe::ObserveLayer;
//!
//! let gateway = ProviderId::from_static("my-gateway");
//! let layer = ObserveLayer::for_each(move |response| {
//!     for window in response.parse(&gateway).usage.windows {
//!         println!("{}: {} used", window.id, window.used);
//!     }
//! });
//! # drop(layer);
//! # }
//! ```
//!
//! # A service in the same process
//!
//! ```
#![cfg_attr(feature = "tower", doc = include_str!("../examples/observe_tower.rs"))]
//! ```
//!
//! # A client of reqwest
//!
//! ```
#![cfg_attr(feature = "reqwest-middleware", doc = include_str!("../examples/observe_reqwest.rs"))]
//! ```

mod body;
#[cfg(feature = "tower")]
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod observer;

pub use body::{MAX_BODY, ObservedBody};
#[cfg(feature = "tower")]
pub use layer::{ObserveFuture, ObserveLayer, ObserveService};
#[cfg(feature = "reqwest-middleware")]
pub use middleware::ObserveMiddleware;
pub use observer::{ObservedResponse, RequestHead, ResponseObserver};
