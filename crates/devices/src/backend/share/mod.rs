//! A host directory given to a guest, for any protocol: virtio-fs and 9p are fronts of this.
//!
//! **Confinement.** A guest names files by number or by one name in a directory. The host never resolves a path of
//! the guest's making, follows no symbolic link, opens regular files and directories only (a device or FIFO is the
//! guest's own to drive), and makes no device nodes. See [`path`].
//!
//! **Rights** are those of the user running the machine; [`Owners`] says whose files appear to be.
//!
//! **Errors** are error numbers of Linux, which all guests and this host share: they go to the guest as they are.

mod attr;
mod dir;
mod file;
mod flags;
mod inode;
mod limits;
mod lock;
mod names;
mod path;
#[cfg(test)]
mod tests;
mod xattr;

pub use attr::{Attr, Creator, Owners, SetAttr, SetTime, Time};
pub use dir::{Dir, DirEntry};
pub use file::{File, FileSystemStat, Whence};
pub use flags::OpenFlagLayout;
pub use inode::Inode;
pub use limits::Handles;
pub use lock::{ByteLock, LockKind};
pub use names::NodeKind;
pub use rustix::{fs::FileType, io::Errno};

use attr::Stat;
use inode::{Key, Limits, Table};
use miette::Diagnostic;
use path::ProcFds;
use rustix::fs::{CWD, Mode, OFlags};
use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

/// How a directory is shared.
#[derive(Clone, Debug)]
pub struct ShareOptions {
    /// Refuse every change with `EROFS`.
    pub read_only: bool,
    /// Whose files appear to be; `None` is [`Owners::of_this_process`].
    pub owners: Option<Owners>,
    /// Numbers of the guest's open flags.
    pub open_flags: OpenFlagLayout,
}

impl Default for ShareOptions {
    fn default() -> Self {
        Self { read_only: false, owners: None, open_flags: OpenFlagLayout::Generic }
    }
}

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ShareError {
    /// The host refused it.
    #[error("cannot share {}: {source}", path.display())]
    #[diagnostic(
        code(isomer::share::host),
        help("check that the directory exists and that you may enter it")
    )]
    Host {
        /// The directory.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Only directories can be shared.
    #[error("{} is not a directory", path.display())]
    #[diagnostic(code(isomer::share::not_a_directory), help("share the directory that it is in"))]
    NotADirectory {
        /// What it is.
        path: PathBuf,
    },
    /// `/proc` is how the host opens the file behind a descriptor.
    #[error("sharing directories needs /proc, which is not mounted: {source}")]
    #[diagnostic(code(isomer::share::no_proc), help("mount -t proc proc /proc"))]
    NoProc {
        /// The host's answer.
        source: io::Error,
    },
}

/// A shared directory.
#[derive(Debug)]
pub struct Share {
    table: Table,
    proc_fds: ProcFds,
    read_only: bool,
    owners: Owners,
    open_flags: OpenFlagLayout,
    host_uid: u32,
    host_gid: u32,
    umask: u32,
    devices: Devices,
    locks: lock::LockTable,
    open_files: Arc<AtomicUsize>,
    open_dirs: Arc<AtomicUsize>,
}

impl Share {
    /// Shares `path`. Links on the way to it are the user's and are followed.
    pub fn open(path: &Path, options: &ShareOptions) -> Result<Self, ShareError> {
        let host = |error: Errno| ShareError::Host { path: path.to_owned(), source: error.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR if path.exists() => ShareError::NotADirectory { path: path.to_owned() },
            other => host(other),
        })?;
        let stat = Stat::of_fd(&root).map_err(host)?;
        let proc_fds = ProcFds::open().map_err(|source| ShareError::NoProc { source })?;
        proc_fds.reopen(&root, OFlags::RDONLY | OFlags::DIRECTORY).map_err(host)?;
        let limits = Limits { inodes: limits::MAX_INODES, descriptors: limits::path_descriptors() };
        Ok(Self {
            table: Table::new(root, stat.key(), limits),
            proc_fds,
            read_only: options.read_only,
            owners: options.owners.unwrap_or_else(Owners::of_this_process),
            open_flags: options.open_flags,
            host_uid: rustix::process::geteuid().as_raw(),
            host_gid: rustix::process::getegid().as_raw(),
            umask: limits::umask(),
            devices: Devices::new(stat.key()),
            locks: lock::LockTable::default(),
            open_files: Arc::default(),
            open_dirs: Arc::default(),
        })
    }

    /// Are changes refused?
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The shared directory itself; FUSE's number 1.
    pub fn root(&self) -> &Arc<Inode> {
        self.table.root()
    }

    /// The file a guest names by [`Inode::id`]: one that [`Self::remember`] was called for.
    pub fn inode(&self, id: u64) -> Result<Arc<Inode>, Errno> {
        self.table.get(id)
    }

    /// The guest is given the file's number (again).
    pub fn remember(&self, inode: &Arc<Inode>) {
        self.table.remember(inode);
    }

    /// The guest forgets `count` of the times it was given `id`.
    pub fn forget(&self, id: u64, count: u64) {
        self.table.forget(id, count);
    }

    /// The guest has gone: forgets all numbers and locks.
    pub fn forget_all(&self) {
        self.table.forget_all();
        self.locks.clear();
    }

    /// Files kept in memory for the guest.
    pub fn known_files(&self) -> usize {
        self.table.live()
    }

    /// The numbers of the guest's open flags.
    pub fn open_flags(&self) -> OpenFlagLayout {
        self.open_flags
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// The directory above a file within the share; the root's is itself.
    pub fn parent(&self, inode: &Arc<Inode>) -> Result<Arc<Inode>, Errno> {
        match inode.parent() {
            Some(parent) => Ok(parent),
            None if Arc::ptr_eq(inode, self.root()) => Ok(inode.clone()),
            None => Err(Errno::NOENT),
        }
    }

    /// Where a file was last seen: a directory and the name in it.
    pub fn place(&self, inode: &Arc<Inode>) -> Result<(Arc<Inode>, CString), Errno> {
        inode.place().ok_or(Errno::NOENT)
    }

    /// The entry `name` of `parent`.
    pub fn lookup(&self, parent: &Arc<Inode>, name: &CStr) -> Result<(Arc<Inode>, Attr), Errno> {
        path::check_name(name)?;
        let dir = self.table.fd(parent)?;
        self.lookup_in(parent, &dir, name)
    }

    fn lookup_in(
        &self,
        parent: &Arc<Inode>,
        dir: &OwnedFd,
        name: &CStr,
    ) -> Result<(Arc<Inode>, Attr), Errno> {
        let mut stat = Stat::of_entry(dir, name)?;
        let mut key = stat.key();
        let mut fd = None;
        if key.born.is_none() {
            // Without a time of birth only an open descriptor keeps the file's number from being used again.
            let opened = path::open_entry(dir, name)?;
            stat = Stat::of_fd(&opened)?;
            key = stat.key();
            fd = Some(opened);
        }
        Ok((self.table.intern(key, Some((parent, name)), fd)?, self.present(&stat)))
    }

    /// Opens a regular file or directory; anything else has its own meaning on the host, which is not the guest's.
    fn open_fd(&self, inode: &Arc<Inode>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let changes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        match inode.kind() {
            FileType::RegularFile if changes => self.check_writable()?,
            FileType::RegularFile => {}
            FileType::Directory if changes => return Err(Errno::ISDIR),
            FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let fd = self.table.fd(inode)?;
        match self.proc_fds.reopen(&fd, flags) {
            // Only a file's owner may ask that reading leaves no trace.
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => {
                self.proc_fds.reopen(&fd, flags.difference(OFlags::NOATIME))
            }
            other => other,
        }
    }
}

/// Gives files on other file systems below the share numbers that do not collide with the share's own.
#[derive(Debug)]
struct Devices {
    root: (u32, u32),
    others: Mutex<HashMap<(u32, u32), u64>>,
}

/// Bits of a file number below the one that tells file systems apart.
const NUMBER_BITS: u32 = 48;

impl Devices {
    fn new(root: Key) -> Self {
        Self { root: root.dev, others: Mutex::default() }
    }

    fn number(&self, key: Key) -> u64 {
        if key.dev == self.root {
            return key.ino;
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let next = others.len() as u64 + 1;
        // As many as the host has mounted.
        let index = *others.entry(key.dev).or_insert(next);
        key.ino ^ index << NUMBER_BITS
    }
}
