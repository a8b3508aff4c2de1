//! Where the cache and its key are, and the only way in: files are opened by name relative to a directory that was
//! checked once and is held open, never through a link, and are looked at before a byte of them is used.

use super::error::{CacheError, Tried};
use rustix::{
    fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::{DirBuilder, File},
    io::ErrorKind,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Names read from one directory at most; what lies beyond does not exist for us.
const MAX_NAMES: usize = 4096;
/// Name of the file whose lock serialises upkeep.
const LOCK: &str = "lock";
/// Name of the file with the user's key.
pub(super) const KEY: &str = "code-cache.key";

/// The two directories of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Segments and profiles. Deleting it costs time only.
    pub code: PathBuf,
    /// The user's key. It is kept apart so that a copied, restored or downloaded cache does not bring its own.
    pub key: PathBuf,
}

impl Places {
    /// `$XDG_CACHE_HOME/isomer/code` and `$XDG_STATE_HOME/isomer`, with the defaults of the XDG Base Directory
    /// Specification 0.8. The key is state, not data: it belongs to this machine and is worth nothing elsewhere, so it
    /// should not be in what people back up and carry between machines.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoHome`].
    pub fn of_user() -> Result<Self, CacheError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let base = |variable: &str, default: &str| {
            absolute(variable)
                .or_else(|| home.as_ref().map(|home| home.join(default)))
                .ok_or(CacheError::NoHome)
        };
        Ok(Self {
            code: base("XDG_CACHE_HOME", ".cache")?.join("isomer/code"),
            key: base("XDG_STATE_HOME", ".local/state")?.join("isomer"),
        })
    }

    /// Both inside one directory of the caller's.
    pub fn under(root: &Path) -> Self {
        Self { code: root.join("cache"), key: root.join("state") }
    }
}

/// A directory that nobody else can write, held open.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens it, and makes it first if `create`. `None` if it is not there and shall not be made.
    pub(super) fn open(path: &Path, create: bool) -> Result<Option<Self>, CacheError> {
        if create {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .tried("cannot make the directory", path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if !create => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(CacheError::not_private(path, "it is a link, or no directory"));
            }
            Err(error) => return Err(CacheError::io("cannot open the directory", path, error)),
        };
        let stat = fs::fstat(&fd).tried("cannot examine", path)?;
        match distrust(&stat, FileType::Directory, 0o022) {
            Some(why) => Err(CacheError::not_private(path, why)),
            None => Ok(Some(Self { fd, path: path.to_owned() })),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The full name of one of its files, for messages.
    pub(super) fn name(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its files' names, in no order.
    pub(super) fn names(&self) -> Result<Vec<String>, CacheError> {
        let entries = fs::Dir::read_from(&self.fd).tried("cannot list", &self.path)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
        Ok(names.filter(|name| name != "." && name != "..").take(MAX_NAMES).collect())
    }

    /// Opens a regular file of ours that nobody else can write.
    pub(super) fn open_file(&self, name: &str, access: Access) -> Result<File, FileError> {
        let write = match access {
            Access::Read | Access::ReadSecret => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
        // Not to wait for the other end of a pipe somebody put there.
        let flags = write | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => FileError::Absent,
            Errno::LOOP | Errno::NXIO => FileError::Distrusted("it is a link, or no file"),
            error => FileError::Io(error.into()),
        })?;
        let stat = fs::fstat(&fd).map_err(|error| FileError::Io(error.into()))?;
        let forbidden = if access == Access::ReadSecret { 0o077 } else { 0o022 };
        match distrust(&stat, FileType::RegularFile, forbidden) {
            Some(why) => Err(FileError::Distrusted(why)),
            None => Ok(File::from(fd)),
        }
    }

    /// Makes a file that was not there, for its owner alone.
    pub(super) fn create_file(&self, name: &str) -> std::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Renames, in place of whatever had that name.
    pub(super) fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Gives a file a second name; fails if something has it.
    pub(super) fn link(&self, from: &str, to: &str) -> std::io::Result<()> {
        Ok(fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?)
    }

    /// Removes a name. That it is gone already is fine.
    pub(super) fn remove(&self, name: &str) -> std::io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The file's state by name, links not followed; `None` if it is not there.
    pub(super) fn stat(&self, name: &str) -> Option<Stat> {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// The lock of upkeep. Tried for `patience`, because a stopped process may hold it for ever.
    pub(super) fn lock(&self, patience: Duration) -> Result<DirLock, CacheError> {
        let path = self.name(LOCK);
        let file = match self.open_file(LOCK, Access::ReadWrite) {
            Ok(file) => file,
            Err(FileError::Absent) => match self.create_file(LOCK) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    self.open_file(LOCK, Access::ReadWrite).map_err(|error| error.at(&path))?
                }
                Err(error) => return Err(CacheError::io("cannot make", &path, error)),
            },
            Err(error) => return Err(error.at(&path)),
        };
        let deadline = Instant::now() + patience;
        while !try_lock(&file) {
            if Instant::now() >= deadline {
                return Err(CacheError::Busy { path: self.path.clone() });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(DirLock { _file: file })
    }
}

/// Upkeep is ours until this is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    /// Nobody else may even read it.
    ReadSecret,
    ReadWrite,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(super) enum FileError {
    Absent,
    Distrusted(&'static str),
    Io(std::io::Error),
}

impl FileError {
    pub(super) fn at(self, path: &Path) -> CacheError {
        match self {
            Self::Absent => CacheError::io("cannot open", path, ErrorKind::NotFound),
            Self::Distrusted(why) => CacheError::not_private(path, why),
            Self::Io(error) => CacheError::io("cannot open", path, error),
        }
    }
}

/// Takes a file's advisory lock if it is free; it goes with the open file, so it ends with its process however that ends.
pub(super) fn try_lock(file: impl AsFd) -> bool {
    fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Gives a file's lock back.
pub(super) fn unlock(file: impl AsFd) {
    let _ = fs::flock(file, FlockOperation::Unlock);
}

fn distrust(stat: &Stat, kind: FileType, forbidden: u32) -> Option<&'static str> {
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return Some("it is something else than it should be");
    }
    if stat.st_uid != geteuid().as_raw() {
        return Some("it belongs to another user");
    }
    (stat.st_mode & forbidden != 0).then_some(match forbidden {
        0o077 => "other users have access to it",
        _ => "other users can write it",
    })
}
