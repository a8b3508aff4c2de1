//! What a file is: its attributes, who it belongs to as the guest sees it, and changes of them.

use super::{
    File, Inode, Share,
    inode::Key,
    path::{FdName, ITSELF},
};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, Uid},
    io::Errno,
};
use std::{ffi::CStr, os::fd::AsFd, sync::Arc};

/// Whose a file is in the guest's eyes.
///
/// The host's own rules hold in any case: a guest can do what the user running the machine can do, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Numbers are the host's. With a machine run by root, files that a guest's user makes are given to that number
    /// on the host; run by anybody else, chown fails as it does on the host.
    Host,
    /// Files of the user who runs the machine appear as this user's and group's, and files made by whomever in the
    /// guest do too. Files of others show the host's numbers. Nothing is recorded: chown to the owner shown
    /// succeeds and does nothing, to another it fails with `EPERM`.
    Fixed {
        /// User shown.
        uid: u32,
        /// Group shown.
        gid: u32,
    },
}

impl Owners {
    /// The host's numbers for root, else everything the guest's root's.
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() { Self::Host } else { Self::Fixed { uid: 0, gid: 0 } }
    }
}

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, u32);

/// A file's attributes as the guest sees them.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    /// File number, unique within the share.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Storage in units of 512 bytes.
    pub blocks: u64,
    /// Preferred unit of I/O in bytes.
    pub block_size: u32,
    /// Kind and permissions (`st_mode`).
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// For device files: major and minor number.
    pub rdev: (u32, u32),
    /// Last read.
    pub atime: Time,
    /// Last write.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// Birth; zero where the host does not know it.
    pub btime: Time,
}

impl Attr {
    /// The device number as Linux's `new_encode_dev` packs it.
    pub fn rdev_encoded(&self) -> u32 {
        let (major, minor) = self.rdev;
        (minor & 0xff) | major << 8 | (minor & !0xff) << 12
    }
}

/// statx(2) of a file, as the host sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat(Statx);

impl Stat {
    /// Of entry `name` of `dir`; of a symbolic link itself.
    pub(super) fn of_entry(dir: impl AsFd, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map(Self)
    }

    /// Of the file behind a descriptor of any kind.
    pub(super) fn of_fd(fd: impl AsFd) -> Result<Self, Errno> {
        fs::statx(fd, c"", ITSELF, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map(Self)
    }

    pub(super) fn key(&self) -> Key {
        let born = StatxFlags::from_bits_retain(self.0.stx_mask).contains(StatxFlags::BTIME);
        Key {
            dev: (self.0.stx_dev_major, self.0.stx_dev_minor),
            ino: self.0.stx_ino,
            born: born.then_some((self.0.stx_btime.tv_sec, self.0.stx_btime.tv_nsec)),
            format: u32::from(self.0.stx_mode) & 0o17_0000,
        }
    }

    pub(super) fn mode(&self) -> u32 {
        self.0.stx_mode.into()
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This time.
    At(Time),
}

/// Attributes to change; all others stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last read.
    pub atime: Option<SetTime>,
    /// Last write.
    pub mtime: Option<SetTime>,
    /// Drop set-user-ID and set-group-ID, as a change by an unprivileged user does.
    pub kill_privileges: bool,
}

impl SetAttr {
    fn changes(&self) -> bool {
        let ids = self.uid.is_some() || self.gid.is_some() || self.mode.is_some();
        ids || self.size.is_some() || self.atime.is_some() || self.mtime.is_some() || self.kill_privileges
    }
}

impl Share {
    /// The guest's view of a host's attributes.
    pub(super) fn present(&self, stat: &Stat) -> Attr {
        let host = &stat.0;
        let time = |at: &rustix::fs::StatxTimestamp| (at.tv_sec, at.tv_nsec);
        let (mut uid, mut gid) = (host.stx_uid, host.stx_gid);
        if let Owners::Fixed { uid: shown_uid, gid: shown_gid } = self.owners {
            uid = if uid == self.host_uid { shown_uid } else { uid };
            gid = if gid == self.host_gid { shown_gid } else { gid };
        }
        Attr {
            ino: self.devices.number(stat.key()),
            size: host.stx_size,
            blocks: host.stx_blocks,
            block_size: host.stx_blksize,
            mode: host.stx_mode.into(),
            links: host.stx_nlink,
            uid,
            gid,
            rdev: (host.stx_rdev_major, host.stx_rdev_minor),
            atime: time(&host.stx_atime),
            mtime: time(&host.stx_mtime),
            ctime: time(&host.stx_ctime),
            btime: time(&host.stx_btime),
        }
    }

    /// A file's attributes.
    pub fn attr(&self, inode: &Arc<Inode>) -> Result<Attr, Errno> {
        Ok(self.present(&Stat::of_fd(&self.table.fd(inode)?)?))
    }

    /// An open file's attributes.
    pub fn attr_of(&self, file: &File) -> Result<Attr, Errno> {
        Ok(self.present(&Stat::of_fd(&file.fd)?))
    }

    /// Changes attributes, of the file that `file` has open if the guest named one. Returns what they are now.
    pub fn set_attr(&self, inode: &Arc<Inode>, file: Option<&File>, set: &SetAttr) -> Result<Attr, Errno> {
        if set.changes() {
            self.check_writable()?;
        }
        let fd = self.table.fd(inode)?;
        if let Some(size) = set.size {
            match file {
                Some(file) => fs::ftruncate(&file.fd, size)?,
                None => fs::ftruncate(self.open_fd(inode, OFlags::RDWR | OFlags::NONBLOCK)?, size)?,
            }
        }
        if set.kill_privileges {
            self.kill_privileges(&fd)?;
        }
        // Both of the above and a change of owner may drop set-ID bits; what is asked for comes last.
        if set.uid.is_some() || set.gid.is_some() {
            self.change_owner(&fd, set.uid, set.gid)?;
        }
        if let Some(mode) = set.mode {
            self.change_mode(&fd, mode)?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let time = |time: Option<SetTime>| match time {
                None => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
                Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
                Some(SetTime::At((sec, nsec))) => {
                    Timespec { tv_sec: sec, tv_nsec: nsec.min(999_999_999).into() }
                }
            };
            let times = Timestamps { last_access: time(set.atime), last_modification: time(set.mtime) };
            fs::utimensat(self.proc_fds.dir(), FdName::of(&fd).name(), &times, AtFlags::empty())?;
        }
        Ok(self.present(&Stat::of_fd(&fd)?))
    }

    fn change_mode(&self, fd: impl AsFd, mode: u32) -> Result<(), Errno> {
        fs::chmodat(
            self.proc_fds.dir(),
            FdName::of(fd).name(),
            Mode::from_raw_mode(mode & 0o7777),
            AtFlags::empty(),
        )
    }

    fn change_owner(&self, fd: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        match self.owners {
            Owners::Host => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)
            }
            Owners::Fixed { .. } => {
                let shown = self.present(&Stat::of_fd(fd)?);
                let same = uid.is_none_or(|uid| uid == shown.uid) && gid.is_none_or(|gid| gid == shown.gid);
                if same { Ok(()) } else { Err(Errno::PERM) }
            }
        }
    }

    /// Drops set-user-ID, and set-group-ID where the group may execute the file. The host does that by itself for
    /// all but root.
    pub(super) fn kill_privileges(&self, fd: impl AsFd) -> Result<(), Errno> {
        let mode = Stat::of_fd(&fd)?.mode();
        let set_group = if mode & 0o010 != 0 { 0o2000 } else { 0 };
        let kept = mode & !(0o4000 | set_group);
        if kept == mode || FileType::from_raw_mode(mode) != FileType::RegularFile {
            return Ok(());
        }
        self.change_mode(fd, kept)
    }

    /// Gives a file just made to who made it, with exactly the permissions asked for.
    pub(super) fn give(
        &self,
        fd: impl AsFd,
        made_by: Creator,
        mode: u32,
        parent: &Stat,
    ) -> Result<(), Errno> {
        let stat = Stat::of_fd(&fd)?;
        let is_symlink = stat.key().kind() == FileType::Symlink;
        let mut exact = stat.mode() & 0o7777;
        if !is_symlink {
            // A directory inherits set-group-ID from its parent; the host's umask is no business of the guest's.
            let inherited = if stat.key().kind() == FileType::Directory { stat.mode() & 0o2000 } else { 0 };
            exact = mode & 0o7777 | inherited;
        }
        if self.owners == Owners::Host && self.host_uid == 0 {
            let inherits_group = parent.mode() & 0o2000 != 0;
            let uid = (stat.0.stx_uid != made_by.uid).then_some(Uid::from_raw(made_by.uid));
            let gid =
                (!inherits_group && stat.0.stx_gid != made_by.gid).then_some(Gid::from_raw(made_by.gid));
            if uid.is_some() || gid.is_some() {
                fs::chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
                // chown may have dropped set-ID bits.
                if !is_symlink && exact & 0o6000 != 0 {
                    return self.change_mode(fd, exact);
                }
            }
        }
        if exact == stat.mode() & 0o7777 { Ok(()) } else { self.change_mode(fd, exact) }
    }
}

/// Who in the guest makes a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Creator {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
