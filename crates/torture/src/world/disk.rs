//! Small file systems that can be filled, and one whose power can be cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

/// A file system of its own, mounted at a folder.
pub(crate) struct Disk {
    folder: PathBuf,
    /// The file that it is in, if it is not in memory.
    image: Option<PathBuf>,
}

/// Whether this process may mount file systems: as root, and not in every container.
pub(crate) fn may_mount() -> bool {
    let Ok(folder) = tempfile::Builder::new().prefix("rejoin-torture-").tempdir() else {
        return false;
    };
    // Unmounted by its drop, before the folder goes.
    Disk::memory(&folder.path().join("probe"), 1).is_ok()
}

impl Disk {
    /// A file system in memory.
    pub(crate) fn memory(folder: &Path, mb: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let options = format!("size={mb}m,mode=0755");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs", text(folder)?],
        )?;
        Ok(Self {
            folder: folder.to_path_buf(),
            image: None,
        })
    }

    /// ext4 in a file. What a program has not synced is in the memory of this machine only, and the file does not have it.
    pub(crate) fn image(folder: &Path, mb: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let image = folder.with_extension("ext4");
        File::create(&image)?.set_len(u64::from(mb) * 1024 * 1024)?;
        run("mkfs.ext4", &["-q", "-F", text(&image)?])?;
        mount_image(&image, folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            image: Some(image),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = File::create(self.ballast())?;
        let mut piece = vec![0_u8; 1024 * 1024];
        while !piece.is_empty() {
            // Full: the rest is filled with smaller pieces.
            if ballast.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Everything that was written until now is on the disk when this returns.
    pub(crate) fn sync(&self) -> anyhow::Result<()> {
        run("sync", &["-f", text(&self.folder)?])
    }

    /// A copy of what has really reached the disk by now: what would be there after the power was cut at this moment.
    pub(crate) fn snapshot(&self) -> anyhow::Result<PathBuf> {
        let image = self.image.as_ref().context("the disk is in memory")?;
        let copy = image.with_extension("cut");
        run("cp", &["--sparse=always", text(image)?, text(&copy)?])?;
        Ok(copy)
    }

    /// Goes on with a snapshot. Nothing may run on the disk.
    pub(crate) async fn restore(&mut self, snapshot: &Path) -> anyhow::Result<()> {
        let image = self.image.clone().context("the disk is in memory")?;
        // The dead process's watchdog may still be about to leave.
        let mut tries = 0;
        while let Err(error) = run("umount", &[text(&self.folder)?]) {
            tries += 1;
            ensure!(tries < 50, "{error:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fs::rename(snapshot, &image)?;
        // The journal is replayed, as after a real one.
        mount_image(&image, &self.folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(folder) = text(&self.folder) {
            // Lazily, as a process that is about to be killed may still be in it.
            let _gone = run("umount", &["-l", folder]);
        }
    }
}

fn mount_image(image: &Path, folder: &Path) -> anyhow::Result<()> {
    run("mount", &["-o", "loop", text(image)?, text(folder)?])
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not text")
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| program.to_owned())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {error}");
    Ok(())
}
