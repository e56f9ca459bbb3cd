use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use parking_lot::Mutex as PlainMutex;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Status, body, and how long they take.
type Answer = (StatusCode, String, Duration);

/// An application that answers what the test says, and notes what it is asked.
struct Application {
    url: String,
    answer: Arc<PlainMutex<Answer>>,
    asked: Arc<PlainMutex<Vec<(HeaderMap, Bytes)>>>,
    most: Arc<PlainMutex<(usize, usize)>>,
}

impl Application {
    async fn start() -> Self {
        let answer: Arc<PlainMutex<Answer>> = Arc::new(PlainMutex::new((
            StatusCode::OK,
            r#"{"allow":true}"#.to_owned(),
            Duration::ZERO,
        )));
        let asked: Arc<PlainMutex<Vec<(HeaderMap, Bytes)>>> = Arc::default();
        let most: Arc<PlainMutex<(usize, usize)>> = Arc::default();
        let (say, note, count) = (answer.clone(), asked.clone(), most.clone());
        let decide = move |headers: HeaderMap, body: Bytes| {
            note.lock().push((headers, body));
            let (status, text, delay) = say.lock().clone();
            let count = count.clone();
            async move {
                {
                    let mut count = count.lock();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                tokio::time::sleep(delay).await;
                count.lock().0 -= 1;
                (status, text)
            }
        };
        let router = Router::new().route("/decide", post(decide));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/decide", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            answer,
            asked,
            most,
        }
    }

    fn authorizer(&self, change: fn(&mut AuthorizerConfig)) -> Arc<Authorizer> {
        let mut config = AuthorizerConfig {
            url: self.url.clone(),
            secret: Some(Secret::new(SECRET)),
            ..AuthorizerConfig::default()
        };
        change(&mut config);
        Authorizer::new(&config).unwrap()
    }

    fn says(&self, status: u16, text: &str, delay: Duration) {
        *self.answer.lock() = (
            StatusCode::from_u16(status).unwrap(),
            text.to_owned(),
            delay,
        );
    }
}

fn question(id: usize, action: Action) -> Question {
    let channel = Channel::parse(&format!("room:{id}")).unwrap();
    (UserId::parse("42").unwrap(), channel, action)
}

async fn asks(authorizer: &Authorizer, id: usize, action: Action) -> Result<bool, ()> {
    let (user, channel, action) = question(id, action);
    authorizer
        .allows(user, channel, action)
        .await
        .map_err(|_| ())
}

#[tokio::test]
async fn questions_are_signed_and_answers_are_kept_for_each_question() {
    let application = Application::start().await;
    let authorizer = application.authorizer(|_| ());
    for _ in 0..3 {
        assert_eq!(asks(&authorizer, 1, Action::Read).await, Ok(true));
    }
    {
        let asked = application.asked.lock();
        let [(headers, body)] = &asked[..] else {
            panic!("{} questions", asked.len());
        };
        assert_eq!(body, r#"{"action":"read","channel":"room:1","user":"42"}"#);
        let header = |name: &str| headers[name].to_str().unwrap();
        let timestamp_s = header(TIMESTAMP_HEADER).parse().unwrap();
        assert!(unix_now_s() - timestamp_s < 60);
        let expected = Signer::new(SECRET)
            .unwrap()
            .sign(header(ID_HEADER), timestamp_s, body);
        assert_eq!(header(SIGNATURE_HEADER), expected);
    }
    // Another question has another answer.
    application.says(200, r#"{"allow":false}"#, Duration::ZERO);
    assert_eq!(asks(&authorizer, 1, Action::Publish).await, Ok(false));
    assert_eq!(asks(&authorizer, 2, Action::Read).await, Ok(false));
    assert_eq!(asks(&authorizer, 1, Action::Read).await, Ok(true));
    assert_eq!(application.asked.lock().len(), 3);
    // Not for ever.
    let forgetful = application.authorizer(|config| config.cache_s = 0);
    for asked in [4, 5] {
        assert_eq!(asks(&forgetful, 1, Action::Read).await, Ok(false));
        assert_eq!(application.asked.lock().len(), asked);
    }
}

#[tokio::test]
async fn no_answer_grants_nothing() {
    let application = Application::start().await;
    let authorizer = application.authorizer(|config| config.timeout_ms = 300);
    let long = format!(r#"{{"allow":true,"x":"{}"}}"#, "y".repeat(ANSWER_BYTES_MAX));
    let now = Duration::ZERO;
    for (status, text, delay) in [
        (500, r#"{"allow":true}"#, now),
        (403, r#"{"allow":true}"#, now),
        (204, "", now),
        (200, "", now),
        (200, "true", now),
        (200, r#"{"allow":"true"}"#, now),
        (200, r#"{"allow":1}"#, now),
        (200, &long, now),
        (200, r#"{"allow":true}"#, Duration::from_secs(60)),
    ] {
        application.says(status, text, delay);
        let answer = asks(&authorizer, 1, Action::Read).await;
        assert_eq!(answer, Err(()), "{status} {text:.40}");
    }
    // And is not kept.
    application.says(200, r#"{"allow":true}"#, now);
    assert_eq!(asks(&authorizer, 1, Action::Read).await, Ok(true));
}

#[tokio::test]
async fn only_so_many_questions_are_asked_at_a_time() {
    let application = Application::start().await;
    application.says(200, r#"{"allow":true}"#, Duration::from_millis(20));
    let authorizer = application.authorizer(|config| {
        config.concurrency = 3;
        config.timeout_ms = 10_000;
    });
    let asking = (0..30).map(|id| asks(&authorizer, id, Action::Read));
    let answers = futures_util::future::join_all(asking).await;
    assert_eq!(answers, [Ok(true); 30]);
    assert_eq!(application.most.lock().1, 3);
}

#[test]
fn answers_are_kept_within_bounds() {
    let authorizer = Authorizer::new(&AuthorizerConfig {
        url: "https://app.example/decide".to_owned(),
        secret: Some(Secret::new(SECRET)),
        ..AuthorizerConfig::default()
    });
    let authorizer = authorizer.unwrap();
    for id in 0..ANSWERS_MAX + 10 {
        authorizer.keep(question(id, Action::Read), true);
    }
    assert!(authorizer.answers.lock().len() <= ANSWERS_MAX);
}

#[test]
fn a_bad_configuration_names_its_field() {
    let field = |change: fn(&mut AuthorizerConfig)| {
        let mut config = AuthorizerConfig {
            url: "https://app.example/decide".to_owned(),
            secret: Some(Secret::new(SECRET)),
            ..AuthorizerConfig::default()
        };
        change(&mut config);
        Authorizer::new(&config).map_err(|error| error.field).err()
    };
    assert_eq!(field(|_| ()), None);
    type Break = fn(&mut AuthorizerConfig);
    let cases: [(&str, Break); 6] = [
        ("authorizer.url", |c| {
            c.url = "http://app.example/".to_owned()
        }),
        ("authorizer.secret", |c| c.secret = None),
        ("authorizer.secret", |c| {
            c.secret = Some(Secret::new("weak"))
        }),
        ("authorizer.timeout_ms", |c| c.timeout_ms = 1),
        ("authorizer.cache_s", |c| c.cache_s = 301),
        ("authorizer.concurrency", |c| c.concurrency = 0),
    ];
    for (expected, change) in cases {
        assert_eq!(field(change).as_deref(), Some(expected));
    }
}
