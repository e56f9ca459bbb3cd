//! `rejoin check`: would this configuration run well, and if not, what to do.
//!
//! - [`report`]: the lines, and the exit code;
//! - [`host`]: this machine: its limits, and its clock against theirs;
//! - [`lag`]: how far the archive is, and whether the streams are those that
//!   it knows;
//! - [`archive`]: the archive against the streams, message by message.

mod archive;
mod host;
mod lag;
mod report;

use std::process::ExitCode;

use anyhow::Context;
use backplane::{Backplane, Durability, Inspection, PublicSubject, StreamInspection};
use edge::auth::Authenticator;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::CheckArgs;
use crate::config::Config;
use crate::{commands, storage};
use report::Report;

/// Oldest Postgres that Rejoin is tested with.
const POSTGRES_MAJOR_MIN: u32 = 15;

/// Prints a line for each thing that was looked at, and what to do about
/// what is not good. Changes nothing. Exit code 1 if an edge would not run.
pub async fn run(arguments: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match commands::load(&arguments.config) {
        Ok(config) => {
            report.good("configuration", "valid");
            check_all(&config, &arguments, &mut report).await?;
        }
        Err(error) => report.bad(format!("configuration: {error}"), "correct this setting"),
    }
    report.print()?;
    Ok(report.exit_code())
}

async fn check_all(
    config: &Config,
    arguments: &CheckArgs,
    report: &mut Report,
) -> anyhow::Result<()> {
    check_edge(config, report);
    host::check_descriptors(config, report);
    let (backplane, found) = check_backplane(config, report).await.unzip();
    for address in &arguments.nats_monitor {
        check_durability(address, report).await;
    }
    if arguments.nats_monitor.is_empty() {
        report.weak(
            "NATS durability: not looked at",
            "run again with --nats-monitor http://HOST:8222 for each server",
        );
    }
    let store = check_store(config, report).await?;
    if let (Some(backplane), Some(found), Some(store)) = (&backplane, &found, &store) {
        lag::check(config, backplane, found, store, report).await;
    }
    if arguments.archive {
        match (backplane, store) {
            (Some(backplane), Some(store)) => {
                archive::compare(&backplane, &store, report).await;
            }
            (None, _) | (_, None) => {
                report.bad("archive: not compared", "this needs both NATS and Postgres")
            }
        }
    }
    Ok(())
}

fn check_edge(config: &Config, report: &mut Report) {
    let edge = &config.edge;
    match Authenticator::new(&edge.auth) {
        Ok(_) if edge.auth.keys.is_empty() => report.weak(
            "edge.auth.keys: none, no user can connect",
            "add the key that your application signs tokens with",
        ),
        Ok(_) => report.good("edge.auth.keys", edge.auth.keys.len()),
        Err(error) => report.bad(format!("edge.auth.{error}"), "correct this key"),
    }
    if edge.dev {
        report.weak(
            "edge.dev: on, pages from localhost are let in and the demonstration page is served",
            "turn it off outside development",
        );
    }
    if edge.origins.allowed.is_empty() {
        report.weak(
            "edge.origins.allowed: empty, no web page can connect",
            "add the origins of your web pages, if there are any",
        );
    }
}

async fn check_backplane(config: &Config, report: &mut Report) -> Option<(Backplane, Inspection)> {
    let backplane = match Backplane::connect(config.backplane.clone()).await {
        Ok(backplane) => backplane,
        Err(error) => {
            let advice = match error.is_retryable() {
                true => "start NATS with JetStream there, or correct backplane.urls",
                false => "an edge refuses to start like this",
            };
            report.bad(format!("NATS: {error}"), advice);
            return None;
        }
    };
    let archives = config.store.is_set() && config.store.archive.enabled;
    match backplane.inspect(archives).await {
        Ok(found) => {
            check_server(config, &found, report);
            for stream in &found.streams {
                check_stream(config, stream, report);
            }
            check_public_subject(config, found.public_subject, report);
            check_permissions(&found, report);
            Some((backplane, found))
        }
        Err(error) => {
            let advice = "see the nats-server's log; does JetStream have a leader?";
            report.bad(format!("NATS: {error}"), advice);
            None
        }
    }
}

fn check_server(config: &Config, found: &Inspection, report: &mut Report) {
    let round_trip_ms = found.round_trip.as_secs_f64() * 1_000.0;
    report.good(
        "NATS",
        format!(
            "nats-server {}, {round_trip_ms:.1} ms there and back",
            found.server_version
        ),
    );
    if let Some(ahead_ms) = found.clock_ahead_ms {
        let uncertain_ms = found.round_trip.as_millis() as i64 / 2;
        host::check_clock("NATS", ahead_ms, uncertain_ms, report);
    }
    // Subject and headers go with the payload.
    const HEADERS_BYTES: usize = 1_024;
    let needed = config.edge.limits.message_bytes + HEADERS_BYTES;
    if found.max_payload_bytes < needed {
        report.bad(
            format!("NATS max_payload: {} bytes", found.max_payload_bytes),
            &format!("raise it to {needed}, or lower edge.limits.message_bytes"),
        );
    }
}

fn check_stream(config: &Config, stream: &StreamInspection, report: &mut Report) {
    let name = &stream.name;
    let Some(state) = &stream.state else {
        report.good(name, "does not exist yet; the first edge creates it");
        return;
    };
    let configured = config.backplane.shards.to_string();
    if let Some(found) = stream.shards.as_ref().filter(|found| **found != configured) {
        report.bad(
            format!("{name}: belongs to a deployment of {found} shards"),
            "set backplane.shards to that; it cannot change once streams exist",
        );
    }
    let held = state.last + 1 - state.first;
    let share = match state.max_bytes {
        0 => "no byte limit".to_owned(),
        max => format!(
            "{:.1}% of its byte limit",
            state.bytes as f64 / max as f64 * 100.0
        ),
    };
    let replicas = stream.replicas;
    let found = format!(
        "{held} messages, {share}, {replicas} replicas, epoch {}",
        state.epoch
    );
    report.good(name, found);
    // At half, an operator still has as long again as it took to get there.
    if state.max_bytes > 0 && state.bytes > state.max_bytes / 2 {
        report.weak(
            format!("{name}: more than half of its byte limit"),
            "at the limit publishing is refused: see why the archiver is behind",
        );
    }
    if replicas == 1 {
        report.weak(
            format!("{name}: one replica, so a lost disk loses what is not archived"),
            "use a cluster of three and `nats stream edit --replicas 3`",
        );
    }
    for warning in &stream.warnings {
        report.weak(warning.as_str(), "correct it with `nats stream edit`");
    }
    let archiver = stream.archiver.iter().flat_map(|it| &it.warnings);
    for warning in archiver {
        report.bad(
            format!("{name}, consumer archiver: {warning}"),
            &format!("`nats consumer rm {name} archiver`: the archiver makes it anew where it was"),
        );
    }
}

fn check_permissions(found: &Inspection, report: &mut Report) {
    if found.streams.iter().any(|stream| stream.state.is_none()) {
        return;
    }
    match found.forbidden.as_slice() {
        [] => report.good("NATS permissions", "this user may do what an edge does"),
        forbidden => report.bad(
            format!(
                "NATS permissions: nothing gets through to {}",
                forbidden.join(", ")
            ),
            "allow it in the user's permissions: see deploy/nats-users.conf",
        ),
    }
}

fn check_public_subject(config: &Config, found: PublicSubject, report: &mut Report) {
    let prefix = &config.backplane.prefix;
    let what = format!("{prefix}.pub.<namespace>.<id>");
    let advice = format!(
        "put into nats.conf: mappings: {{ \"{prefix}.pub.*.*\": \
         \"{prefix}.msg.{{{{partition({},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}\" }}",
        config.backplane.shards
    );
    match found {
        PublicSubject::Mapped => report.good(&what, "reaches the streams"),
        PublicSubject::NotMapped => {
            report.weak(
                format!("{what}: not mapped, `nats pub` does not work"),
                &advice,
            );
        }
        PublicSubject::WrongStream => report.bad(
            format!("{what}: goes to streams in which no edge looks for it"),
            &advice,
        ),
        PublicSubject::Unknown => {}
    }
}

async fn check_durability(address: &str, report: &mut Report) {
    let what = format!("NATS durability ({address})");
    let advice = "an acknowledged message can be lost with the power: set `sync_interval: always` \
                  in the `jetstream` block";
    match monitoring_page(address).await {
        Ok(page) => match Durability::from_monitoring(&page) {
            Some(Durability::SyncAlways) => {
                report.good(&what, "on the disk before it is acknowledged");
            }
            Some(Durability::SyncEvery(every)) => {
                report.weak(
                    format!("{what}: synced every {} s", every.as_secs()),
                    advice,
                );
            }
            None => report.weak(
                format!("{what}: not a nats-server's page"),
                "correct --nats-monitor",
            ),
        },
        Err(error) => report.weak(format!("{what}: {error:#}"), "correct --nats-monitor"),
    }
}

/// `GET /jsz`, with as little HTTP as a nats-server understands.
async fn monitoring_page(address: &str) -> anyhow::Result<Vec<u8>> {
    const PAGE_BYTES_MAX: u64 = 1 << 20;
    const TIME: std::time::Duration = std::time::Duration::from_secs(3);
    let authority = address
        .strip_prefix("http://")
        .context("expected http://HOST:PORT")?
        .trim_end_matches('/');
    let ask = async {
        let stream = TcpStream::connect(authority).await?;
        let mut stream = stream;
        let request = format!("GET /jsz?config=1 HTTP/1.0\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(TIME, ask)
        .await
        .context("no answer")??;
    let end_of_head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = end_of_head.context("not HTTP")? + 4;
    Ok(answer[body..].to_vec())
}

async fn check_store(config: &Config, report: &mut Report) -> anyhow::Result<Option<Store>> {
    let Some(store) = storage::open(config)? else {
        report.weak(
            "Postgres: not configured, so no archive, rooms, receipts and outbox; a full stream \
             refuses publishing",
            "set store.url",
        );
        return Ok(None);
    };
    match store.inspect().await {
        Ok(found) if found.major_version < POSTGRES_MAJOR_MIN => {
            let advice = format!("use {POSTGRES_MAJOR_MIN} or newer");
            report.bad(format!("Postgres: {} is too old", found.version), &advice);
        }
        Ok(found) => {
            report.good("Postgres", &found.version);
            let asked = std::time::Instant::now();
            if let Ok(theirs_ms) = store.clock_ms().await {
                let uncertain_ms = asked.elapsed().as_millis() as i64 / 2;
                let ahead_ms = theirs_ms - (host::now_ms() - uncertain_ms);
                host::check_clock("Postgres", ahead_ms, uncertain_ms, report);
            }
            if found.pending_migrations > 0 {
                let pending = format!("{} to apply; the next edge does", found.pending_migrations);
                report.good("Postgres migrations", pending);
            }
            let tls = match found.is_encrypted {
                true => "TLS is spoken",
                false => "in plain text: store.ca_file asks for TLS, unless the way is private",
            };
            report.good("connection to Postgres", tls);
            if !found.durable {
                report.weak(
                    "Postgres: commits can be lost with the power, and the archiver has trimmed \
                     the stream by then",
                    "set fsync = on and synchronous_commit = on",
                );
            }
        }
        Err(error) => {
            // Edges start without it, and serve what does not need it.
            report.bad(
                format!("Postgres: {error}"),
                "start Postgres there, or correct store.url",
            );
            return Ok(None);
        }
    }
    Ok(Some(store))
}
