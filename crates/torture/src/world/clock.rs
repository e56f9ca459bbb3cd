//! Clocks of edges that can be set: libfaketime between the process and its clock.

use std::fs;
use std::path::{Path, PathBuf};

use devstack::ProcessSpec;

/// The clock of one process. Only the time of day is faked: what measures durations goes on.
pub(crate) struct Clock {
    /// How far it is off; the library reads this every second.
    offset: PathBuf,
}

/// The library where Debian's package `libfaketime` puts it, or at `TORTURE_FAKETIME`.
pub(crate) fn faketime() -> Option<PathBuf> {
    if let Some(library) = std::env::var_os("TORTURE_FAKETIME") {
        return Some(library.into());
    }
    let folders = fs::read_dir("/usr/lib").ok()?;
    let libraries = folders.filter_map(|folder| {
        let folder = folder.ok()?.path();
        Some(folder.join("faketime").join("libfaketimeMT.so.1"))
    });
    libraries.into_iter().find(|it| it.exists())
}

impl Clock {
    pub(super) fn new(config: &Path, name: &str) -> std::io::Result<Self> {
        let offset = config.with_file_name(format!("{name}.clock"));
        let clock = Self { offset };
        clock.set(0)?;
        Ok(clock)
    }

    pub(super) fn faked(&self, library: &Path, spec: ProcessSpec) -> ProcessSpec {
        spec.env("LD_PRELOAD", library.display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string())
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_CACHE_DURATION", "1")
    }

    /// Jumps to this many seconds before or behind the real time, within a second.
    pub(crate) fn set(&self, seconds: i64) -> std::io::Result<()> {
        // Renamed into place, so that nobody reads half of it.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{seconds:+}s\n"))?;
        fs::rename(new, &self.offset)
    }
}
