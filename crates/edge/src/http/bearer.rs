//! Who asks: `Authorization: Bearer <token or API key>`.

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use protocol::ErrorCode;

use super::error::ApiError;
use crate::Edge;
use crate::auth::{Caller, ServiceGrants, unix_now_s};

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

/// A verified caller with an administrative API key.
pub struct Admin(pub ServiceGrants);

impl FromRequestParts<Edge> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, ApiError> {
        match Bearer::from_request_parts(parts, edge).await? {
            Bearer(Caller::Service(grants)) if grants.admin => Ok(Self(grants)),
            Bearer(Caller::Service(_) | Caller::User(_)) => {
                let message = "this needs an API key with admin = true";
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
        }
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
