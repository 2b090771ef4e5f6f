//! The gateway: one address where all programs on a machine read how much quota is left.
//!
//! A [`Gateway`] answers requests from the readings of a [`QuotaManager`](quota::QuotaManager), and a [`Server`] serves
//! it over HTTP. The program `quota` builds the manager from its configuration. This crate reads no configuration, and
//! contains no rules about readings.
//!
//! | path | response |
//! |---|---|
//! | the paths of providers, such as `/api/oauth/usage` | usage in the provider's format, for the account of the presented credential |
//! | `/account/{provider}/{name}/…` | the same for a named account |
//! | `/v1/accounts`, `/v1/changes`, `/v1/events`, `/v1/observe`, `/v1/route` … | the gateway's own API, which `/openapi.json` describes |
//! | `/` | the dashboard: the account to use now, and the state of every account, for a browser |
//! | `/metrics` | usage, holds, budgets, calls and requests, in OpenMetrics |
//! | `/healthz`, `/readyz` | whether the process runs; whether it has read its accounts |
//!
//! # Guarantees
//!
//! - A response states the age of its readings. The gateway never sends a reading that is too old, or a window that has
//!   ended.
//! - No response contains a credential or a token, or repeats a part of the request. The one exception is
//!   [`GatewayBuilder::hand_out_credentials`], for the same user over a Unix socket.
//! - Requests that web pages from other origins make are rejected, even with DNS rebinding.
//! - Each client is limited in time, memory and connections ([`Limits`]).

mod access;
mod address;
mod adopted;
mod answer;
mod api;
mod changes;
mod credential_index;
mod dashboard;
mod events;
mod gateway;
mod guard;
mod journals;
mod last_responses;
mod limits;
mod listed;
mod listener;
mod metrics;
mod open_routes;
mod problem;
mod routes;
mod served;
mod server;
mod store_outages;
mod tls;
mod usage;
mod work;
#[cfg(feature = "wrap")]
mod wrap;

pub use access::{AccessTokens, InvalidTokens, Role};
pub use address::{InvalidAddress, ListenAddress};
pub use api::openapi;
pub use gateway::{Gateway, GatewayBuilder};
pub use journals::Journals;
pub use last_responses::LastResponses;
pub use limits::Limits;
pub use listener::{ListenError, Listener};
pub use served::ServedAccount;
pub use server::Server;
pub use tls::{InvalidCertificate, Tls};
#[cfg(feature = "wrap")]
pub use wrap::{UsageOrigin, UserProxy, WrapError, WrapProxy};
