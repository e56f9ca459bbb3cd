//! Messages that are not acknowledged yet: in order, one on its way per channel, under one id for ever. No I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::frame::{ErrorBody, Publish, Published};
use protocol::{Channel, MessageId};
use tokio::time::Instant;

/// Without an answer for this long on an open connection a message is sent again, under its id: the edge answers every
/// publish, its own limit is some seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Whatever the edge says, wait at least this long: an edge in trouble gets no storm.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(100);

/// The queue of each channel. `T` is who waits for the answer.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    channels: BTreeMap<Channel, Queue<T>>,
}

#[derive(Debug)]
struct Queue<T> {
    entries: VecDeque<(Publish, T)>,
    head: Head,
}

/// How the first of a queue stands; the others wait for it.
#[derive(Debug, Clone, Copy)]
enum Head {
    /// To be sent, not before the instant.
    Due(Instant),
    /// Sent; to be sent again at the instant.
    Sent(Instant),
}

impl<T> Outbox<T> {
    pub(super) fn new() -> Self {
        Self {
            channels: BTreeMap::new(),
        }
    }

    /// Puts a message behind the others of its channel.
    pub(super) fn push(&mut self, publish: Publish, waiter: T, now: Instant) {
        let queue = self
            .channels
            .entry(publish.channel.clone())
            .or_insert_with(|| Queue {
                entries: VecDeque::new(),
                head: Head::Due(now),
            });
        queue.entries.push_back((publish, waiter));
    }

    /// What to send now; it counts as sent.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Publish> {
        let mut due = Vec::new();
        for queue in self.channels.values_mut() {
            let (Head::Due(at) | Head::Sent(at)) = queue.head;
            if at > now {
                continue;
            }
            if let Some((publish, _)) = queue.entries.front() {
                due.push(publish.clone());
                queue.head = Head::Sent(now + ANSWER_WITHIN);
            }
        }
        due
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |queue: &Queue<T>| match queue.head {
            Head::Due(at) | Head::Sent(at) => at,
        };
        self.channels.values().map(due).min()
    }

    /// It is stored: whoever waited for it, if it was not answered before.
    pub(super) fn published(&mut self, published: &Published, now: Instant) -> Option<T> {
        self.finish(&published.channel, &published.id, now)
    }

    /// It was refused. Whoever waited for it, unless it is to be tried again.
    pub(super) fn refused(
        &mut self,
        channel: &Channel,
        id: &MessageId,
        error: &ErrorBody,
        now: Instant,
    ) -> Option<T> {
        if !error.code.is_retryable() {
            return self.finish(channel, id, now);
        }
        let queue = self.channels.get_mut(channel)?;
        let (first, _) = queue.entries.front()?;
        if first.id == *id {
            let after = match error.retry_after_ms {
                0 => Duration::from_secs(1),
                ms => Duration::from_millis(ms),
            };
            let after = after.max(RETRY_AFTER_MIN);
            // Up to a quarter more, so that the clients of an edge do not come in step.
            let jitter = after.mul_f64(0.25 * rand::random::<f64>());
            queue.head = Head::Due(now + after + jitter);
        }
        None
    }

    /// The connection is gone: what was on its way is sent again, in order.
    pub(super) fn disconnected(&mut self, now: Instant) {
        for queue in self.channels.values_mut() {
            queue.head = Head::Due(now);
        }
    }

    fn finish(&mut self, channel: &Channel, id: &MessageId, now: Instant) -> Option<T> {
        let queue = self.channels.get_mut(channel)?;
        let (first, _) = queue.entries.front()?;
        if first.id != *id {
            // A late answer to an earlier try.
            return None;
        }
        let (_, waiter) = queue.entries.pop_front()?;
        queue.head = Head::Due(now);
        if queue.entries.is_empty() {
            self.channels.remove(channel);
        }
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::{Cursor, Epoch, ErrorCode};

    fn room(id: &str) -> Channel {
        Channel::from_parts("room", id).unwrap()
    }

    fn message(channel: &Channel, id: &str) -> Publish {
        Publish {
            id: MessageId::parse(id).unwrap(),
            channel: channel.clone(),
            kind: "".into(),
            data: "".into(),
            traceparent: None,
        }
    }

    fn published(publish: &Publish) -> Published {
        Published {
            id: publish.id.clone(),
            channel: publish.channel.clone(),
            cursor: Cursor::new(Epoch(1), 1),
            duplicate: false,
        }
    }

    fn error(code: ErrorCode, retry_after_ms: u64) -> ErrorBody {
        ErrorBody {
            code,
            message: "".into(),
            retry_after_ms,
            channel: None,
        }
    }

    fn ids(due: &[Publish]) -> Vec<&str> {
        due.iter().map(|publish| publish.id.as_str()).collect()
    }

    #[test]
    fn one_at_a_time_per_channel_in_order() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        for id in ["a1", "a2", "a3"] {
            outbox.push(message(&room("a"), id), id, now);
        }
        outbox.push(message(&room("b"), "b1"), "b1", now);
        let due = outbox.due(now);
        assert_eq!(ids(&due), ["a1", "b1"]);
        assert_eq!(ids(&outbox.due(now)), [""; 0], "both are on their way");
        assert_eq!(outbox.published(&published(&due[0]), now), Some("a1"));
        assert_eq!(outbox.published(&published(&due[0]), now), None, "twice");
        assert_eq!(ids(&outbox.due(now)), ["a2"]);
        assert_eq!(outbox.published(&published(&due[1]), now), Some("b1"));
        assert_eq!(ids(&outbox.due(now)), [""; 0], "a2 is on its way");
    }

    #[test]
    fn after_a_disconnect_the_same_id_goes_first() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        outbox.push(message(&room("a"), "1"), (), now);
        outbox.push(message(&room("a"), "2"), (), now);
        assert_eq!(ids(&outbox.due(now)), ["1"]);
        outbox.disconnected(now);
        assert_eq!(ids(&outbox.due(now)), ["1"]);
    }

    #[test]
    fn a_retryable_error_delays_the_channel_and_keeps_the_order() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        outbox.push(message(&room("a"), "1"), (), now);
        outbox.push(message(&room("a"), "2"), (), now);
        let due = outbox.due(now);
        let busy = error(ErrorCode::Unavailable, 2_000);
        assert_eq!(outbox.refused(&room("a"), &due[0].id, &busy, now), None);
        assert_eq!(
            ids(&outbox.due(now + Duration::from_millis(1_999))),
            [""; 0]
        );
        // 2 s and a quarter at most.
        assert_eq!(ids(&outbox.due(now + Duration::from_millis(2_501))), ["1"]);
    }

    #[test]
    fn an_error_for_good_fails_one_message_and_goes_on() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        outbox.push(message(&room("a"), "1"), "first", now);
        outbox.push(message(&room("a"), "2"), "second", now);
        let due = outbox.due(now);
        let no = error(ErrorCode::Forbidden, 0);
        assert_eq!(
            outbox.refused(&room("a"), &due[0].id, &no, now),
            Some("first")
        );
        assert_eq!(ids(&outbox.due(now)), ["2"]);
    }

    #[test]
    fn silence_sends_it_again() {
        let now = Instant::now();
        let mut outbox = Outbox::new();
        outbox.push(message(&room("a"), "1"), (), now);
        assert_eq!(ids(&outbox.due(now)), ["1"]);
        assert_eq!(outbox.next_due(), Some(now + ANSWER_WITHIN));
        assert_eq!(ids(&outbox.due(now + ANSWER_WITHIN)), ["1"]);
    }
}
