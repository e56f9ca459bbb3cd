//! Which web pages may use the edge.
//!
//! A browser names the page's origin in every WebSocket handshake and cross-
//! origin request, and a page cannot forge it. Other clients send none and
//! are let in: they need a token or key like everybody. Credentials are
//! never cookies, so this is a second wall, not the first.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::{Deserialize, Serialize};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::ConfigError;
use crate::http::{MESSAGE_ID_HEADER, MESSAGE_TYPE_HEADER, TRACEPARENT_HEADER};

/// The allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginConfig {
    /// Origins exactly as browsers send them: `https://app.example.com`,
    /// with the port where it is not the scheme's own, without a path. No
    /// wildcards. Default: none.
    pub allowed: Vec<String>,
}

/// Decides about an `Origin` header.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    allowed: HashSet<Box<str>>,
    localhost: bool,
}

impl OriginConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (index, origin) in self.allowed.iter().enumerate() {
            if !is_origin(origin) {
                let field = format!("origins.allowed[{index}]");
                let reason = format!(
                    "{origin:?} is not an origin as browsers send it: scheme://host[:port] in \
                     lower case, without a path, a final / or a wildcard"
                );
                return Err(ConfigError::new(field, reason));
            }
        }
        Ok(())
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let authority_ok = !authority.is_empty()
        && authority
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b));
    scheme_ok && authority_ok
}

impl OriginPolicy {
    /// With `localhost`, pages from this machine are let in whatever their
    /// port: for development.
    pub fn new(config: &OriginConfig, localhost: bool) -> Self {
        let allowed = config.allowed.iter().map(|text| text.as_str().into());
        Self {
            allowed: allowed.collect(),
            localhost,
        }
    }

    /// Whether a request with these headers may go on.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::ORIGIN)
            .iter()
            .all(|origin| self.allows_origin(origin))
    }

    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        self.allowed.contains(origin) || (self.localhost && is_localhost(origin))
    }

    /// The answers to browsers' preflight requests.
    pub(crate) fn cors_layer(&self) -> CorsLayer {
        const PREFLIGHT_CACHE: std::time::Duration = std::time::Duration::from_secs(600);
        let policy = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| {
                policy.allows_origin(origin)
            }))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                HeaderName::from_static(MESSAGE_ID_HEADER),
                HeaderName::from_static(MESSAGE_TYPE_HEADER),
                HeaderName::from_static(TRACEPARENT_HEADER),
            ])
            .expose_headers([header::RETRY_AFTER])
            .max_age(PREFLIGHT_CACHE)
    }
}

fn is_localhost(origin: &str) -> bool {
    let rest = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| {
        let port = rest.and_then(|rest| rest.strip_prefix(host));
        port.is_some_and(|port| {
            port.is_empty()
                || port
                    .strip_prefix(':')
                    .is_some_and(|digits| digits.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &OriginPolicy, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        policy.allows(&headers)
    }

    fn policy(localhost: bool) -> OriginPolicy {
        let config = OriginConfig {
            allowed: vec!["https://app.example.com".to_owned()],
        };
        assert_eq!(config.check(), Ok(()));
        OriginPolicy::new(&config, localhost)
    }

    #[test]
    fn only_the_exact_origin_is_allowed() {
        let policy = policy(false);
        assert!(allows(&policy, "https://app.example.com"));
        for origin in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.net",
            "https://evilapp.example.com",
            "https://app.example.com/",
            "https://APP.example.com",
            "http://localhost:8080",
            "null",
            "",
        ] {
            assert!(!allows(&policy, origin), "{origin} was allowed");
        }
    }

    #[test]
    fn a_client_without_an_origin_is_allowed() {
        assert!(policy(false).allows(&HeaderMap::new()));
    }

    #[test]
    fn every_origin_of_several_counts() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::ORIGIN,
            HeaderValue::from_static("https://app.example.com"),
        );
        headers.append(header::ORIGIN, HeaderValue::from_static("https://evil.net"));
        assert!(!policy(false).allows(&headers));
    }

    #[test]
    fn development_lets_this_machine_in_and_nobody_else() {
        let policy = policy(true);
        for origin in [
            "http://localhost",
            "http://localhost:8080",
            "http://127.0.0.1:9000",
            "https://[::1]:1",
        ] {
            assert!(allows(&policy, origin), "{origin} was refused");
        }
        for origin in [
            "http://localhost.evil.net",
            "http://localhost:80.evil.net",
            "http://127.0.0.1.evil.net",
            "ftp://localhost",
        ] {
            assert!(!allows(&policy, origin), "{origin} was allowed");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused_in_the_configuration() {
        for text in [
            "*",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://App.example.com",
            "https://*.example.com",
        ] {
            let config = OriginConfig {
                allowed: vec![text.to_owned()],
            };
            assert!(config.check().is_err(), "{text} was accepted");
        }
    }
}
