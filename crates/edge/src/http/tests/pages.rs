use super::*;

#[tokio::test]
async fn pages_are_strict_and_can_be_switched_off() {
    let api = Api::new();
    for path in ["/inspector", "/pages/admin.js", "/pages/base.css"] {
        let answer = api.get(path, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str();
        let policy = policy.unwrap();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert!(!answer.text.contains("rejoin-dev\">"), "{path}");
    }
    assert_eq!(
        api.get("/pages/nothing.js", "").await.status,
        StatusCode::NOT_FOUND
    );
    let without = Api::with(|_| Ok(false), |config| config.pages.enabled = false);
    for path in ["/inspector", "/pages/admin.js"] {
        assert_eq!(without.get(path, "").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn the_demonstration_is_there_in_development_only() {
    let api = Api::new();
    for path in [
        "/",
        "/pane",
        "/dev/token/alice",
        "/dev/key",
        "/dev/controls",
    ] {
        let answer = api.get(path, ADMIN_KEY).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let dev = development();
    assert_eq!(dev.get("/", "").await.status, StatusCode::OK);
    let token = dev.get("/dev/token/alice", "").await;
    let token = token.body["token"].as_str().unwrap();
    let grants = dev.edge.auth().verify_token(token, unix_now_s()).unwrap();
    assert_eq!(grants.user.as_str(), "alice");
    let answer = dev.get("/dev/token/a.b", "").await;
    assert_eq!(answer.code(), "bad_request");
    assert_eq!(dev.get("/dev/key", "").await.body["key"], ADMIN_KEY);
    let inspector = dev.get("/inspector", "").await;
    assert!(inspector.text.contains("<meta name=\"rejoin-dev\">"));
}

#[tokio::test]
async fn the_demonstration_answers_under_this_machines_names_alone() {
    let dev = development();
    let ask = |host: &'static str| {
        let mut ask = request(Method::GET, "/dev/key", "", Body::empty());
        ask.headers_mut()
            .insert(header::HOST, host.parse().unwrap());
        dev.send(ask)
    };
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(ask(host).await.status, StatusCode::OK, "{host}");
    }
    for host in [
        "rebound.example",
        "localhost.example:8080",
        "127.0.0.1.example",
    ] {
        assert_eq!(ask(host).await.status, StatusCode::FORBIDDEN, "{host}");
    }
}

fn development() -> Api {
    Api::with(
        |_| Ok(false),
        |config| {
            config.dev = true;
            config.dev_controls = Some(crate::config::DevControls {
                url: "http://127.0.0.1:1".to_owned(),
                token: Secret::new("controls"),
                api_key: Secret::new(ADMIN_KEY),
            });
        },
    )
}

#[tokio::test]
async fn a_credential_can_be_asked_what_it_grants() {
    let api = Api::new();
    let key = api.get("/v1/whoami", ADMIN_KEY).await;
    assert_eq!(key.status, StatusCode::OK, "{}", key.body);
    assert_eq!(
        key.body,
        json!({
            "key": "admin",
            "admin": true,
            "read": [],
            "publish": [],
            "members": [],
            "edge": "",
            "version": env!("CARGO_PKG_VERSION"),
        })
    );
    let service = api.get("/v1/whoami", SERVICE_KEY).await;
    assert_eq!(service.body["admin"], false);
    assert_eq!(service.body["read"], json!(["*:*"]));
    let user = api.get("/v1/whoami", &token("alice", 60)).await;
    assert_eq!(user.body["user"], "alice");
    assert_eq!(user.body["read"], json!(["user:alice", "room:1"]));
    assert_eq!(user.body["publish"], json!(["topic:*"]));
    assert!(user.body["expires_ms"].as_u64() > Some(unix_now_s() * 1_000));
    for bearer in ["", "rj_wrong"] {
        let answer = api.get("/v1/whoami", bearer).await;
        assert_eq!(answer.code(), "unauthorized");
    }
}
