//! What reaches live connections from outside: membership changes, signals
//! of other users, and receipts of the user's other devices.

use std::sync::Arc;

use bytes::Bytes;
use delivery::members::{MemberEvent, Members};
use delivery::signal::{Control, Controls, Incoming, Signal};
use protocol::frame::{Receipt, ServerBody};
use protocol::{Encoding, ServerFrame, UserId, decode_server, encode_server};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Edge;
use crate::registry::Command;
use crate::revocations::{LIFT_CONTROL, REVOKE_CONTROL};

/// Ends subscriptions whose membership ended, on whichever edge it was ended.
/// Runs for ever.
pub async fn watch_members(edge: Edge, members: Arc<dyn Members>) {
    let mut watch = members.watch();
    loop {
        match watch.next().await {
            // A subscription is asked for by the client; nothing to do.
            MemberEvent::Added { .. } => {}
            MemberEvent::Removed { room, user } => {
                for connection in edge.registry().of(&user) {
                    connection.send(Command::Removed(room.clone()));
                }
            }
            MemberEvent::Resync => {
                for connection in edge.registry().all() {
                    connection.send(Command::Recheck);
                }
            }
        }
    }
}

/// Hands signals to the subscribers of their channels. Ends when the
/// backplane is closed.
pub async fn pass_signals(edge: Edge, mut signals: Box<dyn Incoming<Signal>>) {
    while let Some(signal) = signals.next().await {
        edge.hub().signal(signal);
    }
}

/// The control message that carries a receipt.
const RECEIPT_CONTROL: &str = "receipt";

/// A receipt on its way to the other edges.
#[derive(Debug, Serialize, Deserialize)]
struct RemoteReceipt<'a> {
    /// The edge that has told its own connections already.
    edge: Box<str>,
    user: UserId,
    /// The frame that the user's connections get.
    #[serde(borrow)]
    frame: &'a RawValue,
}

/// Tells the other edges. Devices that miss it see the position when they
/// subscribe again.
pub(crate) async fn send_receipt(
    edge: &Edge,
    controls: &Arc<dyn Controls>,
    user: &UserId,
    receipt: &Receipt,
) {
    let frame = ServerFrame::new(ServerBody::Receipt(receipt.clone()));
    let json = encode_server(Encoding::Json, &frame);
    let body = serde_json::from_slice(&json)
        .map(|frame| RemoteReceipt {
            edge: edge.config().name.as_str().into(),
            user: user.clone(),
            frame,
        })
        .and_then(|remote| serde_json::to_vec(&remote));
    match body {
        Ok(body) => {
            let control = Control {
                name: RECEIPT_CONTROL.into(),
                body: Bytes::from(body),
            };
            if let Err(error) = controls.send(control).await {
                tracing::debug!(%error, "receipt.not_passed_on");
            }
        }
        Err(error) => tracing::error!(%error, "receipt.not_encoded"),
    }
}

/// Acts on what other edges tell. Ends when the backplane is closed.
pub async fn obey_controls(edge: Edge, mut controls: Box<dyn Incoming<Control>>) {
    while let Some(control) = controls.next().await {
        match &*control.name {
            RECEIPT_CONTROL => on_receipt(&edge, &control.body),
            name @ (REVOKE_CONTROL | LIFT_CONTROL) => {
                crate::revocations::on_control(&edge, name, &control.body);
            }
            // Of a newer edge, or for somebody else.
            _ => {}
        }
    }
}

fn on_receipt(edge: &Edge, body: &[u8]) {
    let Ok(remote) = serde_json::from_slice::<RemoteReceipt<'_>>(body) else {
        tracing::warn!("control.receipt_not_understood");
        return;
    };
    if *remote.edge == *edge.config().name {
        return;
    }
    let frame = decode_server(Encoding::Json, remote.frame.get().as_bytes());
    if let Ok(ServerFrame {
        body: ServerBody::Receipt(receipt),
        ..
    }) = frame
    {
        edge.tell_devices_here(&remote.user, None, &receipt);
    }
}
