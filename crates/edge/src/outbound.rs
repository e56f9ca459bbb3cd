//! The few requests that an edge sends itself: for the issuer's keys, and to
//! the application that decides who may do what.
//!
//! Over TLS, or to this machine; no redirect is followed; time and size of an
//! answer are bounded.

use std::time::Duration;

use reqwest::{Certificate, Client, Response, Url, redirect};

/// Why there is no answer. The texts are for the operator's log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    /// No connection, no TLS, no answer in time.
    #[error("{0}")]
    Failed(#[from] reqwest::Error),
    /// Not 200.
    #[error("answered with status {0}")]
    Status(u16),
    /// Longer than anything that makes sense.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// A client that trusts the system's certificate authorities
/// (`SSL_CERT_FILE` names others). `timeout` bounds a request and its answer.
pub(crate) fn client(timeout: Duration) -> Result<Client, OutboundError> {
    let roots = rustls_native_certs::load_native_certs();
    for error in &roots.errors {
        tracing::debug!(%error, "outbound.certificates");
    }
    let mut builder = Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(8)
        .user_agent(concat!("rejoin/", env!("CARGO_PKG_VERSION")));
    for certificate in roots.certs {
        // One that cannot be read is trusted by nobody.
        if let Ok(certificate) = Certificate::from_der(&certificate) {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder.build()?)
}

/// An address that secrets may be sent to and keys be taken from; what is
/// wrong with it otherwise.
pub(crate) fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL".to_owned());
    }
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    match (url.scheme(), loopback) {
        ("https", _) | ("http", true) => Ok(()),
        _ => Err("expected https://, or http:// to this machine".to_owned()),
    }
}

/// The body of a good answer.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, OutboundError> {
    if response.status() != reqwest::StatusCode::OK {
        return Err(OutboundError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(OutboundError::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn secrets_travel_encrypted_or_not_at_all() {
        for url in [
            "https://id.example/keys",
            "http://127.0.0.1:9/",
            "http://[::1]/",
            "http://localhost:1/x",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in [
            "http://id.example/keys",
            "http://127.0.0.1.evil.net/",
            "http://localhost.evil.net/",
            "https://user:password@id.example/",
            "ftp://127.0.0.1/",
            "file:///etc/keys",
            "id.example",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
