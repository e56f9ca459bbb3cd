//! TLS to NATS: verified, mutual, and with an nkey.

use backplane::{Auth, Backplane, BackplaneConfig, Tls};
use delivery::publish::Publish;
use devstack::{NatsOptions, NatsServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::{config, publication};

/// An authority and what it has issued, in files.
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
        let authority = Self { folder, issuer };
        authority.issue("server");
        authority.issue("edge");
        authority
    }

    fn issue(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), format!("{name}.test")];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_spoken_to_over_verified_tls_from_both_sides_with_an_nkey() {
    let ours = Authority::new();
    let theirs = Authority::new();
    let nkey = nkeys::KeyPair::new_user();
    let file = |name: &str| ours.file(name).display().to_string();
    let options = NatsOptions {
        extra_config: format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}\n\
             authorization {{ users: [{{ nkey: {} }}] }}\n",
            file("server.pem"),
            file("server.key"),
            file("ca.pem"),
            nkey.public_key()
        ),
        requires_tls: true,
        ..NatsOptions::default()
    };
    let nats = NatsServer::start(options).await.unwrap();
    let right = BackplaneConfig {
        auth: Auth {
            nkey_seed: Some(nkey.seed().unwrap()),
            ..Auth::default()
        },
        tls: Tls {
            required: true,
            ca_file: Some(ours.file("ca.pem")),
            cert_file: Some(ours.file("edge.pem")),
            key_file: Some(ours.file("edge.key")),
        },
        ..config(&nats, 1)
    };
    let backplane = Backplane::connect(right.clone()).await.unwrap();
    backplane.provision().await.unwrap();
    let publisher = backplane.publisher();
    publisher.publish(publication("room:1", "1")).await.unwrap();

    type Break = fn(&mut BackplaneConfig, &Authority);
    let wrong: [(&str, Break); 4] = [
        ("a server of another authority", |it, theirs| {
            it.tls.ca_file = Some(theirs.file("ca.pem"));
        }),
        ("no client certificate", |it, _| {
            it.tls.cert_file = None;
            it.tls.key_file = None;
        }),
        ("a client certificate of another authority", |it, theirs| {
            it.tls.cert_file = Some(theirs.file("edge.pem"));
            it.tls.key_file = Some(theirs.file("edge.key"));
        }),
        ("another nkey", |it, _| {
            it.auth.nkey_seed = nkeys::KeyPair::new_user().seed().ok();
        }),
    ];
    for (what, break_it) in wrong {
        let mut config = right.clone();
        break_it(&mut config, &theirs);
        let connected = Backplane::connect(config).await;
        assert!(connected.is_err(), "let in with {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_not_spoken_to_where_it_is_required() {
    let nats = NatsServer::start(NatsOptions::default()).await.unwrap();
    let mut config = config(&nats, 1);
    assert!(Backplane::connect(config.clone()).await.is_ok());
    config.tls.required = true;
    assert!(Backplane::connect(config).await.is_err());
}
