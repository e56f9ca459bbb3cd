use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth::Authenticator;

const NOW_S: u64 = 1_790_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const RS256_PRIVATE: &str = include_str!("testdata/rs256.private.pem");
const RS256_PUBLIC: &str = include_str!("testdata/rs256.public.pem");
const ES256_PRIVATE: &str = include_str!("testdata/es256.private.pem");
const ES256_PUBLIC: &str = include_str!("testdata/es256.public.pem");
const EDDSA_PRIVATE: &str = include_str!("testdata/eddsa.private.pem");
const EDDSA_PUBLIC: &str = include_str!("testdata/eddsa.public.pem");
const P384_PUBLIC: &str = include_str!("testdata/p384.public.pem");

fn hs256(secret: &str) -> KeyConfig {
    KeyConfig {
        alg: TokenAlgorithm::HS256,
        kid: None,
        secret: Some(Secret::new(secret)),
        secret_file: None,
        public_key_pem: None,
        public_key_pem_file: None,
    }
}

fn public(alg: TokenAlgorithm, pem: &str) -> KeyConfig {
    KeyConfig {
        alg,
        secret: None,
        public_key_pem: Some(pem.to_owned()),
        ..hs256("")
    }
}

fn config(keys: Vec<KeyConfig>) -> AuthConfig {
    AuthConfig {
        keys,
        ..AuthConfig::default()
    }
}

fn authenticator(keys: Vec<KeyConfig>) -> Authenticator {
    Authenticator::new(&config(keys)).unwrap()
}

fn sign(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs_token(claims: &Value) -> String {
    sign(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        claims,
    )
}

fn verify(claims: &Value) -> Result<Grants, TokenError> {
    authenticator(vec![hs256(SECRET)]).verify_token(&hs_token(claims), NOW_S)
}

fn alice() -> Value {
    json!({ "sub": "alice", "exp": NOW_S + 60 })
}

fn with(mut claims: Value, key: &str, value: Value) -> Value {
    claims[key] = value;
    claims
}

fn channel(text: &str) -> Channel {
    Channel::parse(text).unwrap()
}

#[test]
fn each_algorithm_verifies_its_own_tokens() {
    let cases = [
        (
            hs256(SECRET),
            Algorithm::HS256,
            EncodingKey::from_secret(SECRET.as_bytes()),
        ),
        (
            public(TokenAlgorithm::RS256, RS256_PUBLIC),
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(RS256_PRIVATE.as_bytes()).unwrap(),
        ),
        (
            public(TokenAlgorithm::ES256, ES256_PUBLIC),
            Algorithm::ES256,
            EncodingKey::from_ec_pem(ES256_PRIVATE.as_bytes()).unwrap(),
        ),
        (
            public(TokenAlgorithm::EdDSA, EDDSA_PUBLIC),
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(EDDSA_PRIVATE.as_bytes()).unwrap(),
        ),
    ];
    let all = authenticator(cases.iter().map(|(key, _, _)| key.clone()).collect());
    for (key, algorithm, signing) in &cases {
        let token = sign(*algorithm, signing, &alice());
        let grants = authenticator(vec![key.clone()]).verify_token(&token, NOW_S);
        assert_eq!(grants.unwrap().user.as_str(), "alice", "{algorithm:?}");
        assert!(all.verify_token(&token, NOW_S).is_ok(), "{algorithm:?}");
        // And no other key verifies it.
        for (other, other_algorithm, _) in &cases {
            if other_algorithm != algorithm {
                assert_eq!(
                    authenticator(vec![other.clone()]).verify_token(&token, NOW_S),
                    Err(TokenError::UnknownKey),
                    "{algorithm:?} against {other_algorithm:?}"
                );
            }
        }
    }
}

#[test]
fn a_public_key_used_as_a_shared_secret_is_refused() {
    let forged = sign(
        Algorithm::HS256,
        &EncodingKey::from_secret(RS256_PUBLIC.as_bytes()),
        &alice(),
    );
    let only_rsa = authenticator(vec![public(TokenAlgorithm::RS256, RS256_PUBLIC)]);
    assert_eq!(
        only_rsa.verify_token(&forged, NOW_S),
        Err(TokenError::UnknownKey)
    );
    let both = authenticator(vec![
        public(TokenAlgorithm::RS256, RS256_PUBLIC),
        hs256(SECRET),
    ]);
    assert_eq!(
        both.verify_token(&forged, NOW_S),
        Err(TokenError::BadSignature)
    );
}

#[test]
fn tokens_without_an_accepted_algorithm_are_refused() {
    let auth = authenticator(vec![hs256(SECRET)]);
    let signed = hs_token(&alice());
    let (_, rest) = signed.split_once('.').unwrap();
    // {"alg":"none"}, {"alg":"NONE"}, {"alg":"HS257"}, {} as base64url.
    for header in [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJOT05FIn0",
        "eyJhbGciOiJIUzI1NyJ9",
        "e30",
    ] {
        let (claims, _) = rest.split_once('.').unwrap();
        for token in [format!("{header}.{rest}"), format!("{header}.{claims}.")] {
            assert_eq!(
                auth.verify_token(&token, NOW_S),
                Err(TokenError::Malformed),
                "{token}"
            );
        }
    }
    for token in ["", ".", "..", "a.b.c", "a.b.c.d", "é.é.é", "not a token"] {
        assert_eq!(auth.verify_token(token, NOW_S), Err(TokenError::Malformed));
    }
}

#[test]
fn a_header_extension_that_must_be_understood_is_refused() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&header, &alice(), &key).unwrap();
    assert_eq!(
        authenticator(vec![hs256(SECRET)]).verify_token(&token, NOW_S),
        Err(TokenError::Malformed)
    );
}

#[test]
fn an_oversized_token_is_refused_before_it_is_parsed() {
    let auth = authenticator(vec![hs256(SECRET)]);
    let long = hs_token(&with(alice(), "x", json!("y".repeat(TOKEN_MAX_BYTES))));
    assert_eq!(auth.verify_token(&long, NOW_S), Err(TokenError::TooLarge));
    let nonsense = "x".repeat(TOKEN_MAX_BYTES + 1);
    assert_eq!(
        auth.verify_token(&nonsense, NOW_S),
        Err(TokenError::TooLarge)
    );
}

#[test]
fn times_are_checked_with_the_leeway() {
    // The default leeway is 5 s.
    let at = |key: &str, value: u64| verify(&with(alice(), key, json!(value)));
    assert_eq!(at("exp", NOW_S - 5), Err(TokenError::Expired));
    assert_eq!(at("exp", NOW_S - 4).unwrap().expires_s, NOW_S + 1);
    assert!(at("nbf", NOW_S + 5).is_ok());
    assert_eq!(at("nbf", NOW_S + 6), Err(TokenError::NotYetValid));
    // One that was issued in the future would outlive its revocation.
    assert!(at("iat", NOW_S + 5).is_ok());
    assert_eq!(at("iat", NOW_S + 6), Err(TokenError::NotYetValid));
    // The largest time is not an overflow.
    assert_eq!(at("exp", u64::MAX), Err(TokenError::TooLongLived));
    assert!(at("nbf", u64::MAX).is_err());
    // Fractions are allowed by RFC 7519.
    let fraction = json!(NOW_S as f64 + 0.5);
    assert!(verify(&with(alice(), "exp", fraction)).is_ok());
}

#[test]
fn a_token_lives_no_longer_than_its_revocation_would() {
    let most = AuthConfig::default().token_lifetime_max_s + 5;
    let lives = |from: Option<u64>, exp: u64| {
        let claims = with(alice(), "exp", json!(exp));
        verify(&from.map_or(claims.clone(), |iat| with(claims, "iat", json!(iat)))).map(|_| ())
    };
    assert_eq!(lives(None, NOW_S + most), Ok(()));
    assert_eq!(lives(None, NOW_S + most + 1), Err(TokenError::TooLongLived));
    let issued = NOW_S - 1_000;
    assert_eq!(lives(Some(issued), issued + most), Ok(()));
    let longer = lives(Some(issued), issued + most + 1);
    assert_eq!(longer, Err(TokenError::TooLongLived));
    for token_lifetime_max_s in [59, 400 * 86_400 + 1] {
        let error = Authenticator::new(&AuthConfig {
            token_lifetime_max_s,
            ..AuthConfig::default()
        });
        assert_eq!(error.unwrap_err().field, "token_lifetime_max_s");
    }
}

#[test]
fn a_token_id_is_bounded() {
    let id = |bytes| verify(&with(alice(), "jti", json!("x".repeat(bytes))));
    assert!(id(256).is_ok());
    assert!(matches!(id(257), Err(TokenError::Claims(_))));
}

#[test]
fn a_revoked_token_is_refused_as_a_bearer_too() {
    let auth = authenticator(vec![hs256(SECRET)]);
    let token = hs_token(&with(alice(), "jti", json!("t-1")));
    assert!(auth.verify_bearer(&token, NOW_S).is_ok());
    auth.revocations().await_all();
    assert_eq!(auth.verify_token(&token, NOW_S), Err(TokenError::NotReady));
    auth.revocations().replace([delivery::access::Revocation {
        revoked: delivery::access::Revoked::Token("t-1".into()),
        before_ms: 0,
        expires_ms: i64::MAX,
    }]);
    assert_eq!(
        auth.verify_bearer(&token, NOW_S),
        Err(crate::auth::BearerError::Token(TokenError::Revoked))
    );
    assert!(auth.verify_token(&hs_token(&alice()), NOW_S).is_ok());
}

#[test]
fn missing_and_malformed_claims_are_refused() {
    let cases = [
        json!({ "sub": "alice" }),
        json!({ "exp": NOW_S + 60 }),
        with(alice(), "exp", json!("tomorrow")),
        with(alice(), "exp", json!(-1)),
        with(alice(), "exp", Value::Null),
        with(alice(), "sub", json!("")),
        with(alice(), "sub", json!("a.b")),
        with(alice(), "sub", json!("*")),
        with(alice(), "sub", json!(42)),
        with(alice(), "rejoin", json!({ "subscribe": "room:1" })),
        with(alice(), "rejoin", json!({ "subscribe": ["*"] })),
        with(alice(), "rejoin", json!({ "subscribe": ["user:>"] })),
        with(alice(), "rejoin", json!({ "publish": ["room:a*"] })),
        with(alice(), "rejoin", json!({ "only_from": "10.0.0.0/8" })),
    ];
    for claims in cases {
        let result = verify(&claims);
        assert!(
            matches!(result, Err(TokenError::Claims(_))),
            "{claims}: {result:?}"
        );
    }
}

#[test]
fn a_wildcard_token_is_told_why() {
    let claims = with(alice(), "rejoin", json!({ "subscribe": ["user:>"] }));
    let message = verify(&claims).unwrap_err().to_string();
    assert!(message.contains("whole id"), "{message}");
}

#[test]
fn issuer_and_audience_are_checked_when_configured() {
    let auth = Authenticator::new(&AuthConfig {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("rejoin".to_owned()),
        ..config(vec![hs256(SECRET)])
    })
    .unwrap();
    let check = |iss: Value, aud: Value| {
        let claims = with(with(alice(), "iss", iss), "aud", aud);
        auth.verify_token(&hs_token(&claims), NOW_S).map(|_| ())
    };
    let good = json!("https://id.example");
    assert_eq!(check(good.clone(), json!("rejoin")), Ok(()));
    assert_eq!(check(good.clone(), json!(["x", "rejoin"])), Ok(()));
    assert_eq!(
        check(good.clone(), json!("other")),
        Err(TokenError::Audience)
    );
    assert_eq!(check(good, Value::Null), Err(TokenError::Audience));
    assert_eq!(
        check(json!("evil"), json!("rejoin")),
        Err(TokenError::Issuer)
    );
    // Without both, either may be told first.
    assert!(matches!(
        auth.verify_token(&hs_token(&alice()), NOW_S),
        Err(TokenError::Issuer | TokenError::Audience)
    ));
    // Not configured: an audience in the token does not matter.
    assert!(verify(&with(alice(), "aud", json!("someone"))).is_ok());
}

#[test]
fn a_key_id_selects_its_key() {
    let other = "another secret of at least 32 bytes";
    let key = |kid: &str, secret: &str| KeyConfig {
        kid: Some(kid.to_owned()),
        ..hs256(secret)
    };
    let auth = authenticator(vec![key("old", other), key("new", SECRET)]);
    let token = |kid: Option<&str>| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let signing = EncodingKey::from_secret(SECRET.as_bytes());
        jsonwebtoken::encode(&header, &alice(), &signing).unwrap()
    };
    assert!(auth.verify_token(&token(Some("new")), NOW_S).is_ok());
    assert!(auth.verify_token(&token(None), NOW_S).is_ok());
    assert_eq!(
        auth.verify_token(&token(Some("old")), NOW_S),
        Err(TokenError::BadSignature)
    );
    assert_eq!(
        auth.verify_token(&token(Some("unknown")), NOW_S),
        Err(TokenError::UnknownKey)
    );
}

#[test]
fn a_bad_key_configuration_names_its_field() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "too short\n").unwrap();
    let cases = [
        (hs256("short"), "keys[0]"),
        (
            KeyConfig {
                secret: None,
                ..hs256("")
            },
            "keys[0]",
        ),
        (
            KeyConfig {
                public_key_pem: Some(RS256_PUBLIC.to_owned()),
                ..hs256(SECRET)
            },
            "keys[0]",
        ),
        (
            KeyConfig {
                alg: TokenAlgorithm::RS256,
                ..hs256(SECRET)
            },
            "keys[0].secret",
        ),
        (
            KeyConfig {
                secret: None,
                secret_file: Some("/nonexistent/secret".into()),
                ..hs256("")
            },
            "keys[0].secret_file",
        ),
        (
            KeyConfig {
                secret: None,
                secret_file: Some(file.path().to_owned()),
                ..hs256("")
            },
            "keys[0]",
        ),
        (public(TokenAlgorithm::RS256, RS256_PRIVATE), "keys[0]"),
        (public(TokenAlgorithm::RS256, ES256_PUBLIC), "keys[0]"),
        (public(TokenAlgorithm::ES256, P384_PUBLIC), "keys[0]"),
        (public(TokenAlgorithm::ES256, EDDSA_PUBLIC), "keys[0]"),
        (public(TokenAlgorithm::EdDSA, "not PEM"), "keys[0]"),
    ];
    for (key, field) in cases {
        let error = Authenticator::new(&config(vec![key])).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn a_minted_token_grants_what_it_says() {
    let claims = Claims {
        sub: UserId::parse("bob").unwrap(),
        exp: NOW_S + 60,
        iat: Some(NOW_S),
        nbf: None,
        jti: Some("t-1".to_owned()),
        iss: None,
        aud: None,
        rejoin: ChannelClaims {
            subscribe: vec![Pattern::parse("topic:*").unwrap()],
            publish: vec![Pattern::parse("room:1").unwrap()],
        },
    };
    let config = config(vec![
        public(TokenAlgorithm::EdDSA, EDDSA_PUBLIC),
        KeyConfig {
            kid: Some("dev".to_owned()),
            ..hs256(SECRET)
        },
    ]);
    let token = mint(&config, &claims).unwrap();
    let auth = Authenticator::new(&config).unwrap();
    let grants = auth.verify_token(token.expose(), NOW_S).unwrap();
    assert_eq!(grants.user.as_str(), "bob");
    assert_eq!(grants.token_id.as_deref(), Some("t-1"));
    assert_eq!(grants.issued_s, Some(NOW_S));
    assert!(grants.may_subscribe(&channel("user:bob")));
    assert!(!grants.may_publish(&channel("user:bob")));
    assert!(grants.may_subscribe(&channel("topic:x")));
    assert!(!grants.may_publish(&channel("topic:x")));
    assert!(grants.may_publish(&channel("room:1")));
    assert!(!grants.may_subscribe(&channel("user:alice")));

    let without_secret = AuthConfig {
        keys: config.keys[..1].to_vec(),
        ..config
    };
    assert!(matches!(
        mint(&without_secret, &claims),
        Err(MintError::NoSecret)
    ));
}

#[test]
fn secrets_are_not_shown() {
    let config = config(vec![hs256(SECRET)]);
    assert!(!format!("{config:?}").contains(SECRET));
    assert!(!serde_json::to_string(&config).unwrap().contains(SECRET));
    let auth = Authenticator::new(&config).unwrap();
    assert!(!format!("{auth:?}").contains(SECRET));
}

/// Namespaces and ids from a small set, so that patterns and channels meet.
fn part() -> impl Strategy<Value = String> {
    "[ab]{1,2}".prop_map(|text| text.replace("bb", "user"))
}

fn pattern() -> impl Strategy<Value = (String, String)> {
    (part(), prop_oneof![Just("*".to_owned()), part().boxed()])
}

fn texts(patterns: &[(String, String)]) -> Vec<String> {
    patterns
        .iter()
        .map(|(ns, id)| format!("{ns}:{id}"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// No token reaches a channel outside its patterns, whatever else it
    /// says, and every channel inside them.
    #[test]
    fn a_token_reaches_exactly_its_patterns(
        sub in part(),
        subscribe in prop::collection::vec(pattern(), 0..4),
        publish in prop::collection::vec(pattern(), 0..4),
        name in (part(), part()),
    ) {
        let claims = json!({
            "sub": sub,
            "exp": NOW_S + 60,
            "rejoin": { "subscribe": texts(&subscribe), "publish": texts(&publish) },
        });
        let grants = verify(&claims).unwrap();
        let channel = channel(&format!("{}:{}", name.0, name.1));
        let covered = |patterns: &[(String, String)]| {
            patterns.iter().any(|(ns, id)| *ns == name.0 && (id == "*" || *id == name.1))
        };
        let own_inbox = name.0 == "user" && name.1 == sub;
        prop_assert_eq!(grants.may_subscribe(&channel), own_inbox || covered(&subscribe));
        prop_assert_eq!(grants.may_publish(&channel), covered(&publish));
    }

    /// A token that was changed in any way grants nothing.
    #[test]
    fn a_changed_token_grants_nothing(position in any::<prop::sample::Index>(), byte in b'!'..b'~') {
        let token = hs_token(&alice());
        let mut changed = token.clone().into_bytes();
        let at = position.index(changed.len());
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        let auth = authenticator(vec![hs256(SECRET)]);
        if changed != token {
            prop_assert!(auth.verify_token(&changed, NOW_S).is_err(), "{}", changed);
        }
    }

    #[test]
    fn verifying_never_panics(token in ".{0,200}") {
        prop_assert!(authenticator(vec![hs256(SECRET)]).verify_token(&token, NOW_S).is_err());
    }
}
