//! What a connection does because its time has come.

use std::future::Future;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::frame::{GoawayReason, ServerBody};
use protocol::{CloseCode, ServerFrame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Connection;
use crate::auth::unix_now_s;

/// How long before its end a token's expiry is announced, at the most.
const EXPIRY_NOTICE: Duration = Duration::from_secs(60);

/// Pings of all connections fall on the same moments, this far apart at the
/// most: those that are due together cost one wake-up of the process and not
/// one each, and so do their answers. Ten thousand connections have eighty
/// due at a time, which takes about a millisecond.
const PING_GRID: Duration = Duration::from_millis(200);

/// Where the grid begins.
static PING_ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Unanswered intervals after which a peer counts as gone.
const SILENT_INTERVALS: u32 = 2;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sets the timer to the next thing that is due. Ready when something
    /// was, with how the connection ends if it does.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Option<CloseCode>>> {
        let write_timeout = self.edge.config().limits.write_timeout();
        let times = &self.times;
        let due = match times.gone_by {
            Some(gone_by) => Some(gone_by),
            None => [
                times.connect_by,
                times.next_ping,
                times.lifetime,
                times.turn,
                times.leave_by,
                times.expires,
                times.expiry_notice,
                times.stalled.as_ref().map(|it| it.since() + write_timeout),
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        let Some(due) = due else { return Poll::Pending };
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.on_time(Instant::now(), write_timeout))
    }

    fn on_time(&mut self, now: Instant, write_timeout: Duration) -> Option<Option<CloseCode>> {
        let past = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if past(self.times.gone_by) {
            return Some(self.closing);
        }
        if past(
            self.times
                .stalled
                .as_ref()
                .map(|it| it.since() + write_timeout),
        ) {
            // A close frame would wait behind what the peer does not take.
            return Some(Some(CloseCode::SlowConsumer));
        }
        if past(self.times.connect_by) {
            self.close(CloseCode::ConnectTimeout);
        } else if past(self.times.expires) {
            self.close(CloseCode::TokenExpired);
        } else if past(self.times.lifetime) {
            if let Poll::Ready(code) = self.depart(GoawayReason::Lifetime) {
                return Some(code);
            }
        } else if past(self.times.next_ping) {
            self.ping(now);
        } else if past(self.times.expiry_notice) {
            self.times.expiry_notice = None;
            let left = self
                .times
                .expires
                .map_or(Duration::ZERO, |expires| expires - now);
            let expires_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            self.send_frames(vec![ServerFrame::new(ServerBody::TokenExpiring {
                expires_in_ms,
            })]);
        }
        None
    }

    /// Remembers when the token ends, unless it is known.
    pub(super) fn note_expiry(&mut self, expires_s: u64) {
        // A token may be valid for longer than a timer can be set.
        const A_YEAR: u64 = 365 * 24 * 3_600;
        if self.expires_s == expires_s {
            return;
        }
        self.expires_s = expires_s;
        let left = Duration::from_secs(expires_s.saturating_sub(unix_now_s()).min(A_YEAR));
        let expires = Instant::now() + left;
        self.times.expires = Some(expires);
        // A token that is short-lived is announced halfway.
        self.times.expiry_notice = Some(expires - EXPIRY_NOTICE.min(left / 2));
    }

    fn ping(&mut self, now: Instant) {
        let interval = self.edge.config().limits.ping_interval();
        if now - self.times.heard > interval * SILENT_INTERVALS {
            return self.close(CloseCode::HeartbeatTimeout);
        }
        self.times.next_ping = Some(on_grid(now + interval, interval));
        let Some(session) = self.session.as_mut() else {
            return;
        };
        let positions = session.feed.positions().into_iter().collect();
        self.send_frames(vec![ServerFrame::new(ServerBody::Ping { positions })]);
        self.socket.ping();
        // What a burst needed is given back; the next one asks for it again.
        self.socket.shrink();
    }
}

/// The moment of the grid before `due`: never later, as clients were told the
/// interval. A short interval has a finer grid.
pub(super) fn on_grid(due: Instant, interval: Duration) -> Instant {
    let grid = PING_GRID.min(interval / 16);
    let since = due.saturating_duration_since(*PING_ORIGIN);
    let past = since.as_nanos().checked_rem(grid.as_nanos());
    // Less than the grid, and so far below the limit.
    let past = u64::try_from(past.unwrap_or(0)).unwrap_or(0);
    due - Duration::from_nanos(past)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_that_are_due_at_about_the_same_time_are_due_at_the_same() {
        let interval = Duration::from_secs(25);
        let due = *PING_ORIGIN + Duration::from_millis(60_010);
        let same = on_grid(due, interval);
        assert_eq!(same, *PING_ORIGIN + Duration::from_secs(60));
        for later_ms in [0, 1, 100, 189] {
            let later = due + Duration::from_millis(later_ms);
            assert_eq!(on_grid(later, interval), same, "{later_ms}");
        }
        let next = on_grid(due + Duration::from_millis(190), interval);
        assert_eq!(next, same + PING_GRID);
    }

    #[test]
    fn short_intervals_stay_about_what_they_are() {
        let due = *PING_ORIGIN + Duration::from_millis(1_003);
        for interval_ms in [0, 1, 16, 50, 1_000] {
            let interval = Duration::from_millis(interval_ms);
            let on_grid = on_grid(due, interval);
            assert!(on_grid <= due && due - on_grid <= interval / 16);
        }
    }
}
