//! The demonstration page and its tokens, in development only.
//!
//! With `dev` set, anyone who reaches the edge gets a token, so such an edge
//! listens on this machine alone ([`crate::config::EdgeConfig::check`]).

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use protocol::{ErrorCode, UserId};
use serde_json::json;

use crate::Edge;
use crate::auth::token::ChannelClaims;
use crate::auth::{Claims, Pattern, mint, unix_now_s};
use crate::http::error::ApiError;

const PAGE: &str = include_str!("page.html");

/// The page brings everything it needs and may load nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Short enough that a page left open shows a renewal.
const TOKEN_TTL_S: u64 = 15 * 60;

/// What every user of the demonstration may read and write.
const ROOM: &str = "room:lobby";

/// `/` and `/dev/token/{user}`.
pub(crate) fn routes() -> Router<Edge> {
    Router::new()
        .route("/", get(page))
        .route("/dev/token/{user}", get(token))
}

async fn page() -> Response {
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Html(PAGE)).into_response()
}

/// A token for any user. Needs a configured HS256 key.
async fn token(State(edge): State<Edge>, Path(user): Path<String>) -> Result<Response, ApiError> {
    let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
    let user = UserId::parse(&user).map_err(|error| bad(error.to_string()))?;
    let pattern = |text: &str| Pattern::parse(text).map_err(|error| bad(error.to_string()));
    let auth = &edge.config().auth;
    let now_s = unix_now_s();
    let claims = Claims {
        sub: user,
        exp: now_s + TOKEN_TTL_S,
        iat: Some(now_s),
        nbf: None,
        jti: None,
        iss: auth.issuer.clone(),
        aud: auth.audience.clone(),
        rejoin: ChannelClaims {
            subscribe: vec![pattern(ROOM)?, pattern("topic:*")?],
            publish: vec![pattern(ROOM)?],
        },
    };
    let token = mint(auth, &claims)
        .map_err(|error| ApiError::new(ErrorCode::Unsupported, error.to_string()))?;
    Ok(Json(json!({ "token": token.expose(), "room": ROOM })).into_response())
}
