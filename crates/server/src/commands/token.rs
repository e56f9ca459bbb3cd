//! `rejoin token`: a user's token, for development.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use edge::auth::token::ChannelClaims;
use edge::auth::{Claims, mint, unix_now_s};

use crate::cli::TokenArgs;
use crate::commands;

/// Prints a token signed with the configuration's first HS256 key.
pub fn run(arguments: &TokenArgs) -> anyhow::Result<ExitCode> {
    let config = commands::load(&arguments.config)?;
    let auth = &config.edge.auth;
    let now_s = unix_now_s();
    let claims = Claims {
        sub: arguments.user.clone(),
        exp: now_s.saturating_add(arguments.ttl.as_secs()),
        iat: Some(now_s),
        nbf: None,
        jti: arguments.id.clone(),
        iss: auth.issuer.clone(),
        aud: auth.audience.clone(),
        rejoin: ChannelClaims {
            subscribe: arguments.subscribe.clone(),
            publish: arguments.publish.clone(),
        },
    };
    let token = mint(auth, &claims).context("edge.auth")?;
    writeln!(std::io::stdout(), "{}", token.expose())?;
    Ok(ExitCode::SUCCESS)
}
