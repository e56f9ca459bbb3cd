//! The pages' files, built into the binary: nothing is loaded from anywhere
//! else, and nothing has to be built to run them.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;

use crate::http::error::ApiError;

/// The pages bring everything they need, talk to this edge alone, run no
/// script of anybody else, and cannot be shown inside another page.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css; charset=utf-8";
pub(crate) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and content of every file below `/pages/`.
const FILES: &[(&str, &str, &str)] = &[
    ("admin.css", CSS, include_str!("admin.css")),
    ("admin.js", JAVASCRIPT, include_str!("admin.js")),
    ("base.css", CSS, include_str!("base.css")),
    ("console.css", CSS, include_str!("console.css")),
    ("console.js", JAVASCRIPT, include_str!("console.js")),
    ("inspector.css", CSS, include_str!("inspector.css")),
    ("inspector.js", JAVASCRIPT, include_str!("inspector.js")),
    ("key-wire.js", JAVASCRIPT, include_str!("key-wire.js")),
    ("rejoin.js", JAVASCRIPT, include_str!("rejoin.js")),
    ("socket-wire.js", JAVASCRIPT, include_str!("socket-wire.js")),
    ("wire.js", JAVASCRIPT, include_str!("wire.js")),
];

/// What the pages load.
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    find(FILES, &name, CONTENT_SECURITY_POLICY)
}

/// A file of a list by its name.
pub(crate) fn find(
    files: &[(&str, &'static str, &'static str)],
    name: &str,
    policy: &'static str,
) -> Result<Response, ApiError> {
    match files.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => Ok(serve(kind, *content, policy)),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no file {name:?}"),
        )),
    }
}

/// A file with what browsers are to be strict about.
pub(crate) fn serve(
    kind: &'static str,
    content: impl Into<Body>,
    policy: &'static str,
) -> Response {
    let headers: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A page that another one opened shares nothing with it.
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        // A new build is seen at once.
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, content.into()).into_response()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::FILES;

    const PAGES: [&str; 2] = [include_str!("inspector.html"), include_str!("console.html")];

    /// Names of the files in `/pages/` that the demonstration loads too.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, ..)| *name)
    }

    /// What stands between `begin` and the next `"` or `'`, wherever `begin`
    /// occurs.
    pub(crate) fn after<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
        let rest = text.split(begin).skip(1);
        rest.filter_map(|rest| rest.split(['"', '\'']).next())
    }

    #[test]
    fn everything_that_a_page_or_script_loads_is_served() {
        let from_pages = PAGES.iter().flat_map(|page| after(page, "\"/pages/"));
        let from_scripts = FILES
            .iter()
            .flat_map(|(_, _, content)| after(content, "from './"));
        let mut loaded: Vec<&str> = from_pages.chain(from_scripts).collect();
        loaded.sort_unstable();
        loaded.dedup();
        let served: Vec<&str> = names().collect();
        // Also the other way round: nothing is carried along for nobody.
        assert_eq!(loaded, served);
    }
}
