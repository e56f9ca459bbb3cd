//! `rejoin`: durable messages to web and mobile clients.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use server::cli::{Cli, Command};
use server::{commands, dev};

/// The life of the process: read the command line, run one command, exit
/// with its verdict. What `serve` does in between stands in
/// `server::commands::serve`.
#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(arguments) => commands::serve::run(arguments).await,
        Command::Archive(arguments) => commands::archive::run(arguments).await,
        Command::Token(arguments) => commands::token::run(&arguments),
        Command::Check(arguments) => commands::check::run(arguments).await,
        Command::Dev(arguments) => dev::run(arguments).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // With its causes, in one line; nothing is left to do if stderr
            // is closed.
            let _ = writeln!(std::io::stderr(), "rejoin: {error:#}");
            ExitCode::FAILURE
        }
    }
}
