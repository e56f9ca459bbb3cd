//! The configuration in effect, for people.

use super::Config;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// Fields that hold secrets, wherever they stand.
pub(super) const SECRET_FIELDS: [&str; 4] = ["secret", "password", "token", "nkey_seed"];

/// The configuration as TOML, without secrets: fields that hold one, and
/// credentials in URLs.
pub fn as_toml(config: &Config) -> Result<String, toml::ser::Error> {
    let mut value = toml::Value::try_from(config)?;
    redact(&mut value);
    toml::to_string(&value)
}

fn redact(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => {
            if let Some(redacted) = without_password(text) {
                *text = redacted;
            }
            if let Some(redacted) = without_secret_parameters(text) {
                *text = redacted;
            }
        }
        toml::Value::Array(items) => items.iter_mut().for_each(redact),
        toml::Value::Table(fields) => {
            for (name, field) in fields.iter_mut() {
                match field {
                    toml::Value::String(text) if SECRET_FIELDS.contains(&name.as_str()) => {
                        REDACTED.clone_into(text);
                    }
                    other => redact(other),
                }
            }
        }
        toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}

/// `scheme://user:password@host` with the password replaced; a user alone is
/// a token to NATS. `None` where there is neither.
fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (credentials, _) = rest[..authority_end].rsplit_once('@')?;
    let after = &rest[credentials.len()..];
    Some(match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{REDACTED}{after}"),
        None => format!("{scheme}://{REDACTED}{after}"),
    })
}

/// `scheme://host?password=…` with the values of such parameters replaced.
/// `None` where there are none.
fn without_secret_parameters(text: &str) -> Option<String> {
    const SUSPICIOUS: [&str; 5] = ["password", "secret", "token", "key", "sig"];
    let (address, query) = text.split_once('?')?;
    if !address.contains("://") {
        return None;
    }
    let mut found = false;
    let parameters: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if SUSPICIOUS.iter().any(|it| name.to_lowercase().contains(it)) => {
                found = true;
                format!("{name}={REDACTED}")
            }
            Some(_) | None => parameter.to_owned(),
        })
        .collect();
    found.then(|| format!("{address}?{}", parameters.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_parameters_of_urls_are_redacted() {
        let cases = [
            ("postgres://h/d?sslmode=require", None),
            ("what?password=1", None),
            (
                "postgres://h/d?a=b&password=p&c",
                Some("postgres://h/d?a=b&password=[redacted]&c"),
            ),
            (
                "https://h/?Api_Key=p",
                Some("https://h/?Api_Key=[redacted]"),
            ),
        ];
        for (text, expected) in cases {
            let redacted = without_secret_parameters(text);
            assert_eq!(redacted.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn passwords_in_urls_are_redacted() {
        let cases = [
            ("nats://127.0.0.1:4222", None),
            ("nats://a:b@h:1/x", Some("nats://a:[redacted]@h:1/x")),
            ("nats://token@h", Some("nats://[redacted]@h")),
            ("postgres://a:p@ss@h/d", Some("postgres://a:[redacted]@h/d")),
            ("nats://h/a:b@c", None),
        ];
        for (text, expected) in cases {
            assert_eq!(without_password(text).as_deref(), expected, "{text}");
        }
    }
}
