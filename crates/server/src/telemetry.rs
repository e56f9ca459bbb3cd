//! Logs.

use std::io::IsTerminal;
use std::sync::Arc;

use edge::admin::LogFilter;
use parking_lot::Mutex;

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::ConfigError;

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Directives of tracing's `EnvFilter`, like `info,backplane=debug`.
    /// Default: `info,sqlx=warn,async_nats=error`: while NATS is away its
    /// client tells each of many attempts, and the edge tells what matters.
    pub filter: String,
    /// The form of a line. Default: `auto`.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `text` on a terminal, else `json`.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info,sqlx=warn,async_nats=error".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl LogConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.env_filter().map(|_| ())
    }

    fn env_filter(&self) -> Result<EnvFilter, ConfigError> {
        EnvFilter::try_new(&self.filter).map_err(|error| ConfigError::Bound {
            field: "log.filter".to_owned(),
            reason: error.to_string(),
        })
    }
}

/// The filter of this process, changeable while it runs.
struct ReloadableFilter {
    directives: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogFilter for ReloadableFilter {
    fn get(&self) -> String {
        self.directives.lock().clone()
    }

    fn set(&self, directives: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        let mut current = self.directives.lock();
        self.handle
            .reload(filter)
            .map_err(|error| error.to_string())?;
        directives.clone_into(&mut current);
        Ok(())
    }
}

/// Libraries that write credentials and messages into their logs, and down to
/// which level they do not.
const TALKATIVE: [(&str, Level); 1] = [
    // What it connects with, and every message.
    ("async_nats", Level::DEBUG),
];

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    let talkative = TALKATIVE.iter().find(|(library, _)| *library == root);
    // A more talkative level is the greater one.
    talkative.is_none_or(|(_, most)| metadata.level() <= most)
}

/// Begins logging to stderr. Call once per process. Returns the filter, which
/// an operator may change.
pub fn start(config: &LogConfig) -> anyhow::Result<Arc<dyn LogFilter>> {
    let json = match config.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (filter, handle) = reload::Layer::new(config.env_filter()?);
    // Both filters count: no directive can ask for what must not be logged.
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_logged));
    if json {
        let layer = fmt::layer().json().flatten_event(true);
        registry
            .with(layer.with_writer(std::io::stderr))
            .try_init()?;
    } else {
        registry
            .with(
                fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init()?;
    }
    Ok(Arc::new(ReloadableFilter {
        directives: Mutex::new(config.filter.clone()),
        handle,
    }))
}
