//! What a disk device asks of its host side, and everything that can be wrong with a disk image.

use super::image::ImageFormat;
use miette::Diagnostic;
use std::{fmt::Debug, io, path::PathBuf};

pub use imago::io_buffers::{IoVector, IoVectorMut};

/// Bytes in the unit virtio-blk, ATA and friends address disks in.
pub const SECTOR_BYTES: u64 = 512;

/// A disk as devices see it: a line of bytes. Requests may come from several threads at once; requests that
/// overlap in time and place have no order, as on a real disk.
pub trait BlockBackend: Send + Sync + Debug {
    /// The disk's length, in bytes.
    fn size_bytes(&self) -> u64;
    /// Are writes refused?
    fn read_only(&self) -> bool;
    /// Fills `buffers` from byte `offset` on; bytes past the end read as zero.
    fn read_vectored(&self, offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()>;
    /// Writes all of `buffers` from byte `offset` on, or fails; never past the end.
    fn write_vectored(&self, offset: u64, buffers: IoVector<'_>) -> io::Result<()>;
    /// Returns when everything written before is on stable storage.
    fn flush(&self) -> io::Result<()>;
    /// Gives `len` bytes from `offset` back to the host where that is possible; what they read as afterwards is open.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes `len` bytes from `offset` read as zero; with `unmap`, their storage may be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// The disk's length in whole sectors. A last partial sector can be read, so it counts on a read-only disk;
    /// it could not be written back whole, so on a writable one it does not.
    fn sectors(&self) -> u64 {
        match self.read_only() {
            true => self.size_bytes().div_ceil(SECTOR_BYTES),
            false => self.size_bytes() / SECTOR_BYTES,
        }
    }
}

/// Why a disk image could not be opened or made.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[non_exhaustive]
pub enum BlockError {
    /// The host refused the file.
    #[error("cannot {doing} disk image {}: {source}", path.display())]
    #[diagnostic(code(isomer::block::host), help("check that the path exists and that you may {doing} it"))]
    Host {
        /// The image.
        path: PathBuf,
        /// What was tried ("open", "create").
        doing: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// A directory, a FIFO, a terminal.
    #[error("{} is not a disk image but a {kind}", path.display())]
    #[diagnostic(code(isomer::block::not_a_disk), help("give a regular file or a block device"))]
    NotADisk {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// Another program uses the image in a way that excludes this use.
    #[error("disk image {} is in use: another program has it open for {held_for}", path.display())]
    #[diagnostic(
        code(isomer::block::locked),
        help(
            "stop the other machine, open the image read-only in both, or give this machine an overlay of its own"
        )
    )]
    Locked {
        /// The image.
        path: PathBuf,
        /// "writing" or "reading".
        held_for: &'static str,
    },
    /// The first bytes belong to a format that is not supported, so reading it as raw would only confuse the guest.
    #[error("{} is a {format} file, which cannot be used as a disk", path.display())]
    #[diagnostic(code(isomer::block::unsupported_format), help("{fix}"))]
    UnsupportedFormat {
        /// The image.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// How to convert it.
        fix: &'static str,
    },
    /// The contents contradict the file's name, or a backing file's format is not recorded.
    #[error("the format of {} is in doubt: {why}", path.display())]
    #[diagnostic(
        code(isomer::block::format_in_doubt),
        help(
            "a guest can write another format's header into a raw disk to make its host open files of the guest's choice; \
             if you trust the contents, {fix}"
        )
    )]
    FormatInDoubt {
        /// The image.
        path: PathBuf,
        /// What does not fit.
        why: String,
        /// How to state the format.
        fix: String,
    },
    /// Asked for one format, found that it is not.
    #[error("{} is not a {wanted} image: {why}", path.display())]
    #[diagnostic(code(isomer::block::wrong_format), help("leave the format out to have it detected"))]
    WrongFormat {
        /// The image.
        path: PathBuf,
        /// What was asked for.
        wanted: ImageFormat,
        /// What the contents say.
        why: String,
    },
    /// A qcow2 feature that is not supported.
    #[error("qcow2 image {} {what}", path.display())]
    #[diagnostic(code(isomer::block::unsupported_feature), help("{fix}"))]
    UnsupportedFeature {
        /// The image.
        path: PathBuf,
        /// The feature, as a predicate ("is encrypted").
        what: String,
        /// How to be rid of it.
        fix: &'static str,
    },
    /// The metadata is damaged or the file was cut short.
    #[error("qcow2 image {} is damaged: {why}", path.display())]
    #[diagnostic(
        code(isomer::block::damaged),
        help(
            "`isomer image check` tells more; fetch the image again, or try `qemu-img check -r all` on a copy"
        )
    )]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An image cannot get the size that was asked for.
    #[error("{} cannot have {size_bytes} bytes: {why}", path.display())]
    #[diagnostic(code(isomer::block::size), help("{fix}"))]
    Size {
        /// The image.
        path: PathBuf,
        /// What was asked for.
        size_bytes: u64,
        /// Why not.
        why: String,
        /// What would work.
        fix: &'static str,
    },
    /// The host failed while one image was copied to another.
    #[error("cannot copy {} to {}: {source}", from.display(), to.display())]
    #[diagnostic(
        code(isomer::block::copy),
        help("what was written is removed again; check the space left and the disks")
    )]
    Copy {
        /// The image read.
        from: PathBuf,
        /// The image written.
        to: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The chain of backing files is endless, too long, or not wanted.
    #[error("backing file of {}: {why}", path.display())]
    #[diagnostic(
        code(isomer::block::backing),
        help("`isomer image info` shows the chain; `isomer image convert` makes one image of it")
    )]
    Backing {
        /// The image that names the backing file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
