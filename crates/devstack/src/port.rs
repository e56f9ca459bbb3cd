//! Ports that stay ours between a server's death and its restart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rand::Rng;

/// Ports are taken from below the range that Linux (32768) and macOS (49152) give to outgoing connections. Inside that
/// range a client that reconnects to a stopped server can be given the server's own port as its source and take it.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Random picks before giving up; with 22,000 ports, failing this often means that something else is wrong.
const ATTEMPTS: u32 = 500;

/// A free TCP port on 127.0.0.1 that no other process using this crate takes while the lease lives, also
/// while nothing listens on it.
#[derive(Debug)]
pub struct PortLease {
    port: u16,
    // The lock is on the open file: it goes with the process, however that ends.
    _lock: File,
}

impl PortLease {
    /// Leases a random free port.
    ///
    /// # Errors
    /// When the lock folder cannot be written, or no port is free.
    pub fn take() -> io::Result<Self> {
        let folder = lock_folder()?;
        let mut random = rand::rng();
        for _ in 0..ATTEMPTS {
            if let Some(lease) = Self::attempt(&folder, random.random_range(RANGE))? {
                return Ok(lease);
            }
        }
        Err(in_use("no free port found on 127.0.0.1".to_owned()))
    }

    /// Leases this very port.
    ///
    /// # Errors
    /// `AddrInUse` when it is not free, and when the lock folder cannot be written.
    pub fn at(port: u16) -> io::Result<Self> {
        Self::attempt(&lock_folder()?, port)?
            .ok_or_else(|| in_use(format!("port {port} is in use")))
    }

    fn attempt(folder: &Path, port: u16) -> io::Result<Option<Self>> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(port.to_string()))?;
        // Two tests of the bind: a program that is not ours may listen on every address.
        let free = lock.try_lock().is_ok()
            && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        Ok(free.then_some(Self { port, _lock: lock }))
    }

    /// The port's number.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }
}

/// Per user, as another user's lock files cannot be opened.
fn lock_folder() -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("rejoin-ports-{uid}"));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn in_use(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_port_is_given_to_nobody_else_until_it_is_dropped() {
        let lease = PortLease::take().unwrap();
        let refused = PortLease::at(lease.port()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let port = lease.port();
        drop(lease);
        assert_eq!(PortLease::at(port).unwrap().port(), port);
    }

    #[test]
    fn a_port_on_which_somebody_listens_is_not_leased() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = PortLease::at(listener.local_addr().unwrap().port()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
