//! A file and the environment become one checked value.
//!
//! In order, later over earlier: the documented defaults, the TOML file, the
//! environment ([`environment`]). An unknown key and a bad value are errors
//! that name the field and where it was set.

pub mod environment;
pub mod print;
pub mod store;

use std::path::Path;

use backplane::BackplaneConfig;
use edge::EdgeConfig;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::{Deserialize, Serialize};

pub use self::store::StoreSection;
use crate::telemetry::LogConfig;
use crate::traces::TraceConfig;

/// Everything an operator can set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub trace: TraceConfig,
    /// The edge: where it listens, who is let in, limits, draining.
    pub edge: EdgeConfig,
    /// NATS JetStream.
    pub backplane: BackplaneConfig,
    /// Postgres.
    pub store: StoreSection,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What happened.
        reason: std::io::Error,
    },
    /// A key is unknown or a value has the wrong type.
    #[error("{0}")]
    Value(String),
    /// A value is out of its bounds.
    #[error("{field}: {reason}")]
    Bound {
        /// The field, like `edge.limits.ping_ms`.
        field: String,
        /// What is wrong with it and what it should be.
        reason: String,
    },
}

impl Config {
    /// Reads, merges and checks. `variables` is the environment.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|reason| ConfigError::File {
                path: path.display().to_string(),
                reason,
            })?;
            let toml = Toml::string(&text);
            figment = figment.merge(toml);
        }
        let environment = environment::read(variables, &Self::default())?;
        let mut config: Self = figment
            .merge(environment)
            .extract()
            .map_err(|error| ConfigError::Value(described(error, file)))?;
        config.name_the_edge();
        config.check()?;
        Ok(config)
    }

    /// The edge's name, from the host where it is not set; the backplane
    /// shows the same name to operators.
    fn name_the_edge(&mut self) {
        if self.edge.name.is_empty() {
            let host = rustix::system::uname();
            let host = host.nodename().to_string_lossy();
            let allowed = |c: char| match c.is_ascii_alphanumeric() {
                true => c,
                false => '-',
            };
            self.edge.name = host.chars().take(64).map(allowed).collect();
        }
        self.backplane.edge.clone_from(&self.edge.name);
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.log.check()?;
        self.trace.check()?;
        self.edge.check().map_err(|error| ConfigError::Bound {
            field: format!("edge.{}", error.field),
            reason: error.reason,
        })?;
        self.backplane
            .validate()
            .map_err(|error| ConfigError::Bound {
                field: format!("backplane.{}", error.field),
                reason: error.problem.to_owned(),
            })?;
        self.store.check()
    }
}

/// What is wrong, with which field, and where it was set.
fn described(error: figment::Error, file: Option<&Path>) -> String {
    let one = |error: figment::Error| {
        let field = error.path.join(".");
        let from_environment = error
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.name == environment::SOURCE);
        let source = match (from_environment, file) {
            (true, _) => format!(" (in {})", environment::variable(&field)),
            (false, Some(path)) => format!(" (in {})", path.display()),
            (false, None) => String::new(),
        };
        let secret = error
            .path
            .last()
            .is_some_and(|name| print::SECRET_FIELDS.contains(&name.as_str()));
        match (field.is_empty(), secret) {
            (true, _) => format!("{}{source}", error.kind),
            // The kind quotes what was found.
            (false, true) => format!("{field}: expected a text{source}"),
            (false, false) => format!("{field}: {}{source}", error.kind),
        }
    };
    error.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
