use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn load(toml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(file.path()), variables)
}

fn refused(toml: &str, variables: &[(&str, &str)]) -> String {
    load(toml, variables).unwrap_err().to_string()
}

#[test]
fn nothing_set_gives_the_defaults_and_a_name() {
    let config = Config::load(None, []).unwrap();
    assert!(!config.edge.name.is_empty());
    assert_eq!(config.backplane.edge, config.edge.name);
    assert_eq!(config.edge.limits, EdgeConfig::default().limits);
}

#[test]
fn the_environment_goes_over_the_file() {
    let toml = "[edge]\nname = \"from-file\"\n[edge.limits]\nping_ms = 20000\nsubscriptions = 5\n";
    let variables = [
        ("REJOIN_EDGE__NAME", "from-environment"),
        ("REJOIN_EDGE__LIMITS__PING_MS", "30000"),
        ("REJOIN_EDGE__LISTEN__ADDRESS", "127.0.0.1:9000"),
        ("REJOIN_BACKPLANE__URLS", "[\"nats://a:1\", \"nats://b:2\"]"),
        ("REJOIN_EDGE__DEV", "true"),
        ("PATH", "/bin"),
        ("REJOIN_CONFIG", "ignored"),
    ];
    let config = load(toml, &variables).unwrap();
    assert_eq!(config.edge.name, "from-environment");
    assert_eq!(config.edge.limits.ping_ms, 30_000);
    assert_eq!(config.edge.limits.subscriptions, 5);
    assert_eq!(config.edge.listen.address.port(), 9_000);
    assert_eq!(config.backplane.urls, ["nats://a:1", "nats://b:2"]);
    assert!(config.edge.dev);
}

#[test]
fn a_text_of_digits_stays_a_text() {
    let variables = [
        ("REJOIN_EDGE__NAME", "0042"),
        ("REJOIN_BACKPLANE__AUTH__PASSWORD", "007"),
        ("REJOIN_EDGE__AUTH__ISSUER", "1.0"),
    ];
    let config = load("", &variables).unwrap();
    assert_eq!(config.edge.name, "0042");
    assert_eq!(config.backplane.auth.password.as_deref(), Some("007"));
    assert_eq!(config.edge.auth.issuer.as_deref(), Some("1.0"));
}

#[test]
fn keys_can_come_from_the_environment() {
    let keys = format!("[{{alg = \"HS256\", secret = \"{SECRET}\"}}]");
    let config = load("", &[("REJOIN_EDGE__AUTH__KEYS", &keys)]).unwrap();
    let secret = config.edge.auth.keys[0].secret.as_ref().unwrap();
    assert_eq!(secret.expose(), SECRET);
}

#[test]
fn an_unknown_key_is_named() {
    let message = refused("[edge.limits]\nping_msec = 1\n", &[]);
    assert!(message.contains("ping_msec"), "{message}");
    assert!(message.contains("edge.limits"), "{message}");
    let message = refused("", &[("REJOIN_EDGE__LIMITS__PINGMS", "1")]);
    assert!(message.contains("pingms"), "{message}");
    let message = refused("[egde]\n", &[]);
    assert!(message.contains("egde"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_source() {
    let message = refused("[edge.limits]\nping_ms = \"soon\"\n", &[]);
    assert!(message.contains("edge.limits.ping_ms"), "{message}");
    let message = refused("", &[("REJOIN_EDGE__LIMITS__PING_MS", "soon")]);
    assert!(
        message.contains("REJOIN_EDGE__LIMITS__PING_MS"),
        "{message}"
    );
    let message = refused("", &[("REJOIN_EDGE__LISTEN__ADDRESS", "localhost")]);
    assert!(message.contains("edge.listen.address"), "{message}");
    let message = refused("[[edge.auth.keys]]\nalg = \"none\"\nsecret = \"x\"\n", &[]);
    assert!(message.contains("edge.auth.keys"), "{message}");
}

#[test]
fn a_value_out_of_bounds_is_named() {
    let message = refused("[edge.limits]\nping_ms = 60000\n", &[]);
    assert!(message.starts_with("edge.limits.ping_ms: "), "{message}");
    let message = refused("[backplane]\nshards = 0\n", &[]);
    assert!(message.starts_with("backplane.shards: "), "{message}");
    let message = refused("[log]\nfilter = \"=,=\"\n", &[]);
    assert!(message.starts_with("log.filter: "), "{message}");
}

#[test]
fn a_single_underscore_is_not_ignored() {
    let message = refused("", &[("REJOIN_EDGE_NAME", "x")]);
    assert!(message.contains("REJOIN_EDGE_NAME"), "{message}");
    assert!(message.contains("two underscores"), "{message}");
}

#[test]
fn a_missing_file_and_bad_toml_are_told() {
    let missing = Config::load(Some(Path::new("/nonexistent/rejoin.toml")), []).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/rejoin.toml"));
    let message = refused("[edge\n", &[]);
    assert!(message.contains("line 1"), "{message}");
}

/// Every place in the configuration where a secret can stand.
fn with_secrets_everywhere() -> String {
    format!(
        "[trace]\nendpoint = \"http://u:{SECRET}@h/v1/traces?token={SECRET}\"\n\
         [edge]\nname = \"e\"\n\
         [edge.dev_controls]\nurl = \"http://127.0.0.1:1\"\ntoken = \"{SECRET}\"\napi_key = \"{SECRET}\"\n\
         [[edge.auth.keys]]\nalg = \"HS256\"\nsecret = \"{SECRET}\"\n\
         [edge.auth.ticket_key]\nalg = \"HS256\"\nsecret = \"{SECRET}\"\n\
         [edge.auth.jwks]\nurl = \"https://u:{SECRET}@h/keys?key={SECRET}\"\n\
         [edge.auth.authorizer]\nurl = \"https://u:{SECRET}@h/?api_key={SECRET}\"\nsecret = \"{SECRET}\"\n\
         [store]\nurl = \"postgres://u:{SECRET}@h/d?password={SECRET}\"\n\
         [backplane]\nurls = [\"nats://u:{SECRET}@h:1\", \"nats://{SECRET}@h:1\"]\n\
         [backplane.auth]\nuser = \"u\"\npassword = \"{SECRET}\"\ntoken = \"{SECRET}\"\n\
         nkey_seed = \"{SECRET}\"\n"
    )
}

#[test]
fn the_printed_configuration_has_no_secrets_and_can_be_read_again() {
    let text = with_secrets_everywhere();
    let config = load(&text, &[]).unwrap();
    let printed = print::as_toml(&config).unwrap();
    assert!(!printed.contains(SECRET), "{printed}");
    // Nothing was left out instead.
    assert_eq!(
        printed.matches("[redacted]").count(),
        text.matches(SECRET).count(),
        "{printed}"
    );
    let again = toml::from_str::<Config>(&printed).unwrap();
    assert_eq!(again.edge.limits, config.edge.limits);
    assert_eq!(again.backplane.auth.user.as_deref(), Some("u"));
}

#[test]
fn an_error_about_a_secret_does_not_quote_it() {
    for (section, field) in [
        ("backplane.auth", "password"),
        ("backplane.auth", "token"),
        ("backplane.auth", "nkey_seed"),
        ("edge.auth.ticket_key", "secret"),
    ] {
        let message = refused(&format!("[{section}]\n{field} = 271828182845\n"), &[]);
        assert!(message.contains(field), "{message}");
        assert!(!message.contains("271828"), "{message}");
    }
}
