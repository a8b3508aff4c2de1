//! The only ways from one descriptor to another: one name below a directory, or the file behind a descriptor itself.
//!
//! A name has no slash and is neither `.` nor `..`, and no symbolic link is ever followed, so nothing outside the
//! share can be reached, whatever the guest or another program on the host does meanwhile. `openat2` with
//! `RESOLVE_BENEATH` says the same once more where the host has it.

use rustix::{
    fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::CStr,
    fmt::Write as _,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

/// Longest name of a directory entry, in bytes (Linux, `NAME_MAX`).
pub(super) const NAME_MAX: usize = 255;

/// The host has no `openat2`, or a filter forbids it.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Refuses what is not the name of one directory entry.
pub(super) fn check_name(name: &CStr) -> Result<(), Errno> {
    match name.to_bytes() {
        b"" => Err(Errno::NOENT),
        b"." | b".." => Err(Errno::INVAL),
        name if name.contains(&b'/') => Err(Errno::INVAL),
        name if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
        _ => Ok(()),
    }
}

/// A path descriptor of entry `name` of `dir`; of a symbolic link, its own.
pub(super) fn open_entry(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    open_beneath(dir, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens `name` below `dir`. The caller has checked the name and says `NOFOLLOW`, or `CREATE` with `EXCL`.
pub(super) fn open_beneath(dir: impl AsFd, name: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(dir.as_fd(), name, flags, mode, resolve) {
            // A filter may answer with EPERM; if the file system did, the next call does too.
            Err(Errno::NOSYS | Errno::PERM) => {}
            // A rename elsewhere made the kernel unsure.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    let opened = fs::openat(dir, name, flags, mode);
    if opened.is_ok() && !NO_OPENAT2.load(Ordering::Relaxed) && !has_openat2() {
        NO_OPENAT2.store(true, Ordering::Relaxed);
    }
    opened
}

fn has_openat2() -> bool {
    let probe = fs::openat2(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty());
    !matches!(probe, Err(Errno::NOSYS | Errno::PERM))
}

/// `/proc/self/fd`, through which a path descriptor's own file is reached by calls that take no such descriptor.
#[derive(Debug)]
pub(super) struct ProcFds(OwnedFd);

/// A descriptor's name in [`ProcFds`].
pub(super) struct FdName {
    text: [u8; 16],
    len: usize,
}

impl ProcFds {
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::openat(CWD, c"/proc/self/fd", flags, Mode::empty())?))
    }

    /// The directory of descriptors.
    pub(super) fn dir(&self) -> &OwnedFd {
        &self.0
    }

    /// Opens the file behind a path descriptor of a regular file or directory anew.
    pub(super) fn reopen(&self, fd: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags.difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL) | OFlags::CLOEXEC;
        fs::openat(&self.0, FdName::of(fd).name(), flags, Mode::empty())
    }
}

impl FdName {
    pub(super) fn of(fd: impl AsFd) -> Self {
        let mut name = Self { text: [0; 16], len: 0 };
        // Eleven bytes at most.
        let _ = write!(name, "{}", fd.as_fd().as_raw_fd());
        name
    }

    /// Relative to [`ProcFds::dir`].
    pub(super) fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).unwrap_or(c"")
    }
}

impl std::fmt::Write for FdName {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        // One byte stays zero.
        let room = self.text.get_mut(self.len..end).filter(|_| end < 16).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The path of the file behind a descriptor, for calls without a directory argument (extended attributes).
pub(super) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// `AT_EMPTY_PATH` and what goes with it.
pub(super) const ITSELF: AtFlags =
    AtFlags::EMPTY_PATH.union(AtFlags::SYMLINK_NOFOLLOW).union(AtFlags::NO_AUTOMOUNT);
