use super::*;

#[tokio::test]
async fn an_edge_is_ready_when_all_of_it_is() {
    let cold = Api::new();
    let answer = cold.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body["reasons"]["windows"], "0 of 1 are filled");
    assert_eq!(cold.get("/healthz", "").await.status, StatusCode::OK);

    let api = Api::filled().await;
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    api.edge.readiness().not_ready("nats", "not connected");
    let answer = api.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body["reasons"], json!({ "nats": "not connected" }));
    api.edge.readiness().ready("nats");
    assert_eq!(api.get("/readyz", "").await.status, StatusCode::OK);
    api.edge.drain().advance(Phase::Unready);
    let answer = api.get("/readyz", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body["reasons"]["drain"].is_string());
    // Still serving what comes.
    let answer = api.get("/v1/channels/room:1/messages", READER_KEY).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let api = Api::new();
    let answer = api.get("/panics", "").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.code(), "internal");
    assert!(!answer.body.to_string().contains("this handler"));
}

#[tokio::test]
async fn what_is_not_there_answers_in_the_same_form() {
    let api = Api::new();
    let answer = api.get("/v2/nothing", "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.code(), "not_found");
    let path = "/v1/channels/user:1/messages";
    let answer = api
        .send(request(Method::DELETE, path, SERVICE_KEY, Body::empty()))
        .await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.code(), "bad_request");
}

fn with_origin(mut request: Request<Body>, origin: &str) -> Request<Body> {
    let value = origin.parse().unwrap();
    request.headers_mut().insert(header::ORIGIN, value);
    request
}

#[tokio::test]
async fn only_allowed_pages_get_an_answer_they_can_read() {
    let api = Api::filled().await;
    let path = "/v1/channels/room:1/messages";
    let ask = |origin: &'static str| {
        let get = request(Method::GET, path, READER_KEY, Body::empty());
        api.send(with_origin(get, origin))
    };
    let allowed = ask("https://app.example.com").await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        allowed.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://app.example.com"
    );
    let stranger = ask("https://evil.example").await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    assert_eq!(stranger.code(), "forbidden");
    let open = &stranger.headers;
    assert!(!open.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn a_preflight_allows_what_the_api_takes() {
    let api = Api::new();
    let preflight = |origin: &'static str| {
        let path = "/v1/channels/room:1/messages";
        let mut ask = request(Method::OPTIONS, path, "", Body::empty());
        let headers = ask.headers_mut();
        headers.insert("access-control-request-method", "POST".parse().unwrap());
        let asked = "authorization, rejoin-id".parse().unwrap();
        headers.insert("access-control-request-headers", asked);
        api.send(with_origin(ask, origin))
    };
    let allowed = preflight("https://app.example.com").await;
    assert_eq!(allowed.status, StatusCode::OK);
    let names = allowed.headers[header::ACCESS_CONTROL_ALLOW_HEADERS]
        .to_str()
        .unwrap();
    for name in ["authorization", "rejoin-id", "rejoin-type"] {
        assert!(names.contains(name), "{names}");
    }
    let stranger = preflight("https://evil.example").await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
}
