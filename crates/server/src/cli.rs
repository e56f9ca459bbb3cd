//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use edge::auth::Pattern;
use protocol::UserId;

/// Delivers messages to web and mobile clients and never loses one.
#[derive(Debug, Parser)]
#[command(name = "rejoin", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an edge.
    Serve(ServeArgs),
    /// Move streams into Postgres, without an edge.
    Archive(ArchiveArgs),
    /// Make a user's token, for development.
    Token(TokenArgs),
    /// Find out whether this configuration would run well.
    Check(CheckArgs),
    /// Run a demonstration: NATS, Postgres, two edges behind a proxy, and a
    /// page. Ctrl-C ends everything.
    Dev(DevArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A TOML file. Variables of the environment go over it:
    /// REJOIN_EDGE__LIMITS__PING_MS=20000 sets edge.limits.ping_ms.
    #[arg(long, env = "REJOIN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `rejoin serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the configuration in effect as TOML, without secrets, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// `rejoin archive`.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `rejoin token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Where the configuration comes from; its first HS256 key signs.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Whose token: `[A-Za-z0-9_-]{1,64}`.
    #[arg(long)]
    pub user: UserId,
    /// A channel (room:1) or namespace (topic:*) to read; may be repeated.
    /// The user's own inbox is always included.
    #[arg(long, value_name = "PATTERN")]
    pub subscribe: Vec<Pattern>,
    /// A channel or namespace to publish to; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub publish: Vec<Pattern>,
    /// How long it is valid: a number and s, m, h or d.
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    pub ttl: Duration,
    /// The id by which it can be revoked.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

/// `rejoin check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The monitoring address of a nats-server (its `http` setting), to find
    /// out whether it writes to the disk before it acknowledges. May be
    /// repeated for each server of a cluster.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub nats_monitor: Vec<String>,
    /// Compare the archive with what the streams still hold, message by
    /// message. Reads both: not for a busy hour.
    #[arg(long)]
    pub archive: bool,
}

/// `rejoin dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The proxy's port; a free one is taken when it is not free.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// How many edges, 1 to 16.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub edges: u8,
    /// Keep data here, and find it again the next time. Without it, data is
    /// temporary.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Do without Postgres: no archive, no rooms.
    #[arg(long)]
    pub no_postgres: bool,
}

/// A number and a unit: `90s`, `15m`, `1h`, `30d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and s, m, h or d, like 15m".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds_per_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(expected()),
    };
    let number: u32 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| expected())?;
    Ok(Duration::from_secs(u64::from(number) * seconds_per_unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "h", "1", "1w", "-1h", "1.5h", "1é", "4294967296s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
