//! The files of the demonstration, built into the binary: nothing is loaded
//! from anywhere else, and nothing has to be built to run them.

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;

use crate::http::error::ApiError;

/// The pages bring everything they need and may load nothing else. The
/// controls of `rejoin dev` are on another port of this machine, and the
/// clinic shows its panes in frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' ws: wss: http://127.0.0.1:*; img-src data:; frame-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and content of every file below `/dev/assets/`.
const FILES: &[(&str, &str, &str)] = &[
    ("base.css", CSS, include_str!("base.css")),
    ("cast.js", JAVASCRIPT, include_str!("cast.js")),
    ("clinic.css", CSS, include_str!("clinic.css")),
    ("clinic.js", JAVASCRIPT, include_str!("clinic.js")),
    ("fleet.js", JAVASCRIPT, include_str!("fleet.js")),
    ("inspector.css", CSS, include_str!("inspector.css")),
    ("inspector.js", JAVASCRIPT, include_str!("inspector.js")),
    ("ledger.js", JAVASCRIPT, include_str!("ledger.js")),
    ("network.js", JAVASCRIPT, include_str!("network.js")),
    ("pane.css", CSS, include_str!("pane.css")),
    ("pane.js", JAVASCRIPT, include_str!("pane.js")),
    ("pane-store.js", JAVASCRIPT, include_str!("pane-store.js")),
    ("pane-view.js", JAVASCRIPT, include_str!("pane-view.js")),
    ("rejoin.js", JAVASCRIPT, include_str!("rejoin.js")),
    ("story.js", JAVASCRIPT, include_str!("story.js")),
    ("wire.js", JAVASCRIPT, include_str!("wire.js")),
];

/// The clinic: three people, and a switch for everything that can break.
pub(super) async fn clinic() -> Response {
    file(HTML, include_str!("clinic.html"))
}

/// One person's part of the clinic.
pub(super) async fn pane() -> Response {
    file(HTML, include_str!("pane.html"))
}

/// Subscribe, publish, and see the frames.
pub(super) async fn inspector() -> Response {
    file(HTML, include_str!("inspector.html"))
}

/// What the pages load.
pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => Ok(file(kind, content)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no file {name:?}"),
        )),
    }
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // A new build is seen at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use super::FILES;

    const PAGES: [&str; 3] = [
        include_str!("clinic.html"),
        include_str!("pane.html"),
        include_str!("inspector.html"),
    ];

    /// What stands between `begin` and the next `"` or `'`, wherever `begin`
    /// occurs.
    fn after<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
        let rest = text.split(begin).skip(1);
        rest.filter_map(|rest| rest.split(['"', '\'']).next())
    }

    #[test]
    fn everything_that_a_page_or_script_loads_is_served() {
        let from_pages = PAGES.iter().flat_map(|page| after(page, "/dev/assets/"));
        let from_scripts = FILES
            .iter()
            .flat_map(|(_, _, content)| after(content, "from './"));
        let mut loaded: Vec<&str> = from_pages.chain(from_scripts).collect();
        loaded.sort_unstable();
        loaded.dedup();
        let mut served: Vec<&str> = FILES.iter().map(|(name, ..)| *name).collect();
        served.sort_unstable();
        // Also the other way round: nothing is carried along for nobody.
        assert_eq!(loaded, served);
    }
}
