//! Is the process alive, and should it get connections.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::{Edge, Phase};

/// `GET /healthz`: 200 for as long as the process answers at all. A failing
/// backplane is no reason to restart an edge.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 when every window is filled, every part is ready and
/// the edge is not leaving; else 503 with the reasons.
pub async fn ready(State(edge): State<Edge>) -> Response {
    let reasons = reasons(&edge);
    let ready = reasons.is_empty();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": ready, "edge": edge.config().name, "reasons": reasons });
    (status, Json(body)).into_response()
}

/// Why the edge should get no connections; empty when it should.
pub(crate) fn reasons(edge: &Edge) -> BTreeMap<&'static str, String> {
    let mut reasons = edge.readiness().reasons();
    if edge.drain().phase() > Phase::Serving {
        reasons.insert("drain", "the edge is leaving".to_owned());
    } else if edge.drain().is_resting() {
        reasons.insert("drain", "an operator drains the edge".to_owned());
    }
    let windows = edge.hub().windows();
    let filled = windows.iter().filter(|window| window.is_filled()).count();
    if filled < windows.len() {
        let reason = format!("{filled} of {} are filled", windows.len());
        reasons.insert("windows", reason);
    }
    reasons
}
