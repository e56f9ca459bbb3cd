//! The HTTP API: publishing, catching up without a connection, and health.
//!
//! - [`publish`]: one message, or a batch;
//! - [`signal`]: to those who listen now;
//! - [`catch_up`]: a channel's messages after a position, and history;
//! - [`presence`]: who is on a channel;
//! - [`revocations`]: tokens that no longer count;
//! - [`rooms`]: who is in which room; [`inbox`]: what a user has not read;
//! - [`health`]: is the process alive, and should it get connections;
//! - [`events`]: channels as server-sent events; [`ticket`]: for browsers,
//!   which cannot send a header there; [`poll`]: channels by long-poll;
//!   `listening` and `positions`: what the two share;
//! - [`metrics`]: what it has done and holds, for Prometheus;
//! - [`admin`]: what operators do with the fleet;
//! - [`error`]: what went wrong, as JSON;
//! - [`bearer`]: who asks; [`whoami`]: what that grants.

pub mod admin;
pub mod bearer;
pub mod catch_up;
pub mod client_address;
pub mod error;
pub mod events;
pub mod health;
mod history;
pub mod inbox;
mod listening;
pub mod metrics;
pub mod poll;
mod positions;
pub mod presence;
pub mod publish;
pub mod revocations;
pub mod rooms;
pub mod signal;
pub mod ticket;
pub mod whoami;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use protocol::ErrorCode;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use crate::Edge;
use error::ApiError;

/// The header with a message's id; `?id=` says the same.
pub const MESSAGE_ID_HEADER: &str = "rejoin-id";

/// The header with a message's type; `?type=` says the same.
pub const MESSAGE_TYPE_HEADER: &str = "rejoin-type";

/// The header with the publisher's trace context (W3C Trace Context).
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Everything that an edge answers.
pub(crate) fn routes(edge: &Edge) -> Router<Edge> {
    let limits = &edge.config().limits;
    let one = DefaultBodyLimit::max(limits.message_bytes);
    let batch = DefaultBodyLimit::max(limits.batch_bytes);
    let rooms = post(rooms::change).layer(batch).get(rooms::list);
    let quick = Router::new()
        .route(
            "/v1/channels/{channel}/messages",
            post(publish::one).layer(one).get(catch_up::page),
        )
        .route("/v1/messages", post(publish::batch).layer(batch))
        .route("/v1/connect", get(crate::ws::upgrade))
        .route("/v1/events", get(events::events))
        .route("/v1/tickets", post(ticket::issue))
        .route(
            "/v1/channels/{channel}/signals",
            post(signal::send).layer(one),
        )
        .route("/v1/channels/{channel}/presence", get(presence::present))
        .route("/v1/rooms/{room}/members", rooms)
        .route(
            "/v1/rooms/{room}/members/{user}",
            put(rooms::add).delete(rooms::remove),
        )
        .route("/v1/users/{user}/rooms", get(rooms::of_user))
        .route("/v1/users/{user}/inbox", get(inbox::inbox))
        .route("/v1/users/{user}/acks", post(inbox::acknowledge))
        .route("/v1/whoami", get(whoami::whoami))
        .route(
            "/v1/admin/revocations",
            post(revocations::revoke).delete(revocations::lift),
        )
        // Operators, health and metrics are answered however much there is to do.
        .layer(middleware::from_fn_with_state(edge.clone(), admit_request))
        .route(
            "/v1/admin/{operation}",
            get(admin::read).post(admin::act).layer(batch),
        )
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        // Bounds slow bodies of requests too: the header's timeout ends with
        // the header. Upgraded connections and event streams have had the
        // beginning of their answer and are not concerned.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits.request_timeout(),
        ));
    // Bounds itself.
    let mut routes = quick.route("/v1/poll", get(poll::poll));
    if edge.config().pages.enabled || edge.config().dev {
        routes = routes.merge(crate::pages::routes());
    }
    if edge.config().dev {
        routes = routes.merge(crate::dev::routes());
    }
    routes
}

/// Puts the chain that every request passes around the routes.
pub(crate) fn layered(edge: &Edge, routes: Router<Edge>) -> Router {
    let chain = ServiceBuilder::new()
        // Around everything, refusals too: what an answer is not, no browser
        // takes it for. Pages say more.
        .layer(header_unless_set("content-security-policy", NO_CONTENT))
        .layer(header_unless_set("x-content-type-options", "nosniff"))
        .layer(header_unless_set("referrer-policy", "no-referrer"))
        // A defect anywhere below answers 500 and ends neither
        // the connection nor the process.
        .layer(CatchPanicLayer::custom(answer_panic(edge.clone())))
        .layer(middleware::from_fn_with_state(edge.clone(), count_errors))
        // Before CORS, which would answer a stranger's preflight politely.
        .layer(middleware::from_fn_with_state(edge.clone(), check_origin))
        .layer(edge.origins().cors_layer());
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(chain)
        .with_state(edge.clone())
}

async fn count_errors(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(code) = response.extensions().get::<ErrorCode>() {
        edge.counters().count_error(*code);
    }
    response
}

/// For everything that is no page: it may load nothing and be in no frame.
const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";

fn header_unless_set(
    name: &'static str,
    value: &'static str,
) -> SetResponseHeaderLayer<HeaderValue> {
    let name = HeaderName::from_static(name);
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

async fn check_origin(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    if edge.origins().allows(request.headers()) {
        return next.run(request).await;
    }
    let message = "pages of this origin may not use this edge (origins.allowed)";
    ApiError::new(ErrorCode::Forbidden, message).into_response()
}

/// Bounds what is worked on at a time: refused here a request costs nothing.
async fn admit_request(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    match edge.admission().request() {
        Ok(_permit) => next.run(request).await,
        Err(refused) => ApiError::from(refused).into_response(),
    }
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing at this path")
}

async fn method_not_allowed() -> Response {
    let error = ApiError::new(ErrorCode::BadRequest, "this path does not take this method");
    (StatusCode::METHOD_NOT_ALLOWED, error.into_body()).into_response()
}

fn answer_panic(
    edge: Edge,
) -> impl Fn(Box<dyn std::any::Any + Send>) -> Response + Clone + Send + Sync + 'static {
    move |panic| {
        edge.counters().panics.add(1);
        let what = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = what, "a handler panicked");
        ApiError::new(ErrorCode::Internal, "a defect of the edge; it was logged").into_response()
    }
}

#[cfg(test)]
mod tests;
