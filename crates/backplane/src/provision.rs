//! Making sure that the streams exist and are what this deployment needs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{self, ApiError, StreamInfo, code};
use crate::config::BackplaneConfig;
use crate::connect::{Backplane, Inner};
use crate::monitor;
use crate::shard::{self, EPOCH_KEY, SHARDS_KEY, Shard};

/// Why a deployment's streams could not be made ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProvisionError {
    /// The streams were made for another number of shards. A channel's
    /// messages would be looked for in another stream than holds them.
    #[error(
        "stream {stream} belongs to a deployment of {found} shards, backplane.shards says {configured}"
    )]
    ShardsMismatch {
        /// The stream.
        stream: String,
        /// What its metadata says.
        found: String,
        /// What the configuration says.
        configured: u16,
    },
    /// A stream of this name is somebody else's.
    #[error("stream {stream} exists, but does not capture {subject}")]
    Foreign {
        /// The stream.
        stream: String,
        /// What it would have to capture.
        subject: String,
    },
    /// The server said no, and will again.
    #[error("stream {stream} was refused: {reason}")]
    Refused {
        /// The stream.
        stream: String,
        /// What the server said.
        reason: String,
    },
    /// The server did not answer; the call may be repeated.
    #[error("stream {stream} could not be asked for: {reason}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// What happened.
        reason: String,
    },
}

/// What provisioning found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Streams that did not exist before.
    pub created: Vec<String>,
    /// What an operator set on a stream that weakens the delivery contract;
    /// it was left as it is.
    pub warnings: Vec<String>,
}

impl Backplane {
    /// Creates the streams that are missing and checks those that exist. May
    /// be called any number of times and by any number of edges at once.
    /// Settings that an operator has changed on a stream (replicas, limits)
    /// stay as they are.
    pub async fn provision(&self) -> Result<Provisioned, ProvisionError> {
        let mut report = Provisioned::default();
        for shard in &self.inner.shards {
            provision_shard(&self.inner, shard, &mut report).await?;
        }
        monitor::start(&self.inner);
        Ok(report)
    }
}

/// One shard's part of [`Backplane::provision`].
pub(crate) async fn provision_shard(
    inner: &Arc<Inner>,
    shard: &Shard,
    report: &mut Provisioned,
) -> Result<(), ProvisionError> {
    let client = &inner.catchup.client;
    let timeout = inner.config.request_timeout();
    let failed = |error: ApiError| failure(&shard.stream, error);
    let found = match shard::stream_info(client, &shard.stream, timeout).await {
        Ok(info) => info,
        Err(error) if error.is(code::STREAM_NOT_FOUND) => {
            let wanted = wanted(inner, shard);
            let method = format!("STREAM.CREATE.{}", shard.stream);
            // A new stream of a cluster has to elect a leader first.
            match api::call(client, method, &wanted, timeout * 3).await {
                Ok(info) => {
                    report.created.push(shard.stream.clone());
                    info
                }
                // Another edge was faster: its random epoch value differs.
                Err(error) if error.is(code::STREAM_NAME_IN_USE) => {
                    shard::stream_info(client, &shard.stream, timeout)
                        .await
                        .map_err(failed)?
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(error) => return Err(failed(error)),
    };
    adopt(inner, shard, found, report).await?;
    inner.fresh(shard).await.map_err(failed)?;
    Ok(())
}

/// The configuration of a new stream.
fn wanted(inner: &Inner, shard: &Shard) -> Value {
    let config = &inner.config;
    json!({
        "name": shard.stream,
        "description": "Rejoin: durable messages",
        "subjects": [inner.names.captured(shard.number)],
        "retention": "limits",
        "storage": "file",
        "num_replicas": config.replicas,
        "max_bytes": config.stream_max_bytes,
        // A message leaves only when the archiver removes it: never by age,
        // and never to make room.
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "max_msg_size": config.message_max_bytes,
        "duplicate_window": config.duplicate_window_ms * 1_000_000,
        "allow_direct": true,
        "allow_atomic": true,
        "metadata": {
            EPOCH_KEY: shard::random_epoch_value(),
            SHARDS_KEY: config.shards.to_string(),
        },
    })
}

/// Checks a stream that exists, adds what it lacks and reports what weakens
/// the contract.
async fn adopt(
    inner: &Arc<Inner>,
    shard: &Shard,
    info: StreamInfo,
    report: &mut Provisioned,
) -> Result<(), ProvisionError> {
    let subject = inner.names.captured(shard.number);
    let captures = info.config.get("subjects").and_then(Value::as_array);
    if !captures.is_some_and(|all| all.iter().any(|one| one == subject.as_str())) {
        return Err(ProvisionError::Foreign {
            stream: shard.stream.clone(),
            subject,
        });
    }
    let shards = inner.config.shards;
    if let Some(found) = info.metadata(SHARDS_KEY)
        && found != shards.to_string()
    {
        return Err(ProvisionError::ShardsMismatch {
            stream: shard.stream.clone(),
            found: found.to_owned(),
            configured: shards,
        });
    }
    warn_about(&info.config, &shard.stream, &inner.config, report);

    let mut config = info.config.clone();
    let mut lacks = false;
    for flag in ["allow_direct", "allow_atomic"] {
        if config.get(flag).and_then(Value::as_bool) != Some(true) {
            config[flag] = true.into();
            lacks = true;
        }
    }
    let values = [
        (EPOCH_KEY, shard::random_epoch_value()),
        (SHARDS_KEY, shards.to_string()),
    ];
    for (key, value) in values {
        if info.metadata(key).is_none() {
            config["metadata"][key] = value.into();
            lacks = true;
        }
    }
    if lacks {
        update(inner, shard, &config)
            .await
            .map_err(|error| failure(&shard.stream, error))?;
    }
    Ok(())
}

/// Writes a whole configuration back.
pub(crate) async fn update(
    inner: &Inner,
    shard: &Shard,
    config: &Value,
) -> Result<StreamInfo, ApiError> {
    api::call(
        &inner.catchup.client,
        format!("STREAM.UPDATE.{}", shard.stream),
        config,
        inner.config.request_timeout(),
    )
    .await
}

/// `ours` is what the edge was told about the streams.
pub(crate) fn warn_about(
    config: &Value,
    stream: &str,
    ours: &BackplaneConfig,
    report: &mut Provisioned,
) {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| config.get(key).and_then(Value::as_i64).unwrap_or_default();
    let mut warn = |problem: &str| report.warnings.push(format!("stream {stream}: {problem}"));
    if text("discard") != "new" {
        warn("discard is not `new`: at its limit it drops acknowledged messages");
    }
    if number("max_age") > 0 {
        warn("max_age is set: messages may leave before they are archived");
    }
    if number("max_msgs_per_subject") > 0 {
        warn("max_msgs_per_subject is set: a channel's messages replace each other");
    }
    if text("retention") != "limits" {
        warn("retention is not `limits`: consuming a message removes it");
    }
    let window_ms = number("duplicate_window") / 1_000_000;
    if i128::from(window_ms) < i128::from(ours.duplicate_window_ms) {
        warn(&format!(
            "its duplicate_window of {window_ms} ms is shorter than backplane.duplicate_window_ms: retried publishes \
             may be stored twice"
        ));
    }
    if text("storage") == "memory" {
        warn("storage is `memory`: a restart loses acknowledged messages");
    }
}

fn failure(stream: &str, error: ApiError) -> ProvisionError {
    let stream = stream.to_owned();
    match error {
        ApiError::Timeout(_)
        | ApiError::NoResponders
        | ApiError::Behind
        | ApiError::Malformed(_) => ProvisionError::Unavailable {
            stream,
            reason: error.to_string(),
        },
        ApiError::NotSent(reason) | ApiError::TooLarge(reason) => {
            ProvisionError::Unavailable { stream, reason }
        }
        ApiError::Server {
            code: code::STORAGE_RESOURCES_EXCEEDED,
            description,
        } => ProvisionError::Refused {
            stream,
            reason: format!(
                "{description}: the server's disk, or its max_file_store, does not leave room for backplane.stream_max_bytes"
            ),
        },
        // While a cluster forms; and a stream that another edge has just
        // created is not known to every server at once.
        ApiError::Server {
            code: code::STREAM_NOT_FOUND | code::NO_PEERS | code::CLUSTER_NOT_AVAILABLE,
            description,
        } => ProvisionError::Unavailable {
            stream,
            reason: description,
        },
        ApiError::Server { code, description } => ProvisionError::Refused {
            stream,
            reason: format!("{description} ({code})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_a_cluster_is_still_creating_is_asked_for_again() {
        let passes = |code| {
            let error = ApiError::Server {
                code,
                description: String::new(),
            };
            matches!(
                failure("REJOIN_0", error),
                ProvisionError::Unavailable { .. }
            )
        };
        assert!(passes(code::STREAM_NOT_FOUND));
        assert!(passes(code::CLUSTER_NOT_AVAILABLE));
        assert!(passes(code::NO_PEERS));
        assert!(!passes(code::ACCOUNT_RESOURCES_EXCEEDED));
    }
}
