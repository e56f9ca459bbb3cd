//! Edges among themselves, with the users of `deploy/nats-users.conf`.

use std::sync::Arc;

use backplane::{Backplane, FleetBus};
use bytes::Bytes;
use delivery::fleet::{Fleet, Office, Question, Refusal, Scope, To};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::permissions::{answered, client, config_of, server};
use crate::support::PATIENCE;

/// Answers with its name; refuses `drain`.
struct Named(&'static str);

impl Office for Named {
    fn operations(&self) -> Vec<(&'static str, &'static str)> {
        vec![("edges", "who is there"), ("drain", "refused here")]
    }

    fn answer(
        &self,
        scope: Scope,
        operation: &str,
        _: Bytes,
    ) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        let answer = match operation {
            "edges" => Ok(json!({ "edge": self.0, "scope": format!("{scope:?}") })),
            _ => Err(Refusal {
                status: 409,
                message: "not\r\nnow".into(),
            }),
        };
        Box::pin(async move { answer.map(|answer| answer.to_string().into()) })
    }

    fn numbers(&self) -> Bytes {
        Bytes::from_static(b"{\"connections\":3}")
    }

    fn takes_connections(&self) -> bool {
        self.0 != "b"
    }
}

/// An edge with the rights of one of the users.
async fn edge(nats: &devstack::NatsServer, user: &str, name: &'static str) -> FleetBus {
    let mut config = config_of(nats, user);
    config.edge = name.into();
    let fleet = Backplane::connect(config).await.unwrap().fleet();
    let serving = fleet.clone();
    tokio::spawn(async move { serving.serve(Arc::new(Named(name))).await });
    fleet
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "{what}"
    );
}

fn names(fleet: &FleetBus) -> Vec<String> {
    let peers = fleet.peers().into_iter();
    peers.map(|peer| peer.name.into()).collect()
}

#[tokio::test]
async fn edges_know_and_ask_each_other_with_the_least_rights() {
    let nats = server().await;
    // Its user creates the stream that connecting looks for.
    let archiving = config_of(&nats, "archiver");
    let archiving = Backplane::connect(archiving).await.unwrap();
    archiving.provision().await.unwrap();
    let a = edge(&nats, "edge", "a").await;
    let b = edge(&nats, "archiver", "b").await;
    until("they know each other", || {
        names(&a) == ["b"] && names(&b) == ["a"]
    })
    .await;
    assert!(!a.peers()[0].takes_connections, "as b says of itself");
    assert!(b.peers()[0].takes_connections);

    let ask = |operation, to| Question {
        operation,
        to,
        body: Bytes::new(),
    };
    let answers = a.ask(ask("edges", To::Others)).await;
    let [(name, Ok(answer))] = &answers.given[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(&**name, "b");
    let answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!(answer, json!({ "edge": "b", "scope": "Edge" }));
    assert_eq!(answers.missing, []);
    let refused = b.ask(ask("drain", To::One("a".into()))).await;
    assert_eq!(refused.given, [("a".into(), Err("not  now".to_owned()))]);
    let nobody = a.ask(ask("edges", To::One("c".into()))).await;
    assert_eq!(nobody.missing, ["c".into()]);

    // One that reads everything may ask, and not act.
    let viewer = client(&nats, "viewer").await;
    let fleet = answered(&viewer, "rejoin.admin.edges", Value::Null).await;
    assert_eq!(fleet.unwrap()["scope"], "Fleet");
    for subject in [
        "rejoin.admin.drain",
        "rejoin.admin.edge.a.edges",
        "rejoin.admin.every.edges",
    ] {
        assert_eq!(
            answered(&viewer, subject, Value::Null).await,
            None,
            "{subject}"
        );
    }
    let service = client(&nats, "service").await;
    assert_eq!(
        answered(&service, "rejoin.admin.edges", Value::Null).await,
        None
    );

    b.leave().await;
    until("b is gone", || names(&a).is_empty()).await;
}
