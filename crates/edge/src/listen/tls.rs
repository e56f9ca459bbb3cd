//! TLS of the listener, with certificates that may change while it serves.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::config::TlsConfig;

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: pem::Error,
    },
    /// The certificate and the key are not usable, or not one another's.
    #[error("certificate and key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A cheap handle to the certificate in use.
#[derive(Debug, Clone)]
pub struct Tls {
    config: TlsConfig,
    current: Arc<Mutex<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files. The error names the one that is wrong.
    pub fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            config: config.clone(),
            current: Arc::new(Mutex::new(Arc::new(load(config)?))),
        })
    }

    /// Reads the files again and uses them for new connections. What is in
    /// use stays in use if they are wrong.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = load(&self.config)?;
        *self.current.lock() = Arc::new(fresh);
        Ok(())
    }

    /// Watches the files and reloads them when they change. Runs for ever.
    pub async fn watch(self) {
        let mut seen = self.contents();
        loop {
            tokio::time::sleep(Duration::from_millis(self.config.reload_ms.into())).await;
            let now = self.contents();
            if now == seen {
                continue;
            }
            // A pair that is being written does not fit; it is looked at
            // again next time.
            match self.reload() {
                Ok(()) => {
                    tracing::info!("tls.reloaded");
                    seen = now;
                }
                Err(error) => tracing::warn!(%error, "tls.not_reloaded"),
            }
        }
    }

    fn contents(&self) -> [Option<Vec<u8>>; 2] {
        [&self.config.cert_file, &self.config.key_file].map(|file| std::fs::read(file).ok())
    }

    /// Shakes hands within this time; nothing if it fails, which concerns
    /// this one connection.
    pub(super) fn accept<I>(
        &self,
        socket: I,
        within: Duration,
    ) -> impl Future<Output = Option<TlsStream<I>>> + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.lock()));
        async move {
            let shaken = tokio::time::timeout(within, acceptor.accept(socket)).await;
            let shaken = shaken.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
            shaken
                .inspect_err(|error| tracing::debug!(%error, "tls.handshake_failed"))
                .ok()
        }
    }
}

fn load(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let failed = |file: &Path| {
        let file = file.display().to_string();
        move |reason| TlsError::File { file, reason }
    };
    let certificates = CertificateDer::pem_file_iter(&config.cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(&config.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file).map_err(failed(&config.key_file))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    // The upgrade to WebSocket is HTTP/1.1's.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
