//! Settings from environment variables.
//!
//! `REJOIN_`, then the field's path with `__` between its parts:
//! `REJOIN_EDGE__LISTEN__ADDRESS` sets `edge.listen.address`. Texts are taken
//! as they are, so that a secret of digits stays a text; other values are
//! written as in TOML.

use figment::value::Value as FigmentValue;
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use serde_json::Value;

use super::{Config, ConfigError};

/// What every variable begins with.
const PREFIX: &str = "REJOIN_";

/// Between the parts of a field's path.
const SEPARATOR: &str = "__";

/// How errors name this source.
pub(super) const SOURCE: &str = "environment";

/// The settings of an environment.
pub(super) struct Environment(Dict);

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(SOURCE)
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// The variable that sets a field.
pub(super) fn variable(field: &str) -> String {
    let path = field.to_uppercase().replace('.', SEPARATOR);
    format!("{PREFIX}{path}")
}

/// Picks the settings out of an environment. Variables without `__` are not
/// settings (`REJOIN_CONFIG`), unless they look like a mistyped one.
pub(super) fn read(
    variables: impl IntoIterator<Item = (String, String)>,
    defaults: &Config,
) -> Result<Environment, ConfigError> {
    // Serialising plain data with text keys cannot fail.
    let defaults = serde_json::to_value(defaults).unwrap_or_default();
    let mut settings = Dict::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !path.contains(SEPARATOR) {
            complain_if_mistyped(&name, path, &defaults)?;
            continue;
        }
        let path = path.to_lowercase();
        let parts: Vec<&str> = path.split(SEPARATOR).collect();
        let default = parts
            .iter()
            .try_fold(&defaults, |value, part| value.get(part));
        set(&mut settings, &parts, value(default, text));
    }
    Ok(Environment(settings))
}

/// A text stays a text where the field is one (or is not set by default, as
/// all such fields are texts); else it is read as TOML.
fn value(default: Option<&Value>, text: String) -> FigmentValue {
    match default {
        Some(Value::String(_) | Value::Null) | None => FigmentValue::from(text),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            // Never an error: what is not TOML is a text.
            text.parse().unwrap_or_else(|never| match never {})
        }
    }
}

fn set(settings: &mut Dict, parts: &[&str], value: FigmentValue) {
    let [first, rest @ ..] = parts else { return };
    if rest.is_empty() {
        settings.insert((*first).to_owned(), value);
        return;
    }
    let nested = settings
        .entry((*first).to_owned())
        .or_insert_with(|| FigmentValue::from(Dict::new()));
    if let FigmentValue::Dict(_, nested) = nested {
        set(nested, rest, value);
    }
}

/// `REJOIN_EDGE_NAME` would be ignored without a word.
fn complain_if_mistyped(name: &str, path: &str, defaults: &Value) -> Result<(), ConfigError> {
    let path = path.to_lowercase();
    let sections = defaults.as_object().into_iter().flat_map(|map| map.keys());
    for section in sections {
        if path == *section || path.starts_with(&format!("{section}_")) {
            let reason = format!(
                "{name}: parts of a setting's name are separated by two underscores, as in {}",
                variable("edge.limits.ping_ms")
            );
            return Err(ConfigError::Value(reason));
        }
    }
    Ok(())
}
