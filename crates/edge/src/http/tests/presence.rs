use std::sync::atomic::{AtomicUsize, Ordering};

use delivery::fleet::{Answers, Fleet, Office, Peer, Question, To};
use delivery::members::Members;
use delivery::signal::SignalError;

use super::harness::*;
use super::sse::Events;
use super::*;

/// One other edge, with two readers; a third edge that does not answer.
/// Between real edges it is tested over a real nats-server.
#[derive(Default)]
pub(super) struct TwoOthers(pub(super) AtomicUsize);

impl Fleet for TwoOthers {
    fn peers(&self) -> Vec<Peer> {
        let peer = |(name, alive): (&str, bool)| Peer {
            name: name.into(),
            alive,
            takes_connections: alive,
        };
        [("edge-2", true), ("edge-3", false)].map(peer).to_vec()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Answers> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let head = Cursor::new(EPOCH, 0);
        let answer = json!({
            "edge": "edge-2", "head": head, "readers": 2, "users": ["alice", "carol"], "more": false,
        });
        let one = match question.to {
            To::One(name) => Answers {
                given: Vec::new(),
                missing: vec![name],
            },
            To::Others if question.operation == "channel" => Answers {
                given: vec![("edge-2".into(), Ok(answer.to_string().into()))],
                missing: vec!["edge-3".into()],
            },
            To::Others => Answers {
                given: vec![("edge-2".into(), Err("501: not here".to_owned()))],
                missing: vec!["edge-3".into()],
            },
        };
        async { one }.boxed()
    }

    fn serve(&self, _: Arc<dyn Office>) -> BoxFuture<'_, Result<(), SignalError>> {
        std::future::pending().boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn the_users_of_all_edges_are_told_and_that_one_did_not_answer() {
    let mut live = Live::new();
    let fleet = Arc::new(TwoOthers::default());
    live.fleet = Some(fleet.clone());
    let api = live.edge().await;
    let room = channel("room:7");
    let members = ["alice", "bob"].map(|user| UserId::parse(user).unwrap());
    live.rooms.add(room, members.to_vec()).await.unwrap();
    let mut here = Events::open(&api, "/v1/events?channels=room:7", &token("bob", 60)).await;
    here.expect("subscribed").await;
    // A service is nobody's presence.
    let mut service = Events::open(&api, "/v1/events?channels=room:7", SERVICE_KEY).await;
    service.expect("subscribed").await;

    let path = "/v1/channels/room:7/presence";
    let answer = api.get(path, &token("alice", 60)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let users = json!(["alice", "bob", "carol"]);
    assert_eq!(
        answer.body,
        json!({"channel": "room:7", "users": users, "partial": true})
    );
    for _ in 0..10 {
        api.get(path, &token("bob", 60)).await;
    }
    assert_eq!(fleet.0.load(Ordering::Relaxed), 1, "asked once a second");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    drop(here);
    let later = api.get(path, SERVICE_KEY).await;
    assert_eq!(later.body["users"], json!(["alice", "carol"]));
    assert_eq!(fleet.0.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_read_a_room_is_not_told_who_is_there() {
    let live = Live::new();
    let api = live.edge().await;
    let room = "/v1/channels/room:7/presence";
    let cases = [
        (room, token("mallory", 60), StatusCode::FORBIDDEN),
        (room, String::new(), StatusCode::UNAUTHORIZED),
        // A topic that the token allows to read is shared with strangers.
        (
            "/v1/channels/topic:x/presence",
            token("alice", 60),
            StatusCode::FORBIDDEN,
        ),
        (
            "/v1/channels/topic:x/presence",
            SERVICE_KEY.to_owned(),
            StatusCode::OK,
        ),
        (
            "/v1/channels/topic/presence",
            SERVICE_KEY.to_owned(),
            StatusCode::BAD_REQUEST,
        ),
    ];
    for (path, bearer, status) in cases {
        let answer = api.get(path, &bearer).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_channels_are_asked_about_than_that() {
    let live = Live::new();
    let api = live.edge().await;
    let mut refused = 0;
    for number in 0..300 {
        let path = format!("/v1/channels/room:{number}/presence");
        let answer = api.get(&path, SERVICE_KEY).await;
        refused += usize::from(answer.status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(refused, 300 - 256);
}
