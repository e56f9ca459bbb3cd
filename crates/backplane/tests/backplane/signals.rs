//! What is never stored.

use bytes::Bytes;
use delivery::signal::{Control, Controls, Signal, Signals};
use protocol::UserId;

use crate::support::{PATIENCE, World, channel};

#[tokio::test]
async fn signals_and_control_messages_reach_everybody() {
    let world = World::new(1).await;
    let signals = world.backplane.signals();
    let mut incoming = signals.subscribe().await.unwrap();
    let signal = Signal {
        channel: channel("room:1"),
        kind: "typing".into(),
        sender: Some(UserId::parse("42").unwrap()),
        data: Bytes::from_static(b"{}"),
    };
    // What no channel has is skipped.
    let client = world.foreign().await;
    client
        .publish("rejoin.sig.room.sp%ce", "x".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    signals.send(signal.clone()).await.unwrap();
    let got = tokio::time::timeout(PATIENCE, incoming.next())
        .await
        .unwrap();
    assert_eq!(got, Some(signal.clone()));

    let controls = world.backplane.controls();
    let mut incoming = controls.subscribe().await.unwrap();
    let control = Control {
        name: "members.changed".into(),
        body: Bytes::from_static(b"{\"room\":\"1\"}"),
    };
    controls.send(control.clone()).await.unwrap();
    let got = tokio::time::timeout(PATIENCE, incoming.next())
        .await
        .unwrap();
    assert_eq!(got, Some(control));

    for name in ["", "a..b", "a.*", "a b", "a\r\nb", ">"] {
        let hostile = Control {
            name: name.into(),
            body: Bytes::new(),
        };
        assert!(controls.send(hostile).await.is_err(), "{name:?}");
    }
    let mut hostile = signal;
    hostile.kind = "a\r\nb".into();
    assert!(signals.send(hostile).await.is_err());
}
