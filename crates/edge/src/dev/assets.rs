//! The files of the demonstration.

use axum::extract::Path;
use axum::response::Response;

use crate::http::error::ApiError;
use crate::pages::files::{CSS, HTML, JAVASCRIPT, find, serve};

/// As the other pages' policy, with two openings: the controls of
/// `rejoin dev` are on another port of this machine, and the clinic shows its
/// panes in frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' ws: wss: http://127.0.0.1:*; img-src data:; frame-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Name, type and content of every file below `/dev/assets/`.
const FILES: &[(&str, &str, &str)] = &[
    ("cast.js", JAVASCRIPT, include_str!("cast.js")),
    ("clinic.css", CSS, include_str!("clinic.css")),
    ("clinic.js", JAVASCRIPT, include_str!("clinic.js")),
    ("fleet.js", JAVASCRIPT, include_str!("fleet.js")),
    ("ledger.js", JAVASCRIPT, include_str!("ledger.js")),
    ("network.js", JAVASCRIPT, include_str!("network.js")),
    ("pane.css", CSS, include_str!("pane.css")),
    ("pane.js", JAVASCRIPT, include_str!("pane.js")),
    ("pane-store.js", JAVASCRIPT, include_str!("pane-store.js")),
    ("pane-view.js", JAVASCRIPT, include_str!("pane-view.js")),
    ("story.js", JAVASCRIPT, include_str!("story.js")),
];

/// The clinic: three people, and a switch for everything that can break.
pub(super) async fn clinic() -> Response {
    file(HTML, include_str!("clinic.html"))
}

/// One person's part of the clinic.
pub(super) async fn pane() -> Response {
    file(HTML, include_str!("pane.html"))
}

/// What they load.
pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    find(FILES, &name, CONTENT_SECURITY_POLICY)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    serve(kind, content, CONTENT_SECURITY_POLICY)
}

#[cfg(test)]
mod tests {
    use super::FILES;
    use crate::pages::files::tests::{after, names};

    const PAGES: [&str; 2] = [include_str!("clinic.html"), include_str!("pane.html")];

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

    #[test]
    fn what_it_borrows_from_the_other_pages_is_there() {
        let scripts = FILES.iter().map(|(_, _, content)| *content);
        for text in PAGES.into_iter().chain(scripts) {
            for borrowed in after(text, "/pages/") {
                assert!(names().any(|name| name == borrowed), "{borrowed}");
            }
        }
    }
}
