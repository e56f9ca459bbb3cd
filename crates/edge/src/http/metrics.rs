//! What the edge and the process around it have done and hold, for
//! Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use delivery::stats::Source;
use delivery::window::Window;

use super::bearer::Admin;
use super::health;
use crate::exposition::{CONTENT_TYPE, Exposition};
use crate::registry::Transport;
use crate::{Edge, Phase};

/// What a second is made of, in histograms of microseconds.
const MICROS: f64 = 1_000_000.0;

/// `GET /metrics`: needs an administrative API key, which Prometheus sends
/// with `authorization: {credentials_file: …}`. Where the peer's address is
/// a proxy's, it proves nothing, so a loopback peer needs one too.
pub async fn metrics(State(edge): State<Edge>, _: Admin) -> impl IntoResponse {
    let mut out = Exposition::default();
    write_process(&edge, &mut out);
    write_connections(&edge, &mut out);
    edge.admission().write(&mut out);
    write_delivery(&edge, &mut out);
    write_windows(edge.hub().windows(), &mut out);
    edge.metrics().write(&mut out);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], out.into_text())
}

fn write_process(edge: &Edge, out: &mut Exposition) {
    let labels = [
        ("edge", edge.config().name.as_str()),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    out.gauge(
        "rejoin_edge_info",
        "Which edge and version this is; always 1.",
    )
    .sample(&labels, 1_u64);
    out.gauge(
        "rejoin_ready",
        "1 if /readyz says that the edge should get connections, else 0.",
    )
    .value(health::reasons(edge).is_empty());
    let help = "1 while the edge sends its connections away, else 0.";
    out.gauge("rejoin_draining", help)
        .value(edge.drain().phase() > Phase::Serving || edge.drain().is_resting());
}

fn write_connections(edge: &Edge, out: &mut Exposition) {
    let counters = edge.counters();
    let registry = edge.registry();
    out.gauge("rejoin_sockets", "Open TCP connections, upgraded or not.")
        .value(edge.drain().open_connections());
    let mut connections = out.gauge("rejoin_connections", "Clients connected now.");
    for transport in Transport::ALL {
        let labels = [("transport", transport.as_str())];
        connections.sample(&labels, registry.connections(transport));
    }
    out.gauge("rejoin_users", "Users with at least one connection.")
        .value(registry.users());
    out.gauge("rejoin_revocations", "Revocations in force.")
        .value(edge.auth().revocations().len());
    out.counter("rejoin_connects_total", "Clients let in.")
        .sample(&[("transport", "websocket")], counters.connects.get())
        .sample(&[("transport", "sse")], counters.sse_connects.get())
        .sample(&[("transport", "poll")], counters.polls.get());
    let mut closes = out.counter(
        "rejoin_closes_total",
        "Connections ended, by close code; the code 0 stands for those that the client ended.",
    );
    for (code, count) in counters.closes() {
        let number = code.map_or(0, |code| code.as_u16()).to_string();
        let reason = code.map_or("peer", |code| code.as_str());
        closes.sample(&[("code", &number), ("reason", reason)], count);
    }
    out.counter(
        "rejoin_frames_received_total",
        "Frames received from clients.",
    )
    .value(counters.frames_in.get());
    out.counter("rejoin_frames_sent_total", "Frames sent to clients.")
        .value(counters.frames_out.get());
    out.counter(
        "rejoin_bad_frames_total",
        "Frames received that could not be read.",
    )
    .value(counters.bad_frames.get());
    out.counter(
        "rejoin_panics_total",
        "Connections and requests that a defect of the edge ended.",
    )
    .value(counters.panics.get());
    let mut errors = out.counter(
        "rejoin_errors_total",
        "Errors that clients were told, by code.",
    );
    for (code, count) in counters.errors() {
        errors.sample(&[("code", code.as_str())], count);
    }
    out.gauge(
        "rejoin_slow_connections",
        "WebSocket connections whose client does not take what was written, at the moment.",
    )
    .value(
        counters
            .slow
            .get()
            .saturating_sub(counters.slow_ended.get()),
    );
    out.histogram(
        "rejoin_delivery_duration_seconds",
        "From the stream's storing a live message to its being written to a WebSocket, to a millisecond.",
        MICROS,
    )
    .sample(&[], &counters.write_us);
}

fn write_delivery(edge: &Edge, out: &mut Exposition) {
    let counters = edge.hub().counters();
    out.counter("rejoin_deliveries_total", "Messages handed to connections.")
        .value(counters.deliveries.get());
    let mut family = out.histogram(
        "rejoin_catch_up_messages",
        "Messages replayed before a subscription became live, by the farthest place they came from.",
        1.0,
    );
    for source in Source::ALL {
        let labels = [("source", source.as_str())];
        family.sample(&labels, &counters.catch_ups[source as usize].messages);
    }
    let mut family = out.histogram(
        "rejoin_catch_up_duration_seconds",
        "From a subscription's start to its becoming live, by the farthest place messages came from.",
        MICROS,
    );
    for source in Source::ALL {
        let labels = [("source", source.as_str())];
        family.sample(&labels, &counters.catch_ups[source as usize].duration_us);
    }
    out.counter(
        "rejoin_readers_lapped_total",
        "Times that a live subscription fell behind the window because its client was slow.",
    )
    .value(counters.readers_lapped.get());
    out.counter(
        "rejoin_log_requests_total",
        "Questions to the logs below the window.",
    )
    .sample(&[("log", "archive")], counters.archive_requests.get())
    .sample(&[("log", "stream")], counters.stream_requests.get());
    out.counter(
        "rejoin_log_unavailable_total",
        "Questions that a log could not answer for the time being.",
    )
    .value(counters.log_unavailable.get());
    out.counter(
        "rejoin_resets_total",
        "Subscriptions whose continuity could not be proved.",
    )
    .sample(&[("reason", "expired")], counters.resets_expired.get())
    .sample(&[("reason", "epoch")], counters.resets_epoch.get())
    .sample(&[("reason", "ahead")], counters.resets_ahead.get())
    .sample(
        &[("reason", "too_far_behind")],
        counters.resets_too_far_behind.get(),
    );
}

fn write_windows(windows: &[std::sync::Arc<Window>], out: &mut Exposition) {
    let shards: Vec<_> = windows
        .iter()
        .map(|window| {
            (
                window.shard().to_string(),
                window.is_filled(),
                window.stats(),
            )
        })
        .collect();
    let mut gauge = out.gauge(
        "rejoin_window_filled",
        "1 once the window has caught up, else 0.",
    );
    for (shard, filled, _) in &shards {
        gauge.sample(&[("shard", shard)], *filled);
    }
    let mut gauge = out.gauge(
        "rejoin_window_head_sequence",
        "Newest sequence of the stream.",
    );
    for (shard, _, stats) in &shards {
        gauge.sample(&[("shard", shard)], stats.head.seq);
    }
    let mut gauge = out.gauge(
        "rejoin_window_floor_sequence",
        "The window holds every message after this sequence.",
    );
    for (shard, _, stats) in &shards {
        gauge.sample(&[("shard", shard)], stats.floor);
    }
    let mut gauge = out.gauge("rejoin_window_messages", "Messages held in the window.");
    for (shard, _, stats) in &shards {
        gauge.sample(&[("shard", shard)], stats.messages);
    }
    let mut gauge = out.gauge(
        "rejoin_window_bytes",
        "Memory that the window is charged with.",
    );
    for (shard, _, stats) in &shards {
        gauge.sample(&[("shard", shard)], stats.bytes);
    }
    let mut gauge = out.gauge(
        "rejoin_window_channels",
        "Channels with a message in the window or a reader.",
    );
    for (shard, _, stats) in &shards {
        gauge.sample(&[("shard", shard)], stats.channels);
    }
    // The time itself and not an age, so that it is right whenever it is
    // looked at (Prometheus, "Instrumentation: timestamps, not time since").
    let mut gauge = out.gauge(
        "rejoin_window_oldest_timestamp_seconds",
        "When the oldest message in the window was stored, as Unix time; absent if it is empty.",
    );
    for (shard, _, stats) in &shards {
        if let Some(oldest_ms) = stats.oldest_time_ms {
            gauge.sample(&[("shard", shard)], oldest_ms as f64 / 1_000.0);
        }
    }
    let mut counter = out.counter(
        "rejoin_window_restarts_total",
        "Times the window had to begin anew because messages were not seen.",
    );
    for (shard, _, stats) in &shards {
        counter.sample(&[("shard", shard)], stats.restarts);
    }
}
