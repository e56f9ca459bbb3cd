//! `serve`, `archive`, `token`, `check`.

pub mod archive;
pub mod check;
pub mod serve;
pub mod token;

use crate::cli::ConfigArgs;
use crate::config::{Config, ConfigError};

/// The configuration that the command line and this process's environment
/// give.
pub(crate) fn load(arguments: &ConfigArgs) -> Result<Config, ConfigError> {
    // Variables that are not text cannot be settings.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(arguments.config.as_deref(), variables)
}
