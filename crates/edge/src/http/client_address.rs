//! The address that a request counts for.

use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::Edge;
use crate::admission::{Peer, address};

/// The client's address as far as it can be trusted; `None` where the
/// listener does not tell.
pub struct ClientAddress(pub Option<IpAddr>);

impl FromRequestParts<Edge> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Infallible> {
        let trusted = &edge.config().listen.trusted_proxies;
        let peer = parts.extensions.get::<Peer>();
        Ok(Self(peer.map(|Peer(peer)| {
            address::client(peer.ip(), &parts.headers, trusted)
        })))
    }
}
