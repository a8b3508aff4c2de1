//! Extended attributes: `user.` for everybody; `security.` and `trusted.` as well where the guest's root is the
//! host's. Access control lists (`system.`) are not offered: their numbers would be the host's users.

use super::{Errno, FileType, Inode, Owners, Share, path::proc_path};
use rustix::fs::{self, XattrFlags};
use std::{ffi::CStr, sync::Arc};

/// Longest value (Linux, `XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 64 << 10;
/// Longest name (Linux, `XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

impl Share {
    fn check_xattr(&self, inode: &Inode, name: &CStr) -> Result<(), Errno> {
        let name = name.to_bytes();
        let plain = matches!(inode.kind(), FileType::RegularFile | FileType::Directory);
        let own = self.owners == Owners::Host && self.host_uid == 0;
        let allowed = match name {
            _ if name.len() > NAME_MAX => return Err(Errno::RANGE),
            _ if name.starts_with(b"user.") => plain,
            _ => own && (name.starts_with(b"security.") || name.starts_with(b"trusted.")),
        };
        if allowed { Ok(()) } else { Err(Errno::OPNOTSUPP) }
    }

    /// The value of an attribute.
    pub fn get_xattr(&self, inode: &Arc<Inode>, name: &CStr) -> Result<Vec<u8>, Errno> {
        self.check_xattr(inode, name)?;
        let path = proc_path(self.table.fd(inode)?);
        grow(|buffer| fs::getxattr(&path, name, buffer))
    }

    /// Sets an attribute; `flags` are setxattr(2)'s.
    pub fn set_xattr(&self, inode: &Arc<Inode>, name: &CStr, value: &[u8], flags: u32) -> Result<(), Errno> {
        self.check_writable()?;
        self.check_xattr(inode, name)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        fs::setxattr(proc_path(self.table.fd(inode)?), name, value, flags)
    }

    /// Names of attributes, each ended by a zero byte.
    pub fn list_xattrs(&self, inode: &Arc<Inode>) -> Result<Vec<u8>, Errno> {
        let path = proc_path(self.table.fd(inode)?);
        let all = grow(|buffer| fs::listxattr(&path, buffer))?;
        let mut shown = Vec::new();
        for name in all.split_inclusive(|&byte| byte == 0) {
            let allowed =
                CStr::from_bytes_with_nul(name).is_ok_and(|name| self.check_xattr(inode, name).is_ok());
            if allowed {
                shown.extend_from_slice(name);
            }
        }
        Ok(shown)
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, inode: &Arc<Inode>, name: &CStr) -> Result<(), Errno> {
        self.check_writable()?;
        self.check_xattr(inode, name)?;
        fs::removexattr(proc_path(self.table.fd(inode)?), name)
    }
}

/// Calls `read` with a small buffer, and with the largest where that is too small.
fn grow(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for size in [256, VALUE_MAX] {
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Err(Errno::RANGE) => {}
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}
