//! An edge in numbers.

use std::collections::BTreeMap;

use delivery::stats::Source;
use serde::{Deserialize, Serialize};

use crate::Edge;
use crate::auth::unix_now_ms;
use crate::http::health;
use crate::registry::Transport;

/// A client that takes nothing for longer than this is slow, in
/// milliseconds: a busy network has caught up by then.
pub(super) const SLOW_AFTER_MS: u64 = 1_000;

/// One edge at one moment. What only grows does so from the start of its
/// process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name.
    pub edge: Box<str>,
    /// Its program's version.
    pub version: Box<str>,
    /// When this was measured, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// How long the process has run, in milliseconds.
    pub uptime_ms: u64,
    /// Whether `/readyz` says so.
    pub ready: bool,
    /// Why not, by part.
    pub reasons: BTreeMap<Box<str>, String>,
    /// Whether it sends its connections away.
    pub draining: bool,
    /// Clients connected now, by transport.
    pub connections: BTreeMap<Box<str>, usize>,
    /// Users with at least one connection.
    pub users: usize,
    /// Subscriptions of all connections.
    pub readers: usize,
    /// Connections whose clients have taken nothing for a second.
    pub slow: usize,
    /// Clients let in.
    pub connects: u64,
    /// Connects that the limits let in, whatever became of them.
    pub admitted: u64,
    /// Clients told to come back later.
    pub refused: u64,
    /// Connects that it takes per second; `None` for no limit.
    pub connect_rate_limit: Option<u32>,
    /// Connections ended, by the reason of the close code.
    pub closes: BTreeMap<Box<str>, u64>,
    /// Messages published through it and acknowledged.
    pub published: u64,
    /// Messages handed to connections.
    pub deliveries: u64,
    /// Subscriptions that became live, by where what they had missed came
    /// from.
    pub catch_ups: BTreeMap<Box<str>, u64>,
    /// Subscriptions whose continuity could not be proved, by reason.
    pub resets: BTreeMap<Box<str>, u64>,
    /// Its windows, by shard.
    pub windows: Vec<WindowReport>,
    /// Shards that this edge archives now.
    pub archives: Vec<ArchiveReport>,
}

/// One window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// Of which shard.
    pub shard: u16,
    /// Whether it has caught up with the stream since the start.
    pub filled: bool,
    /// Everything after this sequence is in memory.
    pub floor: u64,
    /// Epoch and newest sequence.
    pub head: protocol::Cursor,
    /// Messages held.
    pub messages: usize,
    /// Bytes they are charged at.
    pub bytes: usize,
    /// When the oldest held message was stored, in milliseconds since the
    /// Unix epoch.
    pub oldest_ms: Option<i64>,
}

/// How far the archive of one shard is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// Of which shard.
    pub shard: u16,
    /// Everything up to this sequence is archived.
    pub watermark: u64,
    /// Messages that are not archived yet.
    pub lag_messages: u64,
    /// For how long not everything has been archived, in milliseconds.
    pub lag_ms: u64,
}

impl Report {
    /// This edge, now.
    pub fn of(edge: &Edge) -> Self {
        let (counters, delivered) = (edge.counters(), edge.hub().counters());
        let reasons: BTreeMap<Box<str>, String> = health::reasons(edge)
            .into_iter()
            .map(|(part, reason)| (part.into(), reason))
            .collect();
        let stats = edge.hub().windows().iter();
        let windows: Vec<_> = stats
            .map(|window| (window.shard(), window.is_filled(), window.stats()))
            .collect();
        Self {
            edge: edge.config().name.as_str().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            time_ms: unix_now_ms(),
            uptime_ms: u64::try_from(edge.uptime().as_millis()).unwrap_or(u64::MAX),
            ready: reasons.is_empty(),
            reasons,
            draining: !edge.drain().takes_connections(),
            connections: Transport::ALL
                .map(|it| (it.as_str().into(), edge.registry().connections(it)))
                .into(),
            users: edge.registry().users(),
            readers: windows.iter().map(|(_, _, stats)| stats.readers).sum(),
            slow: edge.registry().slow(SLOW_AFTER_MS).len(),
            connects: counters.connects.get() + counters.sse_connects.get(),
            admitted: edge.admission().admitted(),
            refused: edge.admission().refused(),
            connect_rate_limit: edge.admission().connect_rate(),
            closes: counters
                .closes()
                .filter(|(_, count)| *count > 0)
                .map(|(code, count)| (code.map_or("peer", |code| code.as_str()).into(), count))
                .collect(),
            published: edge.published(),
            deliveries: delivered.deliveries.get(),
            catch_ups: Source::ALL
                .map(|source| {
                    let count = delivered.catch_ups[source as usize].messages.state().count;
                    (source.as_str().into(), count)
                })
                .into(),
            resets: [
                ("expired", &delivered.resets_expired),
                ("epoch", &delivered.resets_epoch),
                ("ahead", &delivered.resets_ahead),
                ("too_far_behind", &delivered.resets_too_far_behind),
            ]
            .map(|(reason, count)| (reason.into(), count.get()))
            .into(),
            windows: windows
                .into_iter()
                .map(|(shard, filled, stats)| WindowReport {
                    shard,
                    filled,
                    floor: stats.floor,
                    head: stats.head,
                    messages: stats.messages,
                    bytes: stats.bytes,
                    oldest_ms: stats.oldest_time_ms,
                })
                .collect(),
            archives: archives(edge),
        }
    }
}

fn archives(edge: &Edge) -> Vec<ArchiveReport> {
    let archivers = (0..).zip(edge.archivers());
    archivers
        .filter(|(_, stats)| stats.is_active())
        .map(|(shard, stats)| ArchiveReport {
            shard,
            watermark: stats.watermark(),
            lag_messages: stats.lag_messages(),
            lag_ms: stats.lag_ms(),
        })
        .collect()
}
