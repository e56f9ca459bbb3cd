//! Programs out of Debian's packages that only some tests need, unpacked into the tools folder: nothing is installed,
//! no service is started, and nobody has to be root.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Progress, command::run, exclusively, on_path};
use crate::error::GetToolError;

/// Some 20 MB at the most.
const DOWNLOAD: Duration = Duration::from_secs(120);

/// `program` on PATH, or out of `package`, in which it is `path`.
pub(super) fn program(
    program: &str,
    package: &str,
    path: &str,
    progress: &Progress,
) -> Result<PathBuf, GetToolError> {
    if let Some(found) = on_path(program).next() {
        return Ok(found);
    }
    exclusively(program, |folder| {
        let target = folder.join(program);
        if target.is_file() {
            return Ok(target);
        }
        progress(&format!("{program}: unpacking Debian's package {package}"));
        let work = tempfile::Builder::new()
            .prefix(".get-")
            .tempdir_in(folder)?;
        let get = |work: &std::path::Path| -> Result<PathBuf, String> {
            let download = || {
                let mut command = Command::new("apt-get");
                command
                    .args(["download", "--quiet", package])
                    .current_dir(work);
                run(&mut command, DOWNLOAD)
            };
            // A machine that never asked has no list of packages, which only root can get.
            if download().is_err() {
                run(
                    Command::new("apt-get").args(["update", "--quiet"]),
                    DOWNLOAD,
                )?;
                download()?;
            }
            let entries = fs::read_dir(work).map_err(|error| error.to_string())?;
            let file = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
                .ok_or("apt-get downloaded no package")?;
            let tree = work.join("tree");
            run(
                Command::new("dpkg").arg("-x").arg(&file).arg(&tree),
                DOWNLOAD,
            )?;
            Ok(tree.join(path))
        };
        let unpacked = get(work.path()).map_err(|error| {
            GetToolError::Unavailable(format!(
                "{program} is not on PATH, and Debian's package {package} cannot be had here: {error}"
            ))
        })?;
        fs::rename(unpacked, &target)?;
        Ok(target)
    })
}
