//! Open directories.

use super::{Attr, Errno, FileType, Inode, Share, limits::Permit};
use rustix::fs::{self, OFlags, RawDir, SeekFrom};
use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of entries fetched from the host at a time.
const FETCH_BYTES: usize = 8 << 10;

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Its name; `.` and `..` are among them.
    pub name: CString,
    /// File number as the host's directory has it.
    pub ino: u64,
    /// What it is.
    pub kind: FileType,
    /// Where reading continues after it: the host's number, opaque.
    pub next: u64,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    inode: Arc<Inode>,
    reader: Mutex<Reader>,
    _permit: Permit,
}

/// Entries fetched and not yet wanted, and where the first of them is.
#[derive(Debug, Default)]
struct Reader {
    at: u64,
    fetched: VecDeque<DirEntry>,
}

impl Dir {
    /// The directory that is open.
    pub fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }
}

impl Share {
    /// Opens a directory.
    pub fn open_dir(&self, inode: &Arc<Inode>) -> Result<Dir, Errno> {
        if !inode.is_dir() {
            return Err(Errno::NOTDIR);
        }
        let permit = Permit::for_dir(&self.open_dirs)?;
        let fd = self.open_fd(inode, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Dir { fd, inode: inode.clone(), reader: Mutex::default(), _permit: permit })
    }

    /// Hands entries from position `offset` on (0: the start) to `take`, until there are no more or it returns
    /// `false`, which leaves that entry for later.
    pub fn read_dir(
        &self,
        dir: &Dir,
        offset: u64,
        mut take: impl FnMut(&DirEntry) -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        let mut reader = dir.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.at != offset || offset == 0 {
            reader.fetched.clear();
            fs::seek(&dir.fd, SeekFrom::Start(offset))?;
            reader.at = offset;
        }
        loop {
            if reader.fetched.is_empty() {
                fetch(dir, &mut reader)?;
            }
            let Some(entry) = reader.fetched.front() else { return Ok(()) };
            if !take(entry)? {
                return Ok(());
            }
            reader.at = entry.next;
            reader.fetched.pop_front();
        }
    }

    /// The entry `name` of an open directory.
    pub fn lookup_open(&self, dir: &Dir, name: &CStr) -> Result<(Arc<Inode>, Attr), Errno> {
        super::path::check_name(name)?;
        self.lookup_in(&dir.inode, &dir.fd, name)
    }

    /// Returns when the directory is on stable storage.
    pub fn sync_dir(&self, dir: &Dir, data_only: bool) -> Result<(), Errno> {
        if data_only { fs::fdatasync(&dir.fd) } else { fs::fsync(&dir.fd) }
    }
}

fn fetch(dir: &Dir, reader: &mut Reader) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); FETCH_BYTES];
    let mut entries = RawDir::new(&dir.fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        reader.fetched.push_back(DirEntry {
            name: entry.file_name().to_owned(),
            ino: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(())
}
