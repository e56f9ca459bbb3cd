use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::config::ListenConfig;
use crate::drain::Drain;
use crate::listen::serve_secured;

/// An authority, and the folder of the certificate that the edge has.
struct World {
    authority: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        let world = Self {
            authority: Issuer::new(params, key),
            root,
            folder: tempfile::tempdir().unwrap(),
        };
        world.issue("first.test");
        world
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            cert_file: self.folder.path().join("cert.pem"),
            key_file: self.folder.path().join("key.pem"),
            reload_ms: 100,
        }
    }

    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.config().key_file, key.serialize_pem()).unwrap();
        std::fs::write(self.config().cert_file, certificate.pem()).unwrap();
    }

    async fn serve(&self, header_timeout_ms: u32) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(&self.config()).unwrap();
        tokio::spawn(tls.clone().watch());
        tokio::spawn(async move {
            let router = Router::new().route("/", get(|| async { "hello" }));
            let config = ListenConfig {
                header_timeout_ms,
                ..ListenConfig::default()
            };
            let drain = Drain::new(Duration::ZERO);
            serve_secured(&listener, router, &config, drain, Some(tls), |_| {}).await;
        });
        address
    }

    /// A client that trusts the authority, and expects this name.
    async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    while !text.ends_with("hello") {
        let byte = stream.read_u8().await.unwrap();
        text.push(char::from(byte));
    }
    text
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_dropping_anybody() {
    let world = World::new();
    let address = world.serve(60_000).await;
    let mut old = world.connect(address, "first.test").await.unwrap();
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"));
    assert!(world.connect(address, "second.test").await.is_err());

    // Half a change is no change.
    std::fs::write(world.config().cert_file, "not a certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(world.connect(address, "first.test").await.is_ok());

    world.issue("second.test");
    let taken = async {
        while world.connect(address, "second.test").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken)
        .await
        .expect("the new certificate is served");
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_speaks_no_tls_or_nothing_at_all_is_cut() {
    let world = World::new();
    let address = world.serve(500).await;
    for said in [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), b""] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let cut = plain.read_to_end(&mut answer);
        let cut = tokio::time::timeout(Duration::from_secs(20), cut).await;
        assert!(cut.is_ok(), "still open");
        assert!(!answer.starts_with(b"HTTP"), "answered in plain text");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_at_the_start() {
    let world = World::new();
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(world.config().key_file, other).unwrap();
    assert!(matches!(
        Tls::new(&world.config()),
        Err(TlsError::Unusable(_))
    ));
    let gone = TlsConfig {
        cert_file: "/nowhere/cert.pem".into(),
        ..world.config()
    };
    let error = Tls::new(&gone).unwrap_err();
    assert!(error.to_string().contains("/nowhere/cert.pem"), "{error}");
}
