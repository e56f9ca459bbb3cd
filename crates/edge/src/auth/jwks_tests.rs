use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::auth::{Authenticator, TokenError};

const RS256: &str = include_str!("testdata/rs256.private.pem");
const ES256: &str = include_str!("testdata/es256.private.pem");
const EDDSA: &str = include_str!("testdata/eddsa.private.pem");
const NOW_S: u64 = 1_790_000_000;

fn signers() -> [(&'static str, Algorithm, EncodingKey); 3] {
    [
        (
            "r",
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(RS256.as_bytes()).unwrap(),
        ),
        (
            "e",
            Algorithm::ES256,
            EncodingKey::from_ec_pem(ES256.as_bytes()).unwrap(),
        ),
        (
            "d",
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(EDDSA.as_bytes()).unwrap(),
        ),
    ]
}

/// The public key of a signer as it stands in a set.
fn jwk(kid: &str, algorithm: Algorithm, key: &EncodingKey) -> Value {
    let jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!(kid);
    jwk["use"] = json!("sig");
    jwk
}

fn set(kids: &[&str]) -> Vec<u8> {
    let keys = signers().into_iter().filter(|(kid, ..)| kids.contains(kid));
    let keys: Vec<Value> = keys
        .map(|(kid, algorithm, key)| jwk(kid, algorithm, &key))
        .collect();
    serde_json::to_vec(&json!({ "keys": keys })).unwrap()
}

fn token(kid: &str) -> String {
    let (kid, algorithm, key) = signers().into_iter().find(|it| it.0 == kid).unwrap();
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    let claims = json!({ "sub": "alice", "exp": NOW_S + 60 });
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

fn authenticator(config: JwksConfig) -> Authenticator {
    Authenticator::new(&AuthConfig {
        jwks: Some(config),
        ..AuthConfig::default()
    })
    .unwrap()
}

fn verify(auth: &Authenticator, kid: &str) -> Result<(), TokenError> {
    auth.verify_token(&token(kid), NOW_S).map(|_| ())
}

/// A provider that answers with what the test says.
struct Provider {
    url: String,
    asked: Arc<AtomicUsize>,
    answer: Arc<parking_lot::Mutex<(StatusCode, Vec<u8>, Duration)>>,
}

impl Provider {
    async fn start(body: Vec<u8>) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(parking_lot::Mutex::new((
            StatusCode::OK,
            body,
            Duration::ZERO,
        )));
        let (counter, state) = (asked.clone(), answer.clone());
        let keys = move || {
            let (status, body, delay) = state.lock().clone();
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(delay).await;
                (status, body).into_response()
            }
        };
        let router = Router::new()
            .route("/keys", get(keys))
            .route("/moved", get(|| async { Redirect::temporary("/keys") }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked, answer }
    }

    fn config(&self, path: &str) -> JwksConfig {
        JwksConfig {
            url: Some(format!("{}{path}", self.url)),
            timeout_ms: 500,
            ..JwksConfig::default()
        }
    }
}

#[tokio::test]
async fn each_algorithm_verifies_with_its_key_of_the_set() {
    let provider = Provider::start(set(&["r", "e", "d"])).await;
    let auth = authenticator(provider.config("/keys"));
    // Closed until it is read, and not for good.
    assert_eq!(verify(&auth, "r"), Err(TokenError::KeysPending));
    assert_eq!(auth.jwks().unwrap().read().await.unwrap(), 3);
    for kid in ["r", "e", "d"] {
        assert_eq!(verify(&auth, kid), Ok(()), "{kid}");
    }
    // Whatever a token says about where its key is.
    let (_, algorithm, key) = &signers()[0];
    let mut header = Header::new(*algorithm);
    header.kid = Some("e".to_owned());
    header.jku = Some(format!("{}/keys", provider.url));
    let claims = json!({ "sub": "alice", "exp": NOW_S + 60 });
    let confused = jsonwebtoken::encode(&header, &claims, key).unwrap();
    assert_eq!(
        auth.verify_token(&confused, NOW_S),
        Err(TokenError::UnknownKey)
    );
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_set_is_read_for_what_it_may_contain_only() {
    let auth = AuthConfig::default();
    let count = |keys: Value| {
        let set = serde_json::to_vec(&json!({ "keys": keys })).unwrap();
        parse(&set, &auth).map(|keys| keys.len()).map_err(|_| ())
    };
    let [(_, alg, key), ..] = signers();
    let good = jwk("r", alg, &key);
    let with = |field: &str, value: Value| {
        let mut key = good.clone();
        key[field] = value;
        key
    };
    assert_eq!(count(json!([good])), Ok(1));
    // A shared secret in a public set is everybody's.
    let secret = json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0" });
    let strange = json!({ "kty": "XYZ", "kid": "x" });
    assert_eq!(
        count(json!([secret, strange, 7, with("use", json!("enc")), good])),
        Ok(1)
    );
    for bad in [
        secret,
        with("alg", json!("RS512")),
        with("alg", json!("HS256")),
        with("n", json!("AQAB")),
    ] {
        assert_eq!(count(json!([bad])), Err(()), "{bad}");
    }
    let many = |n| Value::Array((0..n).map(|_| good.clone()).collect());
    assert_eq!(count(many(KEYS_MAX)), Ok(KEYS_MAX));
    assert_eq!(count(many(KEYS_MAX + 1)), Err(()));
    assert_eq!(count(json!([])), Err(()));
    for text in ["", "[]", "{}", "null", "{\"keys\":{}}"] {
        assert!(parse(text.as_bytes(), &auth).is_err(), "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_is_wrong_long_late_or_elsewhere_changes_nothing() {
    let provider = Provider::start(set(&["r"])).await;
    let auth = authenticator(provider.config("/keys"));
    let jwks = auth.jwks().unwrap();
    jwks.read().await.unwrap();
    let padding = vec![b' '; SET_BYTES_MAX];
    let long = [&set(&["e"])[..], &padding].concat();
    for (status, body, delay) in [
        (StatusCode::OK, b"no".to_vec(), Duration::ZERO),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            set(&["e"]),
            Duration::ZERO,
        ),
        (StatusCode::OK, long, Duration::ZERO),
        (StatusCode::OK, set(&["e"]), Duration::from_secs(60)),
    ] {
        *provider.answer.lock() = (status, body, delay);
        assert!(jwks.read().await.is_err(), "{status}");
        assert_eq!(verify(&auth, "r"), Ok(()));
        assert!(verify(&auth, "e").is_err());
    }
    *provider.answer.lock() = (StatusCode::OK, set(&["e"]), Duration::ZERO);
    let elsewhere = authenticator(provider.config("/moved"));
    assert!(
        elsewhere.jwks().unwrap().read().await.is_err(),
        "a redirect was followed"
    );
    // A key that is gone is gone.
    jwks.read().await.unwrap();
    assert_eq!(verify(&auth, "e"), Ok(()));
    assert!(verify(&auth, "r").is_err());
}

#[tokio::test]
async fn strangers_cannot_make_it_ask_more_often() {
    let provider = Provider::start(set(&["r"])).await;
    let auth = Arc::new(authenticator(provider.config("/keys")));
    let (known, mut is_known) = tokio::sync::mpsc::unbounded_channel();
    let keeper = Arc::clone(&auth);
    tokio::spawn(async move {
        let jwks = keeper.jwks().unwrap();
        jwks.keep(|| known.send(()).unwrap()).await;
    });
    is_known.recv().await.unwrap();
    let unknown = token("e");
    for _ in 0..1_000 {
        let refused = auth.verify_token(&unknown, NOW_S);
        assert_eq!(refused, Err(TokenError::UnknownKey));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_new_is_looked_for_and_an_old_set_ends() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), set(&["r"])).unwrap();
    let config = JwksConfig {
        file: Some(file.path().to_owned()),
        ..JwksConfig::default()
    };
    let auth = Arc::new(authenticator(config.clone()));
    let keeper = Arc::clone(&auth);
    tokio::spawn(async move { keeper.jwks().unwrap().keep(|| ()).await });
    while auth.jwks().unwrap().keys().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(verify(&auth, "r"), Ok(()));
    std::fs::write(file.path(), set(&["r", "e"])).unwrap();
    tokio::time::sleep(READ_PAUSE).await;
    // The client is told to come back, and not that its token is bad.
    assert_eq!(verify(&auth, "e"), Err(TokenError::KeysPending));
    let asked = Instant::now();
    while verify(&auth, "e").is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(asked.elapsed() <= READ_PAUSE, "{:?}", asked.elapsed());
    std::fs::write(file.path(), "gone").unwrap();
    tokio::time::sleep(Duration::from_secs(u64::from(config.stale_s) - 1)).await;
    assert_eq!(verify(&auth, "e"), Ok(()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(verify(&auth, "e"), Err(TokenError::KeysPending));
}

#[test]
fn a_bad_configuration_names_its_field() {
    let with = |change: fn(&mut JwksConfig)| {
        let mut config = JwksConfig {
            url: Some("https://id.example/keys".to_owned()),
            ..JwksConfig::default()
        };
        change(&mut config);
        let auth = AuthConfig {
            jwks: Some(config),
            ..AuthConfig::default()
        };
        Authenticator::new(&auth)
            .map(|_| ())
            .map_err(|error| error.field)
    };
    assert_eq!(with(|_| ()), Ok(()));
    assert_eq!(with(|c| c.file = Some("x".into())), Err("jwks".to_owned()));
    assert_eq!(with(|c| c.url = None), Err("jwks".to_owned()));
    let plain = with(|c| c.url = Some("http://id.example/keys".to_owned()));
    assert_eq!(plain, Err("jwks.url".to_owned()));
    assert_eq!(with(|c| c.refresh_s = 9), Err("jwks.refresh_s".to_owned()));
    assert_eq!(with(|c| c.stale_s = 299), Err("jwks.stale_s".to_owned()));
    assert_eq!(
        with(|c| c.timeout_ms = 0),
        Err("jwks.timeout_ms".to_owned())
    );
}
