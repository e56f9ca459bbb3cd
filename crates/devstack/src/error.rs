//! Why a tool could not be had, or a server could not be started.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// A tool is neither on this machine nor could it be installed.
#[derive(Debug, thiserror::Error)]
pub enum GetToolError {
    /// Nothing suitable was found and every way to get it failed. The text names each way, why it failed, and what
    /// a person can install instead.
    #[error("{0}")]
    Unavailable(String),
    /// A downloaded file is not the one that was pinned; it was not installed.
    #[error("{file} has SHA-256 {actual}, expected {expected}; refusing to install it")]
    Checksum {
        /// The downloaded file's name.
        file: String,
        /// The pinned digest, hexadecimal.
        expected: String,
        /// The file's digest, hexadecimal.
        actual: String,
    },
    /// The tools folder could not be read or written.
    #[error("tools folder: {0}")]
    Io(#[from] io::Error),
}

/// A server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's program is missing.
    #[error(transparent)]
    Tool(#[from] GetToolError),
    /// The server ended before it was ready; the end of its log says why.
    #[error("{name} ended with {status} before it was ready; end of its log:\n{log}")]
    Exited {
        /// Which server.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it logged.
        log: String,
    },
    /// The server runs but was not ready within the deadline.
    #[error("{name} was not ready after {seconds} s; end of its log:\n{log}")]
    NotReady {
        /// Which server.
        name: String,
        /// The deadline, in seconds.
        seconds: u64,
        /// The last lines that it logged.
        log: String,
    },
    /// A helper program (initdb, psql) failed.
    #[error("{program} failed: {output}")]
    Helper {
        /// Which program.
        program: String,
        /// What it printed.
        output: String,
    },
    /// The data folder cannot be used as it is.
    #[error("data folder {path}: {reason}", path = path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}
