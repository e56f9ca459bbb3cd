//! What is known about one stream, and how sure that is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Client;
use parking_lot::Mutex as ShortMutex;
use protocol::{Cursor, Epoch};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::api::{self, ApiError, PeerBody, StreamInfo};
use crate::lives::{Life, Progress};

/// Metadata key of the value that makes an epoch.
pub(crate) const EPOCH_KEY: &str = "rejoin-epoch";

/// Metadata key of the number of shards of the deployment.
pub(crate) const SHARDS_KEY: &str = "rejoin-shards";

/// Metadata key of the time at which the archiver gave a restored stream a new
/// epoch, in milliseconds since the Unix epoch.
pub(crate) const BEGAN_KEY: &str = "rejoin-epoch-ms";

/// Until a new leader has applied what its group had agreed on: milliseconds,
/// or seconds on a busy machine that has just restarted.
const LEADER_SETTLES: Duration = Duration::from_secs(5);

/// Followers are heard of every second, and elect another leader after four
/// seconds of silence at the earliest.
const PEER_SILENT: Duration = Duration::from_secs(3);

/// A stream's state, as its leader gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamState {
    pub(crate) epoch: Epoch,
    /// The oldest stored sequence; `last + 1` when empty.
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// 0 when unlimited.
    pub(crate) max_bytes: u64,
    pub(crate) replicas: u64,
    /// When this life of the stream began, in milliseconds since the Unix
    /// epoch by the server's clock. It remembers no id from before.
    pub(crate) began_ms: i64,
    /// Whether the leader can be believed that the stream ends here. One that
    /// was just elected may not have applied all that was acknowledged before,
    /// and one that is cut off from the others does not hear of what is
    /// acknowledged now.
    pub(crate) settled: bool,
}

impl StreamState {
    pub(crate) fn read(info: &StreamInfo) -> Result<Self, ApiError> {
        let number = |key: &str| info.config.get(key).and_then(Value::as_i64).unwrap_or(0);
        let last = info.state.last_seq;
        Ok(Self {
            epoch: epoch(info)?,
            // A stream that never held anything says 0.
            first: match info.state.messages {
                0 => last + 1,
                _ => info.state.first_seq,
            },
            last,
            messages: info.state.messages,
            bytes: info.state.bytes,
            // Unlimited is written -1.
            max_bytes: u64::try_from(number("max_bytes")).unwrap_or(0),
            replicas: u64::try_from(number("num_replicas")).unwrap_or(1),
            began_ms: began_ms(info),
            settled: is_settled(info),
        })
    }

    /// The position just before everything that is stored.
    pub(crate) fn earliest(&self) -> Cursor {
        Cursor::new(self.epoch, self.first.saturating_sub(1))
    }

    pub(crate) fn head(&self) -> Cursor {
        Cursor::new(self.epoch, self.last)
    }
}

/// The epoch of a stream: FNV-1a 64 over its metadata value, a slash and its
/// creation time. The time alone survives a restore from a backup, the value
/// alone survives a recreation from a saved configuration.
fn epoch(info: &StreamInfo) -> Result<Epoch, ApiError> {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let malformed = |error: String| ApiError::Malformed(format!("creation time: {error}"));
    // Formatted anew, so that no server's way of writing it matters.
    let created = OffsetDateTime::parse(&info.created, &Rfc3339)
        .map_err(|error| malformed(error.to_string()))?
        .to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .map_err(|error| malformed(error.to_string()))?;
    let value = info.metadata(EPOCH_KEY).unwrap_or_default();
    let text = format!("{value}/{created}");
    let hash = text.bytes().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    Ok(Epoch(hash))
}

/// When the stream began its life: when it was created, or when the archiver
/// found that it had been restored.
fn began_ms(info: &StreamInfo) -> i64 {
    let created = OffsetDateTime::parse(&info.created, &Rfc3339);
    let created = created.map_or(0, |it| it.unix_timestamp_nanos() / 1_000_000);
    let restored = info
        .metadata(BEGAN_KEY)
        .and_then(|it| it.parse::<i64>().ok());
    let created = i64::try_from(created).unwrap_or(0);
    restored.map_or(created, |restored| restored.max(created))
}

/// Whether the leader has led for a while, and hears of a majority.
fn is_settled(info: &StreamInfo) -> bool {
    let Some(cluster) = &info.cluster else {
        return true;
    };
    let others = cluster.replicas.len();
    let heard = |peer: &&PeerBody| {
        let silent = Duration::from_nanos(u64::try_from(peer.active).unwrap_or(0));
        !peer.offline && silent < PEER_SILENT
    };
    // With itself they are a majority.
    let followed = cluster.replicas.iter().filter(heard).count() >= others.div_ceil(2);
    let time = |text: &Option<String>| OffsetDateTime::parse(text.as_deref()?, &Rfc3339).ok();
    let led = time(&info.ts).zip(time(&cluster.leader_since));
    // Alone it has nothing to catch up with, and older servers do not say.
    let long = others == 0 || led.is_none_or(|(now, since)| now - since >= LEADER_SETTLES);
    followed && long
}

/// A new random value for [`EPOCH_KEY`].
pub(crate) fn random_epoch_value() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The last answer of a coalesced question, and when it was asked.
struct Asked {
    at: Instant,
    answer: Result<StreamState, ApiError>,
}

/// One shard's shared knowledge.
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) stream: String,
    /// The newest state seen; `None` until the stream was seen.
    state: watch::Sender<Option<StreamState>>,
    /// The highest sequence known to be taken in the current epoch.
    highest: AtomicU64,
    /// What others were told of each life of the stream.
    told: ShortMutex<Progress>,
    /// How many things have happened after which the epoch may be another.
    suspicions: AtomicU64,
    /// How many of them had happened when it was last confirmed.
    cleared: AtomicU64,
    asked: Mutex<Option<Asked>>,
    /// Counts what puts the stream's consumers in doubt.
    disturbances: watch::Sender<u64>,
}

impl Shard {
    pub(crate) fn new(number: u16, stream: String) -> Self {
        Self {
            number,
            stream,
            state: watch::Sender::new(None),
            highest: AtomicU64::new(0),
            told: ShortMutex::default(),
            suspicions: AtomicU64::new(1),
            cleared: AtomicU64::new(0),
            asked: Mutex::new(None),
            disturbances: watch::Sender::new(0),
        }
    }

    /// The newest state seen, up to a refresh interval old.
    pub(crate) fn known(&self) -> Option<StreamState> {
        *self.state.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<StreamState>> {
        self.state.subscribe()
    }

    /// Tells every tail to replace its consumer.
    pub(crate) fn disturb(&self) {
        self.disturbances.send_modify(|count| *count += 1);
    }

    /// Changes with every [`Shard::disturb`] from now on.
    pub(crate) fn disturbances(&self) -> watch::Receiver<u64> {
        self.disturbances.subscribe()
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// A sequence has been seen to be taken.
    pub(crate) fn saw(&self, seq: u64) {
        self.highest.fetch_max(seq, Ordering::Relaxed);
    }

    /// Whether a client may be told of this position. Asked before anybody
    /// is: then it is counted as told.
    pub(crate) fn tell(&self, position: Cursor) -> bool {
        self.told.lock().tell(position.epoch, position.seq)
    }

    /// For a heartbeat, see [`Progress::report`].
    pub(crate) fn report(&self, leaving: bool) -> Vec<Life> {
        self.told.lock().report(self.number, leaving)
    }

    /// The stream may have become another one.
    pub(crate) fn suspect(&self) {
        self.suspicions.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicions.load(Ordering::Acquire) != self.cleared.load(Ordering::Acquire)
    }

    /// Refuses a state that ends before what is known to be in the stream,
    /// unless its leader is settled: then the stream is an older copy.
    fn believe(&self, state: StreamState) -> Result<StreamState, ApiError> {
        let known = self.known().filter(|known| known.epoch == state.epoch);
        let taken = known.map_or(0, |known| known.last.max(self.highest()));
        match state.settled || state.last >= taken {
            true => Ok(state),
            false => Err(ApiError::Behind),
        }
    }

    /// Takes note of a state that the leader gave. Called in the order of the
    /// answers, or an old one would bring an old epoch back.
    fn learn(&self, state: StreamState) {
        let renewed = self.known().is_some_and(|known| {
            // Another stream, or the same one restored from an older copy.
            known.epoch != state.epoch || state.last < known.last
        });
        if renewed {
            self.highest.store(state.last, Ordering::Relaxed);
        } else {
            self.saw(state.last);
        }
        self.told.lock().lives(state.epoch, state.last);
        self.state.send_if_modified(|known| {
            let changed = *known != Some(state);
            *known = Some(state);
            changed
        });
    }

    /// The stream's state by its leader, asked after this call began.
    /// Concurrent callers share one question, and its failure.
    pub(crate) async fn fresh(
        &self,
        client: &Client,
        timeout: Duration,
    ) -> Result<StreamState, ApiError> {
        let called = Instant::now();
        let mut asked = self.asked.lock().await;
        if let Some(last) = asked.as_ref().filter(|last| last.at >= called) {
            return last.answer.clone();
        }
        let at = Instant::now();
        // Counted before asking: whatever happens later is not cleared by it.
        let suspicions = self.suspicions.load(Ordering::Acquire);
        let answer = match stream_info(client, &self.stream, timeout).await {
            Ok(info) => StreamState::read(&info).and_then(|state| self.believe(state)),
            Err(error) => Err(error),
        };
        if let Ok(state) = &answer {
            self.learn(*state);
            self.cleared.fetch_max(suspicions, Ordering::AcqRel);
        }
        *asked = Some(Asked {
            at,
            answer: answer.clone(),
        });
        answer
    }
}

/// Asks a stream's leader for its description.
pub(crate) async fn stream_info(
    client: &Client,
    stream: &str,
    timeout: Duration,
) -> Result<StreamInfo, ApiError> {
    api::call(
        client,
        format!("STREAM.INFO.{stream}"),
        &Value::Null,
        timeout,
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(created: &str, value: &str) -> StreamInfo {
        serde_json::from_value(json!({
            "config": {"metadata": {EPOCH_KEY: value}, "max_bytes": -1, "num_replicas": 1},
            "created": created,
            "state": {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0},
        }))
        .unwrap()
    }

    #[test]
    fn an_epoch_depends_on_both_parts_and_not_on_how_time_is_written() {
        let base = epoch(&info("2026-11-24T15:07:11.5Z", "a")).unwrap();
        let same = epoch(&info("2026-11-24T16:07:11.500000000+01:00", "a")).unwrap();
        assert_eq!(base, same);
        let other_value = epoch(&info("2026-11-24T15:07:11.5Z", "b")).unwrap();
        let other_time = epoch(&info("2026-11-24T15:07:11.6Z", "a")).unwrap();
        assert_ne!(base, other_value);
        assert_ne!(base, other_time);
        assert!(epoch(&info("yesterday", "a")).is_err());
    }

    fn clustered(led_s: u64, silent_s: [u64; 2], last: u64) -> StreamInfo {
        let mut info = info("2026-11-24T15:07:11Z", "a");
        info.state.last_seq = last;
        info.ts = Some(format!("2026-11-24T16:00:{led_s:02}Z"));
        let peer = |silent: u64| json!({"offline": false, "active": silent * 1_000_000_000});
        info.cluster = serde_json::from_value(json!({
            "leader_since": "2026-11-24T16:00:00Z",
            "replicas": silent_s.map(peer),
        }))
        .unwrap();
        info
    }

    #[test]
    fn a_leader_is_believed_that_has_led_for_a_while_and_is_followed() {
        let settled = |led, silent| is_settled(&clustered(led, silent, 0));
        assert!(settled(10, [0, 0]));
        assert!(settled(10, [0, 60]), "one of three may be away");
        assert!(!settled(10, [60, 60]), "cut off");
        assert!(!settled(1, [0, 0]), "just elected");
        assert!(is_settled(&info("2026-11-24T15:07:11Z", "a")), "no cluster");
    }

    #[test]
    fn a_new_leader_that_is_behind_is_not_taken_for_an_older_copy() {
        let shard = Shard::new(0, "REJOIN_0".to_owned());
        let read = |info: &StreamInfo| shard.believe(StreamState::read(info).unwrap());
        let state = read(&clustered(10, [0, 0], 397)).unwrap();
        shard.learn(state);
        assert!(matches!(
            read(&clustered(1, [0, 0], 0)),
            Err(ApiError::Behind)
        ));
        assert!(matches!(
            read(&clustered(30, [60, 60], 396)),
            Err(ApiError::Behind)
        ));
        assert_eq!(read(&clustered(1, [0, 0], 400)).unwrap().last, 400);
        // Restored from a backup: it stays so.
        assert_eq!(read(&clustered(10, [0, 0], 12)).unwrap().last, 12);
    }

    #[test]
    fn an_empty_stream_starts_after_its_last() {
        let state = StreamState::read(&info("2026-11-24T15:07:11Z", "a")).unwrap();
        assert_eq!((state.first, state.last, state.max_bytes), (1, 0, 0));
        assert_eq!(state.earliest(), state.head());
    }
}
