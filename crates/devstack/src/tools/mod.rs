//! The programs that the stack is made of: found on this machine, or installed into the project's own folder.
//!
//! The folder is `$REJOIN_TOOLS_DIR`, else `.tools` at the root of the checkout. Installing is atomic (a finished file is
//! renamed into place) and exclusive (a lock file), so parallel test binaries install once.

mod command;
mod debian;
mod nats;
mod postgres;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::GetToolError;

pub(crate) use command::run;
pub(crate) use postgres::major_version;

/// Where lines about long steps go. A line has no newline at its end.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A [`Progress`] that drops every line.
#[must_use]
pub fn silent() -> Progress {
    Arc::new(|_| {})
}

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// nats-server, 2.12.6 or newer.
    pub nats_server: PathBuf,
    /// The folder of Postgres' server and client programs, 15 or newer.
    pub postgres_bin: PathBuf,
    /// The `nats` command line client, where it is at hand: nothing here needs it, people do.
    pub nats_cli: Option<PathBuf>,
}

impl Tools {
    /// Finds the servers or installs them. The `nats` client is only looked for; [`Self::nats_cli`] installs it.
    /// Blocks: from nothing when all are there, up to minutes.
    ///
    /// # Errors
    /// When a server is missing and could not be installed.
    pub fn locate_or_install(progress: &Progress) -> Result<Self, GetToolError> {
        Ok(Self {
            nats_server: Self::nats_server(progress)?,
            postgres_bin: Self::postgres_bin(progress)?,
            nats_cli: nats::find_cli(),
        })
    }

    /// nats-server alone; see [`Self::locate_or_install`]. The answer is remembered for this process.
    ///
    /// # Errors
    /// When it is missing and could not be installed.
    pub fn nats_server(progress: &Progress) -> Result<PathBuf, GetToolError> {
        static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
        remember(&FOUND, || nats::server(progress))
    }

    /// The folder of Postgres' programs alone; see [`Self::locate_or_install`]. The answer is remembered for this
    /// process.
    ///
    /// # Errors
    /// When it is missing and could not be installed.
    pub fn postgres_bin(progress: &Progress) -> Result<PathBuf, GetToolError> {
        static FOUND: Mutex<Option<PathBuf>> = Mutex::new(None);
        remember(&FOUND, || postgres::bin(progress))
    }

    /// A program that only some tests need: on PATH, or unpacked from one of Debian's packages, in which it is `path`.
    ///
    /// # Errors
    /// When it is missing and this is no Debian, or the package cannot be had. Callers skip what needs it, and say so.
    pub fn debian_program(
        program: &str,
        package: &str,
        path: &str,
        progress: &Progress,
    ) -> Result<PathBuf, GetToolError> {
        debian::program(program, package, path, progress)
    }

    /// The `nats` client, built with Go when it is not there (a minute or two).
    ///
    /// # Errors
    /// When it is missing and there is no Go, or the build failed. The text says what to install.
    pub fn nats_cli(progress: &Progress) -> Result<PathBuf, GetToolError> {
        nats::cli(progress)
    }
}

/// Looks once per process. A failure is not remembered; callers meanwhile wait, as they need the same answer.
fn remember(
    cell: &Mutex<Option<PathBuf>>,
    look: impl FnOnce() -> Result<PathBuf, GetToolError>,
) -> Result<PathBuf, GetToolError> {
    let mut found = cell.lock();
    if let Some(path) = &*found {
        return Ok(path.clone());
    }
    let path = look()?;
    *found = Some(path.clone());
    Ok(path)
}

/// The project's own tools folder.
pub(crate) fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("REJOIN_TOOLS_DIR").filter(|value| !value.is_empty())
        {
            return std::path::absolute(&folder).unwrap_or_else(|_| folder.into());
        }
        // The checkout that this was built in; a binary that was carried elsewhere uses the temporary folder.
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .filter(|root| root.join("Cargo.toml").exists())
            .map_or_else(
                || std::env::temp_dir().join("rejoin-tools"),
                |root| root.join(".tools"),
            )
    })
}

/// Holds the tools folder's lock called `name` while `work` runs. Other processes wait.
pub(crate) fn exclusively<T, E: From<io::Error>>(
    name: &str,
    work: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let folder = folder();
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join(format!(".{name}.lock")))?;
    lock.lock()?;
    work(folder)
}

/// Every program called `name` on PATH, in order.
fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .filter(|file| file.is_file())
        .collect::<Vec<_>>()
        .into_iter()
}

/// The first `major.minor.patch` in a text; parts that are missing count as 0.
fn version_in(text: &str) -> Option<(u32, u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let number = text[start..]
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
    Some((
        parts.next()?,
        parts.next().unwrap_or(0),
        parts.next().unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_print() {
        assert_eq!(version_in("nats-server: v2.15.1"), Some((2, 15, 1)));
        assert_eq!(version_in("v2.12.6-RC.1"), Some((2, 12, 6)));
        assert_eq!(
            version_in("postgres (PostgreSQL) 15.14 (Debian 15.14-0)"),
            Some((15, 14, 0))
        );
        assert_eq!(
            version_in("postgres (PostgreSQL) 18beta1"),
            Some((18, 0, 0))
        );
        assert_eq!(version_in("no number"), None);
    }
}
