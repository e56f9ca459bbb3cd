//! The network face of Rejoin: connections, the HTTP API, and who may do
//! what.
//!
//! - [`Edge`]: what every request and connection shares ([`edge`]);
//! - [`admin`]: what operators do with the fleet;
//! - [`admission`]: how fast clients are let in;
//! - [`auth`]: tokens, API keys and what they grant;
//! - `rights`: which channels a caller reaches, memberships included;
//! - [`http`]: publishing, catching up and health over HTTP;
//! - [`ws`]: connections over WebSocket;
//! - [`remote`]: what reaches live connections from outside;
//! - [`revocations`]: tokens that no longer count, on all edges;
//! - `receipts`: what users have received and read; `unread`: how much they
//!   have not, for `subscribed`;
//! - `presence`: who is on a channel, for clients;
//! - [`registry`]: the live connections by user;
//! - [`listen`]: sockets and HTTP/1;
//! - `outbound`: what the edge asks of others over HTTP;
//! - `webhook`: signatures on what the edge sends to the application;
//! - [`origin`]: which web pages may use the edge;
//! - [`drain`]: leaving without a storm; [`readiness`]: getting connections;
//! - [`exposition`]: numbers for Prometheus;
//! - [`config`], [`limits`]: what an operator can set;
//! - `pages`: for operators and developers, behind an API key;
//! - `dev`: the demonstration.
//!
//! It depends on `delivery` and `protocol` alone: what stores, archives and
//! transports is handed in by the composition root.

pub mod admin;
pub mod admission;
pub mod auth;
pub mod config;
mod dev;
pub mod drain;
pub mod edge;
pub mod exposition;
pub mod http;
pub mod limits;
pub mod listen;
pub mod origin;
mod outbound;
mod pages;
mod presence;
mod published;
pub mod readiness;
mod receipts;
pub mod registry;
pub mod remote;
pub mod revocations;
mod rights;
mod unread;
mod webhook;
pub mod ws;

pub use config::EdgeConfig;
pub use drain::{Drain, Phase};
pub use edge::{Edge, EdgeParts};
