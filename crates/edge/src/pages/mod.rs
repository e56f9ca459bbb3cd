//! Pages for the people who run Rejoin, and what these pages share.
//!
//! A page is static and holds nothing that is worth guarding. All that it
//! shows, it asks the HTTP API for with the API key that `admin.js` asked the
//! person for: an administrative one, sent as `Authorization: Bearer` and
//! nowhere else, kept in the tab's session storage. The rules about origins
//! are those of every page: a page that publishes names its origin, so the
//! edges' own has to be among `origins.allowed` then.
//!
//! - `/inspector`: a channel's frames as they pass, publishing, replay;
//! - `/console`: the fleet in numbers, draining, who is connected.
//!
//! To add one: its HTML loads `/pages/base.css`, `/pages/admin.css` and one
//! module, which awaits `signIn` of `admin.js`; its files go into the list of
//! [`files`], its route into [`routes`].

pub(crate) mod files;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::Edge;

/// The pages for operators and developers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagesConfig {
    /// Serves them. They are static; what they show needs an administrative
    /// API key. Default: true.
    pub enabled: bool,
}

impl Default for PagesConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The pages and what they load.
pub(crate) fn routes() -> Router<Edge> {
    Router::new()
        .route("/inspector", get(inspector))
        .route("/console", get(console))
        .route("/pages/{name}", get(files::file))
}

async fn inspector(State(edge): State<Edge>) -> Response {
    page(&edge, include_str!("inspector.html"))
}

async fn console(State(edge): State<Edge>) -> Response {
    page(&edge, include_str!("console.html"))
}

/// A page's HTML. In development it is told so, and asks for no key.
pub(crate) fn page(edge: &Edge, html: &'static str) -> Response {
    const HEAD: &str = "<head>";
    const HEAD_IN_DEVELOPMENT: &str = "<head>\n<meta name=\"rejoin-dev\">";
    match edge.config().dev {
        true => {
            let html = html.replacen(HEAD, HEAD_IN_DEVELOPMENT, 1);
            files::serve(files::HTML, html, files::CONTENT_SECURITY_POLICY)
        }
        false => files::serve(files::HTML, html, files::CONTENT_SECURITY_POLICY),
    }
}
