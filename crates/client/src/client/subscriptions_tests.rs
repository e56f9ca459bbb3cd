use protocol::Epoch;
use protocol::frame::{Message, ResetReason};
use std::time::Duration;

use super::*;

const EPOCH: Epoch = Epoch(7);

fn room() -> Channel {
    Channel::parse("room:1").unwrap()
}

fn at(seq: u64) -> Cursor {
    Cursor::new(EPOCH, seq)
}

fn subscribe(from: StartFrom) -> Subscribe {
    Subscribe {
        channel: room(),
        from,
        max_catchup: 0,
    }
}

fn subscribed(cursor: Cursor) -> Subscribed {
    Subscribed {
        channel: room(),
        shard: 3,
        cursor,
        head: cursor,
        replay: false,
        unread: 0,
    }
}

fn batch(epoch: Epoch, seq_and_prev: &[(u64, u64)]) -> Messages {
    let message = |&(seq, prev): &(u64, u64)| Message {
        seq,
        prev,
        id: None,
        kind: "".into(),
        sender: None,
        time_ms: 1,
        data: "".into(),
        traceparent: None,
    };
    Messages {
        channel: room(),
        epoch,
        messages: seq_and_prev.iter().map(message).collect(),
    }
}

/// Subscribed at the position.
fn listening(cursor: Cursor) -> Subscriptions {
    let mut subscriptions = Subscriptions::default();
    assert!(subscriptions.add(subscribe(StartFrom::Tail)));
    assert_eq!(subscriptions.ask(Instant::now(), 9).len(), 1);
    subscriptions.subscribed(&subscribed(cursor));
    subscriptions
}

/// What a reconnect would ask for.
fn resumes_from(subscriptions: &mut Subscriptions) -> StartFrom {
    subscriptions.disconnected();
    let asked = subscriptions.ask(Instant::now(), 9);
    assert_eq!(asked.len(), 1);
    asked[0].from
}

fn seqs(batch: &Messages) -> Vec<u64> {
    batch.messages.iter().map(|message| message.seq).collect()
}

#[test]
fn it_resumes_from_its_last_message() {
    let mut subscriptions = listening(at(5));
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(at(5)));
    subscriptions.subscribed(&subscribed(at(5)));
    let mut messages = batch(EPOCH, &[(8, 5), (12, 8)]);
    assert_eq!(subscriptions.messages(&mut messages), Ok(()));
    assert_eq!(seqs(&messages), [8, 12]);
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(at(12)));
}

#[test]
fn before_the_first_position_it_asks_for_what_the_application_wants() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.add(subscribe(StartFrom::Last(3)));
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Last(3));
}

#[test]
fn repeats_are_dropped() {
    let mut subscriptions = listening(at(5));
    let mut messages = batch(EPOCH, &[(4, 3), (5, 4), (8, 5), (8, 5)]);
    assert_eq!(subscriptions.messages(&mut messages), Ok(()));
    assert_eq!(seqs(&messages), [8]);
}

#[test]
fn a_gap_stops_the_batch_and_keeps_the_position() {
    let mut subscriptions = listening(at(5));
    let mut messages = batch(EPOCH, &[(8, 5), (12, 9), (13, 12)]);
    let gap = Gap {
        position: at(8),
        prev: 9,
    };
    assert_eq!(subscriptions.messages(&mut messages), Err(gap));
    assert_eq!(seqs(&messages), [8]);
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(at(8)));
}

#[test]
fn holes_and_unknown_predecessors_are_no_gaps() {
    let mut subscriptions = listening(at(5));
    let mut messages = batch(EPOCH, &[(100, 0), (200, 100), (300, 0)]);
    assert_eq!(subscriptions.messages(&mut messages), Ok(()));
    assert_eq!(seqs(&messages), [100, 200, 300]);
}

#[test]
fn sequences_of_different_epochs_are_not_compared() {
    let mut subscriptions = listening(at(500));
    let mut messages = batch(Epoch(8), &[(1, 0), (2, 1)]);
    assert_eq!(subscriptions.messages(&mut messages), Ok(()));
    assert_eq!(seqs(&messages), [1, 2]);
    let cursor = Cursor::new(Epoch(8), 2);
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(cursor));
}

#[test]
fn pings_move_live_subscriptions_of_their_shard_forward_only() {
    let mut subscriptions = listening(at(5));
    let ping = |shard, seq| BTreeMap::from([(shard, at(seq))]);
    assert_eq!(subscriptions.ping(&ping(3, 9)), [], "not live yet");
    subscriptions.live(&room(), at(6));
    assert_eq!(subscriptions.ping(&ping(2, 9)), [], "another shard");
    assert_eq!(subscriptions.ping(&ping(3, 9)), [(room(), at(9))]);
    assert_eq!(subscriptions.ping(&ping(3, 8)), [], "backwards");
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(at(9)));
}

#[test]
fn a_reset_goes_on_at_the_head() {
    let mut subscriptions = listening(at(5));
    subscriptions.reset(&Reset {
        channel: room(),
        reason: ResetReason::Expired,
        head: at(90),
        earliest: None,
    });
    assert!(!subscriptions.all_live());
    assert_eq!(resumes_from(&mut subscriptions), StartFrom::Cursor(at(90)));
}

#[test]
fn a_postponed_subscription_is_asked_for_when_it_is_due() {
    let mut subscriptions = Subscriptions::default();
    subscriptions.add(subscribe(StartFrom::Tail));
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    assert_eq!(subscriptions.ask(now, 9).len(), 1);
    assert_eq!(subscriptions.ask(now, 9).len(), 0, "asked already");
    subscriptions.postpone(&room(), later);
    assert_eq!(subscriptions.ask(now, 9).len(), 0);
    assert_eq!(subscriptions.next_due(), Some(later));
    assert_eq!(subscriptions.ask(later, 9).len(), 1);
}

#[test]
fn what_was_left_is_not_delivered() {
    let mut subscriptions = listening(at(5));
    assert!(subscriptions.remove(&room()), "the edge has to be told");
    let mut messages = batch(EPOCH, &[(8, 5)]);
    assert_eq!(subscriptions.messages(&mut messages), Ok(()));
    assert!(messages.messages.is_empty());
}
