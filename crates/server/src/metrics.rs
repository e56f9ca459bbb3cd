//! What the edge does not know about, for `/metrics`: NATS, Postgres, the
//! archivers, the outbox and the process.

mod postgres;
mod process;

use std::sync::Arc;

use backplane::Backplane;
use delivery::Hub;
use delivery::archiver::ArchiverStats;
use edge::Edge;
use edge::exposition::Exposition;
use store::OutboxStats;

pub use postgres::watch as watch_postgres;
pub use process::add as add_process;

/// Microseconds of a second.
const MICROS: f64 = 1_000_000.0;

/// Shows the backplane's numbers.
pub fn add_backplane(edge: &Edge, backplane: &Backplane) {
    let backplane = backplane.clone();
    let hub = edge.hub().clone();
    edge.metrics().add(move |out| {
        out.gauge(
            "rejoin_nats_connected",
            "1 while all connections to NATS are up, else 0.",
        )
        .value(backplane.connected());
        let help = "1 while this connection to NATS is up, else 0.";
        let mut family = out.gauge("rejoin_nats_connection_up", help);
        for (link, up) in backplane.links() {
            family.sample(&[("connection", link)], up);
        }
        let stats = backplane.stats();
        let mut counter = |name, help, value: u64| out.counter(name, help).value(value);
        counter(
            "rejoin_publishes_total",
            "Publishes asked for.",
            stats.publishes,
        );
        counter(
            "rejoin_publish_acks_total",
            "Publishes acknowledged.",
            stats.acks,
        );
        let help = "Publishes acknowledged that an earlier one under the same id had stored.";
        counter("rejoin_publish_duplicates_total", help, stats.duplicates);
        let help = "Publishes sent again under their id.";
        counter("rejoin_publish_retries_total", help, stats.publish_retries);
        let help = "Publishes that ended without an acknowledgement.";
        counter("rejoin_publish_errors_total", help, stats.publish_errors);
        let help = "Messages received from the streams.";
        counter("rejoin_tail_messages_total", help, stats.tail_messages);
        let help = "Times that a tail had to be begun again.";
        counter("rejoin_tail_restarts_total", help, stats.tail_restarts);
        let help = "Times that a connection to NATS was established again.";
        counter("rejoin_nats_reconnects_total", help, stats.reconnects);
        let help = "From a publish being asked for to its acknowledgement, retries included.";
        out.histogram("rejoin_publish_duration_seconds", help, MICROS)
            .sample(&[], backplane.publish_us());
        write_usage(&backplane, out);
        write_tail_lag(&backplane, &hub, out);
    });
}

/// The stream's last sequence is as old as the last look at it, so a lag is
/// seen late and is never overstated.
fn write_tail_lag(backplane: &Backplane, hub: &Hub, out: &mut Exposition) {
    let help = "Messages that the stream held when last looked at and the window has not got.";
    let mut family = out.gauge("rejoin_tail_lag_messages", help);
    for usage in backplane.usage() {
        if let Some(window) = hub.windows().get(usize::from(usage.shard)) {
            let lag = usage.last.saturating_sub(window.head().seq);
            family.sample(&[("shard", &usage.shard.to_string())], lag);
        }
    }
}

fn write_usage(backplane: &Backplane, out: &mut Exposition) {
    let usage = backplane.usage();
    type Field = fn(&backplane::StreamUsage) -> u64;
    let fields: [(&'static str, &'static str, Field); 3] = [
        ("rejoin_stream_bytes", "Bytes in the stream.", |usage| {
            usage.bytes
        }),
        (
            "rejoin_stream_limit_bytes",
            "Bytes at which the stream refuses to store more; 0 if it has no limit.",
            |usage| usage.max_bytes,
        ),
        (
            "rejoin_stream_messages",
            "Messages in the stream.",
            |usage| usage.messages,
        ),
    ];
    for (name, help, field) in fields {
        let mut family = out.gauge(name, help);
        for usage in &usage {
            family.sample(&[("shard", &usage.shard.to_string())], field(usage));
        }
    }
    let help = "1 if the stream is half full or more: the archive is too far behind.";
    let mut alarm = out.gauge("rejoin_stream_half_full", help);
    for usage in &usage {
        let half_full = usage.max_bytes > 0 && usage.bytes >= usage.max_bytes / 2;
        alarm.sample(&[("shard", &usage.shard.to_string())], half_full);
    }
}

/// Shows the archivers' numbers, in the order of their shards.
pub fn add_archivers(edge: &Edge, archivers: Vec<Arc<ArchiverStats>>) {
    edge.metrics().add(move |out| {
        type Field = fn(&ArchiverStats) -> f64;
        let gauges: [(&'static str, &'static str, Field); 4] = [
            (
                "rejoin_archiver_active",
                "1 if this process archives the shard, 0 if it stands by.",
                |stats| f64::from(u8::from(stats.is_active())),
            ),
            (
                "rejoin_archive_lag_messages",
                "Messages in the stream that are not archived yet.",
                |stats| stats.lag_messages() as f64,
            ),
            (
                "rejoin_archive_lag_seconds",
                "For how long not everything has been archived.",
                |stats| stats.lag_ms() as f64 / 1_000.0,
            ),
            (
                "rejoin_archive_watermark_sequence",
                "Everything up to here is archived.",
                |stats| stats.watermark() as f64,
            ),
        ];
        for (name, help, field) in gauges {
            let mut family = out.gauge(name, help);
            for (shard, stats) in archivers.iter().enumerate() {
                family.sample(&[("shard", &shard.to_string())], field(stats));
            }
        }
        type Count = fn(&ArchiverStats) -> u64;
        let counters: [(&'static str, &'static str, Count); 3] = [
            (
                "rejoin_archived_messages_total",
                "Messages archived.",
                ArchiverStats::archived_messages,
            ),
            (
                "rejoin_archive_batches_total",
                "Transactions that archived them.",
                ArchiverStats::batches,
            ),
            (
                "rejoin_archive_interruptions_total",
                "Times that archiving stopped and was taken up again.",
                ArchiverStats::interruptions,
            ),
        ];
        for (name, help, field) in counters {
            let mut family = out.counter(name, help);
            for (shard, stats) in archivers.iter().enumerate() {
                family.sample(&[("shard", &shard.to_string())], field(stats));
            }
        }
    });
}

/// Shows the outbox relay's numbers.
pub fn add_outbox(edge: &Edge, stats: Arc<OutboxStats>) {
    edge.metrics().add(move |out| {
        let mut counter = |name, help, value: u64| out.counter(name, help).value(value);
        let help = "Messages published from SQL.";
        counter("rejoin_outbox_published_total", help, stats.published());
        let help = "Messages from SQL that this edge found that can never be published.";
        counter("rejoin_outbox_refused_total", help, stats.refused());
        let help = "Rounds of the outbox that Postgres or NATS did not let finish.";
        counter(
            "rejoin_outbox_failed_rounds_total",
            help,
            stats.failed_rounds(),
        );
        let help = "Committed messages from SQL that are not published yet; counted up to 10000.";
        out.gauge("rejoin_outbox_waiting", help)
            .value(stats.waiting());
        let help =
            "Messages from SQL that stay in rejoin.outbox because they can never be published.";
        out.gauge("rejoin_outbox_parked", help)
            .value(stats.parked());
    });
}
