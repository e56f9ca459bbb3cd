//! TLS to Postgres: the authority and the host name are checked.

use std::path::PathBuf;

use devstack::{Postgres, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use store::{Store, StoreConfig};

/// An authority, in a file, and what it issues.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), root.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Certificate and key for a server of this name, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Gives a server that runs another certificate.
async fn install(postgres: &Postgres, (certificate, key): (String, String)) {
    // The server reads them under its own account, and wants the key to be nobody else's: so it writes them itself.
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = postgres.data_dir().join("data").join(name);
        let copy = format!(
            "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM 'umask 077; cat > {}'",
            text.trim(),
            path.display()
        );
        postgres.execute(&copy).await.unwrap();
    }
    for (name, value) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("ssl", "on"),
    ] {
        let set = format!("ALTER SYSTEM SET {name} = '{value}'");
        postgres.execute(&set).await.unwrap();
    }
    postgres.restart().await.unwrap();
}

/// Whether the store works, and over TLS.
async fn is_encrypted(config: StoreConfig) -> Result<bool, String> {
    let store = Store::connect(StoreConfig {
        acquire_timeout_ms: 10_000,
        ..config
    })
    .await
    .map_err(|error| error.to_string())?;
    let inspection = store.inspect().await.map_err(|error| error.to_string());
    store.close().await;
    inspection.map(|it| it.is_encrypted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_spoken_to_over_verified_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    install(&postgres, ours.issue("localhost")).await;
    let url = postgres.url().replace("127.0.0.1", "localhost");
    let with = |url: &str, ca: &Authority| StoreConfig {
        ca_file: Some(ca.file()),
        ..StoreConfig::new(url)
    };

    assert!(is_encrypted(with(&url, &ours)).await.unwrap());
    // The same in the URL alone.
    let in_url = |mode: &str, ca: &Authority| {
        let file = ca.file();
        StoreConfig::new(format!(
            "{url}?sslmode={mode}&sslrootcert={}",
            file.display()
        ))
    };
    assert!(is_encrypted(in_url("verify-full", &ours)).await.unwrap());

    let wrong = [
        ("another authority", with(&url, &theirs)),
        (
            "another authority, in the URL",
            in_url("verify-full", &theirs),
        ),
        ("another name", with(&postgres.url(), &ours)),
    ];
    for (what, config) in wrong {
        let refused = is_encrypted(config).await.unwrap_err();
        assert!(refused.contains("certificate"), "{what}: {refused}");
    }
    // A weaker mode in the URL does not count beside an authority.
    let weaker = format!("{url}?sslmode=disable");
    let refused = is_encrypted(with(&weaker, &theirs)).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_without_tls_is_not_spoken_to_where_an_authority_is_named() {
    let ours = Authority::new();
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let config = StoreConfig::new(postgres.url());
    assert!(!is_encrypted(config.clone()).await.unwrap());
    let refused = is_encrypted(StoreConfig {
        ca_file: Some(ours.file()),
        ..config
    });
    let refused = refused.await.unwrap_err();
    assert!(refused.contains("TLS"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_may_stand_in_a_file() {
    let postgres = Postgres::shared().await.unwrap();
    let url = postgres.scratch_database().await.unwrap();
    let password = url.split([':', '@']).nth(2).unwrap().to_owned();
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = StoreConfig {
        password_file: Some(file.path().to_owned()),
        ..StoreConfig::new(url.replace(&format!(":{password}@"), "@"))
    };
    std::fs::write(file.path(), "another").unwrap();
    assert!(Store::connect(config.clone()).await.is_err());
    std::fs::write(file.path(), format!("{password}\n")).unwrap();
    Store::connect(config.clone()).await.unwrap();
    std::fs::remove_file(file.path()).unwrap();
    let refused = Store::new(config).unwrap_err().to_string();
    assert!(refused.contains("password_file"), "{refused}");
}
