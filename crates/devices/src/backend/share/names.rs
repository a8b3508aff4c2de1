//! Changes of directories: making, linking, renaming and removing names.

use super::{
    Attr, Creator, Errno, File, FileType, Inode, OpenFlagLayout, Share,
    attr::Stat,
    path::{self, FdName},
};
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use std::{ffi::CStr, os::fd::OwnedFd, sync::Arc};

/// What [`Share::make_node`] can make. Device nodes are not among it: on the host they would be the host's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// An empty regular file.
    File,
    /// A FIFO.
    Fifo,
    /// A socket's name.
    Socket,
    /// The character device 0:0, by which overlayfs marks what is gone; it opens nothing.
    Whiteout,
}

impl NodeKind {
    /// From `st_mode` and device number of mknod(2). `EPERM` for device nodes.
    pub fn from_mode(mode: u32, rdev: u32) -> Result<Self, Errno> {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Ok(Self::File),
            FileType::Unknown if mode & 0o17_0000 == 0 => Ok(Self::File),
            FileType::Fifo => Ok(Self::Fifo),
            FileType::Socket => Ok(Self::Socket),
            FileType::CharacterDevice if rdev == 0 => Ok(Self::Whiteout),
            FileType::CharacterDevice | FileType::BlockDevice => Err(Errno::PERM),
            _ => Err(Errno::INVAL),
        }
    }

    fn file_type(self) -> FileType {
        match self {
            Self::File => FileType::RegularFile,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::Whiteout => FileType::CharacterDevice,
        }
    }
}

type Made = Result<(Arc<Inode>, Attr), Errno>;

impl Share {
    /// Makes a directory.
    pub fn make_dir(&self, parent: &Arc<Inode>, name: &CStr, mode: u32, by: Creator) -> Made {
        let dir = self.prepare(parent, name)?;
        fs::mkdirat(&dir, name, Mode::from_raw_mode(mode & 0o1777))?;
        self.finish(parent, &dir, name, by, mode & 0o1777)
    }

    /// Makes a symbolic link. Where it leads is the guest's to say and to follow.
    pub fn make_symlink(&self, parent: &Arc<Inode>, name: &CStr, target: &CStr, by: Creator) -> Made {
        let dir = self.prepare(parent, name)?;
        fs::symlinkat(target, &dir, name)?;
        self.finish(parent, &dir, name, by, 0)
    }

    /// Makes a file without opening it.
    pub fn make_node(
        &self,
        parent: &Arc<Inode>,
        name: &CStr,
        kind: NodeKind,
        mode: u32,
        by: Creator,
    ) -> Made {
        let dir = self.prepare(parent, name)?;
        fs::mknodat(&dir, name, kind.file_type(), Mode::from_raw_mode(mode & 0o7777), 0)?;
        self.finish(parent, &dir, name, by, mode)
    }

    /// Opens `name`, making it if it is not there; `raw` are the guest's flags of open(2).
    pub fn create(
        &self,
        parent: &Arc<Inode>,
        name: &CStr,
        raw: u32,
        mode: u32,
        by: Creator,
    ) -> Result<(Arc<Inode>, Attr, File), Errno> {
        let dir = self.prepare(parent, name)?;
        let flags = self.open_flags.to_host(raw)?;
        let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let own = flags.difference(OFlags::TRUNC | OFlags::DIRECTORY | OFlags::APPEND | OFlags::NOATIME);
        match path::open_beneath(&dir, name, own | make, Mode::from_raw_mode(mode & 0o7777)) {
            Ok(fd) => {
                let made = (!self.made_exactly(mode)).then(|| Stat::of_fd(&dir)).transpose()?;
                if let Some(above) = made {
                    self.give(&fd, by, mode, &above)?;
                }
                let stat = Stat::of_fd(&fd)?;
                let inode = match stat.key().born {
                    Some(_) => self.table.intern(stat.key(), Some((parent, name)), None)?,
                    None => {
                        let path_fd = self.proc_fds.reopen(&fd, OFlags::PATH)?;
                        self.table.intern(stat.key(), Some((parent, name)), Some(path_fd))?
                    }
                };
                let file = self.opened(&inode, fd, flags)?;
                Ok((inode, self.present(&stat), file))
            }
            Err(Errno::EXIST) if !OpenFlagLayout::is_exclusive(raw) => {
                let (inode, _) = self.lookup_in(parent, &dir, name)?;
                let file = self.open_file(&inode, raw)?;
                let attr = self.attr_of(&file)?;
                Ok((inode, attr, file))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a file that has no name (`O_TMPFILE`).
    pub fn create_unnamed(
        &self,
        parent: &Arc<Inode>,
        raw: u32,
        mode: u32,
        by: Creator,
    ) -> Result<(Arc<Inode>, Attr, File), Errno> {
        self.check_writable()?;
        let dir = self.table.fd(parent)?;
        let flags = self.open_flags.to_host(raw)?;
        let make = flags.difference(OFlags::DIRECTORY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::APPEND);
        let make = make | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = fs::openat(&dir, c".", make, Mode::from_raw_mode(mode & 0o7777))?;
        self.give(&fd, by, mode, &Stat::of_fd(&dir)?)?;
        let path_fd = self.proc_fds.reopen(&fd, OFlags::PATH)?;
        let stat = Stat::of_fd(&fd)?;
        let inode = self.table.intern(stat.key(), None, Some(path_fd))?;
        let file = self.opened(&inode, fd, flags)?;
        Ok((inode, self.present(&stat), file))
    }

    /// Gives a file one more name.
    pub fn link(&self, inode: &Arc<Inode>, parent: &Arc<Inode>, name: &CStr) -> Made {
        let dir = self.prepare(parent, name)?;
        let fd = self.table.fd(inode)?;
        // What is followed is the link in /proc, to the file itself, be that a symbolic link.
        fs::linkat(self.proc_fds.dir(), FdName::of(&fd).name(), &dir, name, AtFlags::SYMLINK_FOLLOW)?;
        let stat = Stat::of_fd(&fd)?;
        self.table.moved(&stat.key(), parent, name);
        Ok((inode.clone(), self.present(&stat)))
    }

    /// Renames; `flags` are renameat2(2)'s.
    pub fn rename(
        &self,
        from: &Arc<Inode>,
        name: &CStr,
        to: &Arc<Inode>,
        new_name: &CStr,
        flags: u32,
    ) -> Result<(), Errno> {
        let from_dir = self.prepare(from, name)?;
        let to_dir = self.prepare(to, new_name)?;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let replaced = Stat::of_entry(&to_dir, new_name).ok().map(|stat| stat.key());
        let moved = Stat::of_entry(&from_dir, name)?.key();
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        match replaced {
            Some(replaced) if !exchange && replaced != moved => self.table.pin(&replaced),
            _ => {}
        }
        fs::renameat_with(&from_dir, name, &to_dir, new_name, flags)?;
        self.table.moved(&moved, to, new_name);
        if let (Some(replaced), true) = (replaced, exchange) {
            self.table.moved(&replaced, from, name);
        }
        Ok(())
    }

    /// Removes a name, of a directory if `dir`.
    pub fn remove(&self, parent: &Arc<Inode>, name: &CStr, dir: bool) -> Result<(), Errno> {
        let parent_fd = self.prepare(parent, name)?;
        self.table.pin(&Stat::of_entry(&parent_fd, name)?.key());
        fs::unlinkat(&parent_fd, name, if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() })
    }

    /// Where a symbolic link leads: any bytes but zero.
    pub fn read_link(&self, inode: &Arc<Inode>) -> Result<Vec<u8>, Errno> {
        if inode.kind() != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        Ok(fs::readlinkat(self.table.fd(inode)?, c"", Vec::new())?.into_bytes())
    }

    fn prepare(&self, parent: &Arc<Inode>, name: &CStr) -> Result<Arc<OwnedFd>, Errno> {
        path::check_name(name)?;
        self.check_writable()?;
        self.table.fd(parent)
    }

    /// Does the host make files as the guest asked for, with nothing to put right?
    fn made_exactly(&self, mode: u32) -> bool {
        let own = self.host_uid != 0 || self.owners != super::Owners::Host;
        own && mode & 0o7777 & self.umask == 0
    }

    fn finish(&self, parent: &Arc<Inode>, dir: &OwnedFd, name: &CStr, by: Creator, mode: u32) -> Made {
        if !self.made_exactly(mode) {
            // If somebody replaced it meanwhile it is theirs, and only the guest's own rights were at stake.
            let fd = path::open_entry(dir, name)?;
            self.give(&fd, by, mode, &Stat::of_fd(dir)?)?;
        }
        self.lookup_in(parent, dir, name)
    }
}
