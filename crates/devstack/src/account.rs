//! The unprivileged account that Postgres runs under when we are root, which it refuses to be.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account to run Postgres under: none (our own) unless we are root, then `postgres`, else `nobody`.
    pub(crate) fn for_postgres() -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(Self::named)
            .map(Some)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "Postgres refuses to run as root, and there is no user `postgres` or `nobody`",
                )
            })
    }

    fn named(name: &str) -> Option<Self> {
        Some(Self {
            uid: id_of("-u", name)?,
            gid: id_of("-g", name)?,
        })
    }

    /// Gives a file or folder to the account.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }
}

fn id_of(flag: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, name]).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Copies a folder with everything in it; each copy belongs to `owner` and is private to it.
pub(crate) fn copy_private(from: &Path, to: &Path, owner: Option<Account>) -> io::Result<()> {
    make_private_dir(to, owner)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_private(&entry.path(), &target, owner)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
            if let Some(owner) = owner {
                owner.own(&target)?;
            }
        }
    }
    Ok(())
}

/// Makes a folder (it may exist) that only `owner` may enter.
pub(crate) fn make_private_dir(path: &Path, owner: Option<Account>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    if let Some(owner) = owner {
        owner.own(path)?;
    }
    Ok(())
}
