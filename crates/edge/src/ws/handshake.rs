//! The HTTP side of a WebSocket's beginning (RFC 6455, section 4.2).

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use protocol::{Encoding, ErrorCode};
use sha1::{Digest, Sha1};

use crate::http::error::ApiError;

/// What is hashed behind the client's key (section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client that asks for a WebSocket, and may have one as far as HTTP goes.
pub(crate) struct Handshake {
    on_upgrade: OnUpgrade,
    accept: HeaderValue,
    /// The subprotocol chosen from those that the client offered, if it did.
    chosen: Option<Encoding>,
}

impl<S: Sync> FromRequestParts<S> for Handshake {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        if parts.method != Method::GET {
            return Err(refused("a WebSocket begins with GET"));
        }
        if !has_token(headers, CONNECTION, "upgrade") {
            return Err(refused("the Connection header has no \"upgrade\""));
        }
        if !has_token(headers, UPGRADE, "websocket") {
            return Err(refused("the Upgrade header is not \"websocket\""));
        }
        if headers
            .get(SEC_WEBSOCKET_VERSION)
            .map(HeaderValue::as_bytes)
            != Some(b"13")
        {
            return Err(refused("Sec-WebSocket-Version is not 13"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| refused("Sec-WebSocket-Key is missing"))?;
        let accept = accept(key.as_bytes())?;
        let chosen = chosen(headers)?;
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        let on_upgrade = on_upgrade.ok_or_else(|| refused("this connection cannot be upgraded"))?;
        Ok(Self {
            on_upgrade,
            accept,
            chosen,
        })
    }
}

impl Handshake {
    /// How frames are to be written.
    pub(super) fn encoding(&self) -> Encoding {
        self.chosen.unwrap_or(Encoding::Json)
    }

    /// The answer, and what becomes the connection once it is written.
    pub(super) fn accept(self) -> (Response, OnUpgrade) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        // A client that offered none must not be told one.
        if let Some(encoding) = self.chosen {
            let subprotocol = HeaderValue::from_static(encoding.subprotocol());
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        (response, self.on_upgrade)
    }
}

fn refused(message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// The first subprotocol of the client's that is spoken here; none if it
/// offers none.
fn chosen(headers: &HeaderMap) -> Result<Option<Encoding>, ApiError> {
    let mut offered = tokens(headers, SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    offered
        .find_map(Encoding::from_subprotocol)
        .map(Some)
        .ok_or_else(|| {
            refused(
                "none of the offered subprotocols is spoken here: rejoin.v1.json, rejoin.v1.proto",
            )
        })
}

/// The answer to a client's key.
fn accept(key: &[u8]) -> Result<HeaderValue, ApiError> {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let accept = HeaderValue::try_from(STANDARD.encode(hash));
    // Base64 is always a header's value.
    accept.map_err(|_| refused("Sec-WebSocket-Key"))
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|it| it.eq_ignore_ascii_case(token))
}

/// The members of a header that is a list.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let answer = accept(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn lists_are_read_over_lines_and_commas() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(has_token(&headers, CONNECTION, "upgrade"));
        assert!(!has_token(&headers, CONNECTION, "keep"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        assert!(chosen(&headers).is_err());
        let both = HeaderValue::from_static("rejoin.v1.proto,rejoin.v1.json");
        headers.append(SEC_WEBSOCKET_PROTOCOL, both);
        assert_eq!(chosen(&headers).unwrap(), Some(Encoding::Proto));
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        assert_eq!(chosen(&headers).unwrap(), None);
    }
}
