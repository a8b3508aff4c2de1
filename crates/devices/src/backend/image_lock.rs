//! Advisory locks on image files that QEMU and its tools understand: open-file-description read locks on
//! byte 100 + n "I use permission n" and byte 200 + n "I do not share permission n"
//! (QEMU `block/file-posix.c`, `docs/devel/` "image locking").

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use std::{fs::File, io};

const USES_BASE: i64 = 100;
const REFUSES_BASE: i64 = 200;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// What exclusive use looks like: others may neither write nor resize.
const REFUSES: &[i64] = &[WRITE, RESIZE];

/// How locking an image ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Held until the file is closed.
    Held,
    /// The file system has no such locks.
    Unavailable,
    /// Somebody has it open for this.
    Conflict(&'static str),
}

/// Locks `file` for writing (nobody else may read or write through locks) or for reading (nobody may write).
/// The lock lives as long as any descriptor of the same open file.
pub(crate) fn lock(file: &File, writable: bool) -> io::Result<Lock> {
    let uses: &[i64] = if writable { &[CONSISTENT_READ, WRITE, RESIZE] } else { &[CONSISTENT_READ] };
    let wanted = uses.iter().map(|n| USES_BASE + n).chain(REFUSES.iter().map(|n| REFUSES_BASE + n));
    for byte in wanted {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_RDLCK, byte))) {
            Ok(_) => {}
            Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP) => return Ok(Lock::Unavailable),
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(Lock::Conflict("exclusive use")),
            Err(e) => return Err(e.into()),
        }
    }
    // Everybody announces first and looks second, so of two that come together at least one sees the other.
    for &n in REFUSES {
        if is_held(file, USES_BASE + n)? {
            return Ok(Lock::Conflict("writing"));
        }
    }
    for &n in uses {
        if is_held(file, REFUSES_BASE + n)? {
            return Ok(Lock::Conflict(if writable { "reading or writing" } else { "exclusive use" }));
        }
    }
    Ok(Lock::Held)
}

/// What somebody has `file` open for, if it is for more than looking at it.
pub(crate) fn user(file: &File) -> io::Result<Option<&'static str>> {
    let held = |n| match is_held(file, n) {
        Ok(held) => Ok(held),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP)) => {
            Ok(false)
        }
        Err(e) => Err(e),
    };
    Ok(if held(USES_BASE + WRITE)? {
        Some("writing")
    } else if held(USES_BASE + CONSISTENT_READ)? {
        Some("reading")
    } else {
        None
    })
}

fn byte_lock(kind: libc::c_int, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

/// Does another open file hold a lock on `byte`?
fn is_held(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (first, second) = (open(), open());
        assert_eq!(lock(&first, false).unwrap(), Lock::Held);
        assert_eq!(lock(&second, false).unwrap(), Lock::Held);
        let third = open();
        assert_eq!(lock(&third, true).unwrap(), Lock::Conflict("reading or writing"));
        drop((first, second, third));
        let writer = open();
        assert_eq!(lock(&writer, true).unwrap(), Lock::Held);
        assert_eq!(lock(&open(), false).unwrap(), Lock::Conflict("writing"));
        assert_eq!(lock(&open(), true).unwrap(), Lock::Conflict("writing"));
        drop(writer);
        assert_eq!(lock(&open(), true).unwrap(), Lock::Held);
    }
}
