//! Credentials that stand in files.

use backplane::{Auth, Backplane, BackplaneConfig};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use delivery::publish::Publish;
use devstack::{NatsOptions, NatsServer};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::support::{config, publication};

/// A JWT as NATS' own tools write it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let claims = encode(json!({
        "jti": "0", "iat": 1_700_000_000, "name": "test",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats,
    }));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn account() -> Value {
    json!({
        "type": "account", "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        },
    })
}

/// A `.creds` file's text.
fn creds(account: &KeyPair, user: &KeyPair) -> String {
    let nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, user, &nats),
        user.seed().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creds_file_opens_its_account_and_no_other_does() {
    let operator = KeyPair::new_operator();
    let (system, ours, theirs) = (
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let operator_jwt = jwt(
        &operator,
        &operator,
        &json!({"type": "operator", "version": 2}),
    );
    let options = NatsOptions {
        extra_config: format!(
            "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload: {{\n {}: {}\n {}: {}\n}}\n",
            system.public_key(),
            system.public_key(),
            jwt(
                &operator,
                &system,
                &json!({"type": "account", "version": 2})
            ),
            ours.public_key(),
            jwt(&operator, &ours, &account()),
        ),
        // Nobody gets in without a credential: a greeting is what can be waited for.
        requires_tls: true,
        shards: 0,
        ..NatsOptions::default()
    };
    let nats = NatsServer::start(options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.creds");
    let config = BackplaneConfig {
        auth: Auth {
            credentials_file: Some(path.clone()),
            ..Auth::default()
        },
        ..config(&nats, 1)
    };
    let write = |text: String| std::fs::write(&path, text).unwrap();

    write(creds(&ours, &KeyPair::new_user()));
    let backplane = Backplane::connect(config.clone()).await.unwrap();
    backplane.provision().await.unwrap();
    let publisher = backplane.publisher();
    publisher.publish(publication("room:1", "1")).await.unwrap();

    // Of an account that the operator does not know; and with another user's key.
    let user = KeyPair::new_user();
    let mixed =
        creds(&ours, &user).replace(&user.seed().unwrap(), &KeyPair::new_user().seed().unwrap());
    for text in [
        creds(&theirs, &KeyPair::new_user()),
        mixed,
        "nothing".to_owned(),
    ] {
        write(text);
        assert!(Backplane::connect(config.clone()).await.is_err());
    }
    std::fs::remove_file(&path).unwrap();
    assert!(Backplane::connect(config).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeds_tokens_and_passwords_may_stand_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let nkey = KeyPair::new_user();
    let file = Some(path.clone());
    let cases = [
        (
            format!(
                "authorization {{ users: [{{ nkey: {} }}] }}",
                nkey.public_key()
            ),
            nkey.seed().unwrap(),
            Auth {
                nkey_seed_file: file.clone(),
                ..Auth::default()
            },
        ),
        (
            "authorization { token: \"of-the-file\" }".to_owned(),
            "of-the-file".to_owned(),
            Auth {
                token_file: file.clone(),
                ..Auth::default()
            },
        ),
        (
            "authorization { user: edge, password: \"of-the-file\" }".to_owned(),
            "of-the-file".to_owned(),
            Auth {
                user: Some("edge".to_owned()),
                password_file: file,
                ..Auth::default()
            },
        ),
    ];
    for (extra_config, secret, auth) in cases {
        let options = NatsOptions {
            extra_config,
            requires_tls: true,
            ..NatsOptions::default()
        };
        let nats = NatsServer::start(options).await.unwrap();
        let config = BackplaneConfig {
            auth,
            ..config(&nats, 1)
        };
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        Backplane::connect(config.clone()).await.unwrap();
        let other = match secret.starts_with("SU") {
            true => KeyPair::new_user().seed().unwrap(),
            false => "another".to_owned(),
        };
        std::fs::write(&path, other).unwrap();
        assert!(Backplane::connect(config).await.is_err());
    }
}
