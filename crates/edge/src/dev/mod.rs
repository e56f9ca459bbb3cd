//! The demonstration's pages and their tokens, in development only.
//!
//! With `dev` set, anyone who reaches the edge gets a token, so such an edge
//! listens on this machine alone ([`crate::config::EdgeConfig::check`]), and
//! answers here under this machine's own names alone: a name that somebody
//! else's page has pointed at this machine (DNS rebinding) gets nothing.
//!
//! - `/`: the clinic, [`assets::clinic`] with a frame of [`assets::pane`] for
//!   each of its three people;
//! - `/dev/token/{user}`, `/dev/key`: what the pages show to the edge.

mod assets;

use axum::extract::{Path, Query, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use protocol::{ErrorCode, UserId};
use serde::Deserialize;
use serde_json::json;

use crate::Edge;
use crate::auth::token::ChannelClaims;
use crate::auth::{Claims, Pattern, mint, unix_now_s};
use crate::config::DevControls;
use crate::http::error::ApiError;

/// Short enough that a page left open shows a renewal.
const TOKEN_TTL_S: u64 = 15 * 60;

/// What every user may read and write who does not ask for something else.
const ROOM: &str = "room:lobby";

/// The pages, what they load, and what they ask for.
pub(crate) fn routes() -> Router<Edge> {
    Router::new()
        .route("/", get(assets::clinic))
        .route("/pane", get(assets::pane))
        .route("/dev/assets/{name}", get(assets::asset))
        .route("/dev/controls", get(controls))
        .route("/dev/token/{user}", get(token))
        .route("/dev/key", get(key))
        .layer(middleware::from_fn(check_host))
}

async fn check_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let local = host.is_none_or(|host| host.to_str().is_ok_and(is_this_machine));
    if local {
        return next.run(request).await;
    }
    let message = "the demonstration answers as localhost or 127.0.0.1 only";
    ApiError::new(ErrorCode::Forbidden, message).into_response()
}

fn is_this_machine(host: &str) -> bool {
    let names = ["localhost", "127.0.0.1", "[::1]"];
    names.iter().any(|name| {
        let port = host.strip_prefix(name);
        port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
    })
}

/// Where this page's controls are.
async fn controls(State(edge): State<Edge>) -> Result<Response, ApiError> {
    let controls = of_rejoin_dev(&edge)?;
    let token = controls.token.expose();
    Ok(Json(json!({ "url": controls.url, "token": token })).into_response())
}

/// The API key that a person would otherwise have to type into the other
/// pages.
async fn key(State(edge): State<Edge>) -> Result<Response, ApiError> {
    let key = of_rejoin_dev(&edge)?.api_key.expose();
    Ok(Json(json!({ "key": key })).into_response())
}

/// 404 on an edge that `rejoin dev` did not start.
fn of_rejoin_dev(edge: &Edge) -> Result<&DevControls, ApiError> {
    let message = "this edge was not started by `rejoin dev`";
    let missing = || ApiError::new(ErrorCode::NotFound, message);
    edge.config().dev_controls.as_ref().ok_or_else(missing)
}

/// What the token should grant: patterns, separated by commas.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    subscribe: Option<String>,
    publish: Option<String>,
}

/// A token for any user. Needs a configured HS256 key.
async fn token(
    State(edge): State<Edge>,
    Path(user): Path<String>,
    Query(wishes): Query<Wishes>,
) -> Result<Response, ApiError> {
    let auth = &edge.config().auth;
    let now_s = unix_now_s();
    let claims = Claims {
        sub: UserId::parse(&user).map_err(|error| bad_request(&error))?,
        exp: now_s + TOKEN_TTL_S,
        iat: Some(now_s),
        nbf: None,
        jti: None,
        iss: auth.issuer.clone(),
        aud: auth.audience.clone(),
        rejoin: ChannelClaims {
            subscribe: patterns(wishes.subscribe.as_deref().unwrap_or("room:lobby,topic:*"))?,
            publish: patterns(wishes.publish.as_deref().unwrap_or(ROOM))?,
        },
    };
    let token = mint(auth, &claims)
        .map_err(|error| ApiError::new(ErrorCode::Unsupported, error.to_string()))?;
    Ok(Json(json!({ "token": token.expose(), "room": ROOM })).into_response())
}

fn patterns(list: &str) -> Result<Vec<Pattern>, ApiError> {
    let texts = list.split(',').filter(|text| !text.is_empty());
    let parsed: Result<_, _> = texts.map(Pattern::parse).collect();
    parsed.map_err(|error| bad_request(&error))
}

fn bad_request(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.to_string())
}
