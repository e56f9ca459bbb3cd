//! Delivered and read positions, and what is unread.

use delivery::archive::SourceMessage;
use delivery::members::{Members, StoreFailure};
use delivery::receipts::{Ack, Acked, Receipts, UNREAD_COUNT_MAX};
use protocol::{Cursor, Device, Epoch};
use store::{MemberStore, ReceiptStore, Store};

use crate::world::{EPOCH, START_MS, Writer, channel, message, store, user};

const NEXT_EPOCH: Epoch = Epoch(2);

fn device(name: &str) -> Device {
    Device::parse(name).unwrap()
}

fn at(seq: u64) -> Option<Cursor> {
    Some(Cursor::new(EPOCH, seq))
}

fn ack(who: &str, on: &str, delivered: Option<Cursor>, read: Option<Cursor>) -> Ack {
    Ack {
        user: user(who),
        device: device(on),
        channel: channel("user:1"),
        delivered,
        read,
    }
}

/// Ten messages of a service in `user:1`, sequences 1 to 10.
async fn inbox(store: &Store) -> Writer {
    let mut writer = Writer::new(store, EPOCH).await;
    let messages: Vec<SourceMessage> = (1..=10)
        .map(|seq| {
            let mut message = message(EPOCH, seq, "user:1", START_MS + seq as i64);
            message.message.sender = None;
            message
        })
        .collect();
    writer.append(&messages).await;
    writer
}

async fn recorded(receipts: &ReceiptStore, ack: Ack) -> Acked {
    receipts.ack(ack).await.unwrap()
}

#[tokio::test]
async fn positions_only_move_forward() {
    let store = store().await;
    let _writer = inbox(&store).await;
    let receipts = ReceiptStore::new(&store);
    let first = recorded(&receipts, ack("1", "phone", at(5), at(3))).await;
    assert_eq!(
        (first.delivered, first.read, first.read_moved),
        (at(5), at(3), true)
    );
    assert_eq!(first.unread.unwrap().unread, 7);
    let back = recorded(&receipts, ack("1", "phone", at(4), at(2))).await;
    assert_eq!(
        (back.delivered, back.read, back.read_moved),
        (at(5), at(3), false)
    );
    assert_eq!(back.unread, None);
    let delivered = recorded(&receipts, ack("1", "phone", at(9), None)).await;
    assert_eq!((delivered.delivered, delivered.read), (at(9), at(3)));
}

#[tokio::test]
async fn what_one_device_reads_all_have_read() {
    let store = store().await;
    let _writer = inbox(&store).await;
    let receipts = ReceiptStore::new(&store);
    recorded(&receipts, ack("1", "phone", at(10), at(4))).await;
    let laptop = recorded(&receipts, ack("1", "laptop", at(6), at(6))).await;
    assert_eq!(
        (laptop.delivered, laptop.read, laptop.read_moved),
        (at(6), at(6), true)
    );
    let phone = recorded(&receipts, ack("1", "phone", None, at(5))).await;
    assert_eq!(
        (phone.delivered, phone.read, phone.read_moved),
        (at(10), at(6), false)
    );
    let unread = receipts.unread(user("1"), channel("user:1")).await.unwrap();
    assert_eq!(
        (unread.unread, unread.read, unread.counted_through),
        (4, at(6), at(10))
    );

    let position = |name| receipts.position(user("1"), device(name), channel("user:1"));
    assert_eq!(position("phone").await.unwrap(), at(10));
    assert_eq!(position("laptop").await.unwrap(), at(6));
    assert_eq!(position("tablet").await.unwrap(), None);
}

#[tokio::test]
async fn positions_grow_over_epochs() {
    let store = store().await;
    let mut writer = inbox(&store).await;
    let receipts = ReceiptStore::new(&store);
    recorded(&receipts, ack("1", "phone", at(10), at(8))).await;
    writer.begin(NEXT_EPOCH, 0, true).await;
    let messages: Vec<_> = (1..=3)
        .map(|seq| message(NEXT_EPOCH, seq, "user:1", START_MS + 100))
        .collect();
    writer.append(&messages).await;
    let unread = receipts.unread(user("1"), channel("user:1")).await.unwrap();
    assert_eq!(unread.unread, 5, "two of the old epoch, three of the new");
    let new = Some(Cursor::new(NEXT_EPOCH, 2));
    let moved = recorded(&receipts, ack("1", "phone", new, new)).await;
    assert_eq!(
        (moved.delivered, moved.read, moved.read_moved),
        (new, new, true)
    );
    assert_eq!(moved.unread.unwrap().unread, 1);
    let back = recorded(&receipts, ack("1", "phone", at(10), at(10))).await;
    assert_eq!((back.delivered, back.read), (new, new));
}

#[tokio::test]
async fn what_cannot_be_a_position_is_not_recorded() {
    let store = store().await;
    let _writer = inbox(&store).await;
    let receipts = ReceiptStore::new(&store);
    let unknown = Some(Cursor::new(Epoch(404), 1));
    let error = receipts
        .ack(ack("1", "phone", unknown, None))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreFailure::Unavailable { .. }), "{error}");
    let position = receipts.position(user("1"), device("phone"), channel("user:1"));
    assert_eq!(position.await.unwrap(), None);
}

/// Many at once, for the same rows too: every one gets an answer, and the
/// furthest position stays.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_acknowledgements_share_transactions() {
    let store = store().await;
    let _writer = inbox(&store).await;
    let receipts = ReceiptStore::new(&store);
    let tasks: Vec<_> = (0..400u64)
        .map(|n| {
            let receipts = receipts.clone();
            let who = format!("{}", n % 20);
            let position = at(n % 11);
            tokio::spawn(async move { receipts.ack(ack(&who, "phone", position, position)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for who in 0..20 {
        let unread = receipts
            .unread(user(&who.to_string()), channel("user:1"))
            .await
            .unwrap();
        assert_eq!((unread.unread, unread.read), (0, at(10)), "user {who}");
    }
}

#[tokio::test]
async fn the_inbox_lists_own_channel_rooms_and_what_was_acknowledged() {
    let store = store().await;
    let mut writer = inbox(&store).await;
    let members = MemberStore::new(&store);
    members
        .add(channel("room:new"), vec![user("1")])
        .await
        .unwrap();
    let far = START_MS + 1_000 * 365 * 86_400_000;
    let mut own = message(EPOCH, 12, "room:new", far);
    own.message.sender = Some(user("1"));
    writer
        .append(&[
            // Before the user joined, of the user, and of somebody else.
            message(EPOCH, 11, "room:new", START_MS),
            own,
            message(EPOCH, 13, "room:new", far),
            message(EPOCH, 14, "topic:news", far),
        ])
        .await;
    let receipts = ReceiptStore::new(&store);
    let topic = Ack {
        channel: channel("topic:news"),
        ..ack("1", "phone", at(14), at(14))
    };
    recorded(&receipts, topic).await;
    let inbox = receipts.inbox(user("1")).await.unwrap();
    let listed: Vec<(&str, u32)> = inbox
        .iter()
        .map(|unread| (unread.channel.as_str(), unread.unread))
        .collect();
    assert_eq!(listed, [("room:new", 1), ("topic:news", 0), ("user:1", 10)]);
}

#[tokio::test]
async fn counting_ends_at_its_limit() {
    let store = store().await;
    let mut writer = Writer::new(&store, EPOCH).await;
    let messages: Vec<_> = (1..=u64::from(UNREAD_COUNT_MAX) + 50)
        .map(|seq| message(EPOCH, seq, "user:1", START_MS))
        .collect();
    writer.append(&messages).await;
    let receipts = ReceiptStore::new(&store);
    let unread = receipts.unread(user("1"), channel("user:1")).await.unwrap();
    assert_eq!(unread.unread, UNREAD_COUNT_MAX);
}
