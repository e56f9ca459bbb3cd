use super::*;

use edge::auth::{AuthConfig, Authenticator, KeyConfig, Secret, TokenAlgorithm, unix_now_s};
use protocol::Channel;

#[tokio::test]
async fn a_token_grants_what_was_asked_for() {
    let setup = Setup::new("nats://127.0.0.1:1", "");
    let arguments = [
        "token",
        "--user",
        "alice",
        "--subscribe",
        "room:1",
        "--subscribe",
        "topic:*",
        "--publish",
        "room:1",
        "--ttl",
        "5m",
    ];
    let output = run(&arguments, &setup.config(), &[]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let auth = Authenticator::new(&AuthConfig {
        keys: vec![KeyConfig {
            alg: TokenAlgorithm::HS256,
            kid: None,
            secret: Some(Secret::new(SECRET)),
            secret_file: None,
            public_key_pem: None,
            public_key_pem_file: None,
        }],
        ..AuthConfig::default()
    })
    .unwrap();
    let now_s = unix_now_s();
    let grants = auth.verify_token(stdout(&output).trim(), now_s).unwrap();
    assert_eq!(grants.user.as_str(), "alice");
    let channel = |text| Channel::parse(text).unwrap();
    assert!(grants.may_subscribe(&channel("topic:x")));
    assert!(grants.may_publish(&channel("room:1")));
    assert!(!grants.may_publish(&channel("topic:x")));
    assert!(!grants.may_subscribe(&channel("user:bob")));
    assert!((now_s + 290..=now_s + 306).contains(&grants.expires_s));
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused() {
    let setup = Setup::new("nats://127.0.0.1:1", "");
    for arguments in [
        &["token", "--user", "a.b"][..],
        &["token", "--user", "alice", "--subscribe", "*"],
        &["token", "--user", "alice", "--publish", "user:>"],
        &["token", "--user", "alice", "--ttl", "tomorrow"],
        &["token"],
    ] {
        let output = run(arguments, &setup.config(), &[]).await;
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
    // No key that can sign.
    let variables = [("REJOIN_EDGE__AUTH__KEYS", "[]")];
    let output = run(&["token", "--user", "a"], &setup.config(), &variables).await;
    assert!(stderr(&output).contains("HS256"), "{}", stderr(&output));
}
