//! Who asks: `Authorization: Bearer <token or API key>`.

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use protocol::ErrorCode;

use super::error::ApiError;
use crate::Edge;
use crate::auth::{Caller, unix_now_s};

/// The verified caller. Credentials are taken from the header only, never
/// from the URL, which ends up in logs.
pub struct Bearer(pub Caller);

impl FromRequestParts<Edge> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        let credential = credential(&parts.headers).ok_or_else(|| {
            ApiError::new(
                ErrorCode::Unauthorized,
                "expected the header Authorization: Bearer <token or API key>",
            )
        })?;
        Ok(Self(edge.auth().verify_bearer(credential, unix_now_s())?))
    }
}

/// What stands after `Bearer` in the one `Authorization` header.
pub(crate) fn credential(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, credential) = only.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(credential.trim_start())
}
