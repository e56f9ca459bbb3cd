//! Postgres' server programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Progress, command::run, exclusively, on_path, version_in};
use crate::error::GetToolError;

/// The oldest major version that Rejoin works with.
const MIN_MAJOR: u32 = 15;
const VERSION_CHECK: Duration = Duration::from_secs(10);
/// Package lists and some 50 MB.
const INSTALL: Duration = Duration::from_secs(600);

/// Folders in which packages put one folder per version, with the programs in its `bin`.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql", // Debian, Ubuntu
    "/usr",                // Fedora's /usr/pgsql-17
    "/opt/homebrew/opt",   // Homebrew on Apple processors
    "/usr/local/opt",      // Homebrew on Intel
    "/usr/local",          // built from source: /usr/local/pgsql
    "/Applications/Postgres.app/Contents/Versions",
];

pub(super) fn bin(progress: &Progress) -> Result<PathBuf, GetToolError> {
    if let Some(found) = find() {
        return Ok(found);
    }
    exclusively("postgres", |_| {
        if let Some(found) = find() {
            return Ok(found);
        }
        let advice = format!(
            "Postgres {MIN_MAJOR} or newer is needed (its server programs; no running server). Install it, for \
             example with `apt-get install postgresql`, `dnf install postgresql-server` or `brew install postgresql@17`"
        );
        if on_path("apt-get").next().is_none() || !rustix::process::geteuid().is_root() {
            return Err(GetToolError::Unavailable(advice));
        }
        progress("Postgres: installing it with apt-get");
        install_with_apt().map_err(|reason| {
            GetToolError::Unavailable(format!("{advice}. Tried apt-get: {reason}"))
        })?;
        let found = find().ok_or_else(|| {
            GetToolError::Unavailable(format!("{advice}. The one that apt-get installed is older"))
        })?;
        progress(&format!("Postgres: installed in {}", found.display()));
        Ok(found)
    })
}

/// Installs the programs without the cluster that Debian's package otherwise makes and starts.
fn install_with_apt() -> Result<(), String> {
    let apt = |args: &[&str]| {
        run(
            Command::new("apt-get")
                .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
                .args(args)
                .env("DEBIAN_FRONTEND", "noninteractive"),
            INSTALL,
        )
    };
    apt(&["update"])?;
    apt(&[
        "install",
        "-y",
        "--no-install-recommends",
        "postgresql-common",
    ])?;
    let setting = Path::new("/etc/postgresql-common/createcluster.d/rejoin-devstack.conf");
    let io = |error: std::io::Error| format!("{}: {error}", setting.display());
    fs::create_dir_all("/etc/postgresql-common/createcluster.d").map_err(io)?;
    fs::write(setting, "create_main_cluster = false\n").map_err(io)?;
    let installed = apt(&["install", "-y", "--no-install-recommends", "postgresql"]);
    // The machine's owner decides about later installations.
    fs::remove_file(setting).map_err(io)?;
    installed.map(drop)
}

/// The newest complete set of programs: on PATH (followed to where it really is) or in a package's folder.
fn find() -> Option<PathBuf> {
    let on_path = on_path("postgres")
        .filter_map(|file| Some(fs::canonicalize(file).ok()?.parent()?.to_path_buf()));
    let in_places = PLACES.iter().flat_map(|root| {
        let entries = fs::read_dir(root).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path().join("bin")))
    });
    on_path
        .chain(in_places)
        .filter(|bin| {
            ["postgres", "initdb", "psql"]
                .iter()
                .all(|name| bin.join(name).is_file())
        })
        .filter_map(|bin| Some((major_version(&bin)?, bin)))
        .filter(|(major, _)| *major >= MIN_MAJOR)
        .max_by_key(|(major, _)| *major)
        .map(|(_, bin)| bin)
}

/// The major version of the server in a folder of programs.
pub(crate) fn major_version(bin: &Path) -> Option<u32> {
    let text = run(
        Command::new(bin.join("postgres")).arg("--version"),
        VERSION_CHECK,
    )
    .ok()?;
    version_in(&text).map(|(major, _, _)| major)
}
