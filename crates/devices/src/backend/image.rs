//! Disk images in files and block devices: raw and qcow2 with backing files.
//!
//! An image's format is settled when it is opened: stated by the caller, or detected and from then on
//! part of what the machine records. A guest that writes a qcow2 header into a disk whose format was detected
//! as raw would change what the next start makes of the file, so exactly that write is refused.

use super::{
    block::{BlockBackend, BlockError, IoVector, IoVectorMut, SECTOR_BYTES},
    host_file::{HostFile, OpenFile},
    image_lock::{self, Lock},
    layer::{Layer, Raw},
    qcow2::{self, Create, Probe},
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// The longest disk: what a qcow2 image with clusters of 64 KiB can map with an L1 table of a megabyte.
const MAX_DISK_BYTES: u64 = 64 << 40;
/// Images in a backing chain, at most.
const MAX_LAYERS: usize = 32;
/// Clusters of new qcow2 images: 64 KiB.
const CLUSTER_BITS: u32 = 16;

/// A disk image's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The disk's bytes and nothing else; ISO images are this too.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

impl ImageFormat {
    /// The name users write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ImageFormat {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            _ => Err(format!("`{name}` is not an image format: use raw or qcow2")),
        }
    }
}

/// What stands between a guest's writes and stable storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheMode {
    /// The host's cache, until the guest flushes.
    #[default]
    Writeback,
    /// Nothing: a write is complete when it is on stable storage.
    Writethrough,
    /// Past the host's cache where requests are aligned to 4 KiB, and the disk's own cache until the guest flushes.
    None,
    /// The host's cache, and flushes are not waited for: a crash of the host may cost the disk.
    Unsafe,
}

impl FromStr for CacheMode {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "writeback" => Ok(Self::Writeback),
            "writethrough" => Ok(Self::Writethrough),
            "none" => Ok(Self::None),
            "unsafe" => Ok(Self::Unsafe),
            _ => Err(format!("`{name}` is not a cache mode: use writeback, writethrough, none or unsafe")),
        }
    }
}

/// How to open an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The format; `None` detects it.
    pub format: Option<ImageFormat>,
    /// Refuse writes, and let other readers in.
    pub read_only: bool,
    /// Keep writes in an unnamed temporary file that is gone when the image is closed; the image itself is opened read-only.
    pub ephemeral: bool,
    /// Refuse images with a backing file: right for images from strangers, since the name can be any file of the host.
    pub refuse_backing: bool,
    /// When writes are complete.
    pub cache: CacheMode,
    /// What the guest discards stays where it is.
    pub keep_discarded: bool,
}

/// An open disk image.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    format: ImageFormat,
    read_only: bool,
    /// The format was detected as raw: writes must not turn it into anything else.
    keep_raw: bool,
    write_through: bool,
    keep_discarded: bool,
    layer: Layer,
}

impl Image {
    /// Opens the image at `path` and locks it, and its backing files, against conflicting use.
    pub fn open(path: &Path, options: &ImageOptions) -> Result<Self, BlockError> {
        let read_only_file = options.read_only || options.ephemeral;
        let mut chain = Chain {
            refuse_backing: options.refuse_backing,
            direct: options.cache == CacheMode::None,
            durable: options.cache != CacheMode::Unsafe,
            seen: Vec::new(),
        };
        let (layer, format) = chain.open(path, options.format, !read_only_file)?;
        let layer = if options.ephemeral { overlay(path, layer)? } else { layer };
        Ok(Self {
            path: path.into(),
            format,
            read_only: options.read_only,
            keep_raw: options.format.is_none() && format == ImageFormat::Raw && !options.ephemeral,
            write_through: options.cache == CacheMode::Writethrough,
            keep_discarded: options.keep_discarded,
            layer,
        })
    }

    /// Makes a new sparse image of `size_bytes`; `backing` is recorded as given, relative to `path`'s directory.
    /// Refuses to overwrite.
    pub fn create(
        path: &Path,
        format: ImageFormat,
        size_bytes: u64,
        backing: Option<(&Path, ImageFormat)>,
    ) -> Result<(), BlockError> {
        check_size(path, size_bytes)?;
        let failed = |source| BlockError::Host { path: path.into(), doing: "create", source };
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path).map_err(failed)?;
        let name = |backing: &Path| {
            let name =
                backing.to_str().ok_or_else(|| io::Error::other("the backing file's name is not UTF-8"));
            name.map(str::to_owned)
        };
        let made = match (format, backing) {
            (ImageFormat::Raw, None) => file.set_len(size_bytes),
            (ImageFormat::Raw, Some(_)) => Err(io::Error::other("a raw image cannot have a backing file")),
            (ImageFormat::Qcow2, None) => make_qcow2(file, size_bytes, None),
            (ImageFormat::Qcow2, Some((backing, format))) => {
                name(backing).and_then(|name| make_qcow2(file, size_bytes, Some((&name, format.name()))))
            }
        };
        made.map_err(|error| {
            let _ = std::fs::remove_file(path);
            failed(error)
        })
    }

    /// Changes the disk's length, in whole sectors. What lies beyond a shorter end is gone.
    pub fn resize(&self, size_bytes: u64) -> Result<(), BlockError> {
        check_size(&self.path, size_bytes)?;
        let failed = |source| BlockError::Host { path: self.path.clone(), doing: "resize", source };
        if self.read_only {
            return Err(failed(ErrorKind::ReadOnlyFilesystem.into()));
        }
        self.layer.resize(size_bytes).map_err(failed)
    }

    /// Does the image, or anything below it, hold data for the bytes from `offset`? Returns that and for how many
    /// bytes it holds, at least 1 before the disk's end.
    pub fn has_data(&self, offset: u64) -> io::Result<(bool, u64)> {
        let rest = self.size_bytes().saturating_sub(offset);
        self.layer.data_or_hole(offset, rest)
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format it was opened as: what to record, so that it is never detected again.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    fn check_writable(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size_bytes());
        if inside { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Writes the start of a disk that must stay raw. The data is copied first: the guest could change it
    /// between the look and the write.
    fn write_head(&self, offset: u64, head: IoVector<'_>) -> io::Result<()> {
        let data = head.try_into_owned(1)?;
        let written = data.as_ref().into_slice();
        let mut result = [0; qcow2::PROBE_BYTES];
        self.layer.read(0, result.as_mut_slice().into())?;
        let at = offset as usize;
        result[at..at + written.len()].copy_from_slice(written);
        if qcow2::probe(&result) != Probe::Known(ImageFormat::Raw) {
            isomer_core::guest_warn!(image = %self.path.display(), "refused a write that would change what the image looks like; state its format to allow it");
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.layer.write(offset, written.into())
    }

    /// After a change: with no cache to stay in, it is made to last.
    fn harden(&self) -> io::Result<()> {
        if self.write_through { self.layer.flush() } else { Ok(()) }
    }
}

impl BlockBackend for Image {
    fn size_bytes(&self) -> u64 {
        self.layer.size()
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_vectored(&self, offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()> {
        self.layer.read(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, mut buffers: IoVector<'_>) -> io::Result<()> {
        let mut offset = offset;
        self.check_writable(offset, buffers.len())?;
        let head_len = (qcow2::PROBE_BYTES as u64).saturating_sub(offset).min(buffers.len());
        if self.keep_raw && head_len > 0 {
            let (head, rest) = buffers.split_at(head_len);
            self.write_head(offset, head)?;
            (buffers, offset) = (rest, offset + head_len);
        }
        self.layer.write(offset, buffers)?;
        self.harden()
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.layer.flush() }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable(offset, len)?;
        if self.keep_discarded {
            return Ok(());
        }
        self.layer.discard(offset, len)?;
        self.harden()
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_writable(offset, len)?;
        self.layer.write_zeroes(offset, len, unmap && !self.keep_discarded)?;
        self.harden()
    }
}

/// Writes the tables of an empty qcow2 image to a new file.
fn make_qcow2(file: File, size_bytes: u64, backing: Option<(&str, &str)>) -> io::Result<()> {
    let create = Create { size_bytes, cluster_bits: CLUSTER_BITS, backing };
    qcow2::create(&OpenFile::new(file, None), &create)
}

/// Disks are whole sectors, and offsets in files are signed.
fn check_size(path: &Path, size_bytes: u64) -> Result<(), BlockError> {
    let refuse =
        |why: &str, fix| Err(BlockError::Size { path: path.into(), size_bytes, why: why.into(), fix });
    if !size_bytes.is_multiple_of(SECTOR_BYTES) {
        return refuse("a disk is whole sectors of 512 bytes", "use a multiple of 512, or a unit as in 10G");
    }
    if size_bytes > MAX_DISK_BYTES {
        return refuse("no disk is that large", "use at most 64T");
    }
    Ok(())
}

/// A qcow2 overlay on `base` in a file without a name. Nothing of it has to last.
fn overlay(path: &Path, base: Layer) -> Result<Layer, BlockError> {
    let failed =
        |source| BlockError::Host { path: path.into(), doing: "make a temporary overlay of", source };
    let file = Arc::new(OpenFile::new(temporary_file().map_err(failed)?, None));
    let size_bytes = base.size().next_multiple_of(SECTOR_BYTES);
    let create = Create { size_bytes, cluster_bits: CLUSTER_BITS, backing: None };
    qcow2::create(&*file, &create).map_err(failed)?;
    let (overlay, _) = qcow2::open(path, file, Some(base), true, false)?;
    Ok(Layer::Qcow2(Box::new(overlay)))
}

/// A file without a name in the temporary directory, or in memory where the file system cannot do that.
fn temporary_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        .or_else(|_| rustix::fs::memfd_create("isomer-overlay", rustix::fs::MemfdFlags::CLOEXEC))?;
    Ok(file.into())
}

/// Opens an image and what lies below it.
struct Chain {
    refuse_backing: bool,
    direct: bool,
    durable: bool,
    /// Device and inode numbers of the images above.
    seen: Vec<(u64, u64)>,
}

impl Chain {
    fn open(
        &mut self,
        path: &Path,
        format: Option<ImageFormat>,
        writable: bool,
    ) -> Result<(Layer, ImageFormat), BlockError> {
        let file = self.open_file(path, writable)?;
        let format = settle_format(path, &file, format)?;
        let direct = if self.direct { open_direct(path, &file, writable)? } else { None };
        let file = Arc::new(OpenFile::new(file, direct));
        let layer = match format {
            ImageFormat::Raw => {
                let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
                Layer::Raw(Raw::open(file, self.durable).map_err(failed)?)
            }
            ImageFormat::Qcow2 => self.open_qcow2(path, file, writable)?,
        };
        Ok((layer, format))
    }

    /// Opens, identifies and locks the file; never blocks on a FIFO.
    fn open_file(&mut self, path: &Path, writable: bool) -> Result<File, BlockError> {
        let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if let Some(kind) = not_a_disk(&metadata.file_type()) {
            return Err(BlockError::NotADisk { path: path.into(), kind });
        }
        let file =
            File::options().read(true).write(writable).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(kind) = not_a_disk(&metadata.file_type()) {
            return Err(BlockError::NotADisk { path: path.into(), kind });
        }
        let identity = (metadata.dev(), metadata.ino());
        if self.seen.contains(&identity) {
            return Err(BlockError::Backing {
                path: path.into(),
                why: "the chain leads back to this image".into(),
            });
        }
        self.seen.push(identity);
        match image_lock::lock(&file, writable).map_err(failed)? {
            Lock::Held => {}
            Lock::Unavailable => {
                tracing::warn!(image = %path.display(), "the file system has no locks: nothing keeps others from writing");
            }
            Lock::Conflict(held_for) => return Err(BlockError::Locked { path: path.into(), held_for }),
        }
        Ok(file)
    }

    fn open_qcow2(&mut self, path: &Path, file: Arc<OpenFile>, writable: bool) -> Result<Layer, BlockError> {
        let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
        let header = qcow2::check_header(path, &*file, file.len().map_err(failed)?)?;
        let backing = match &header.backing_file {
            Some(name) => Some(self.open_backing(path, name, header.backing_format.as_deref())?),
            None => None,
        };
        let (qcow2, _) = qcow2::open(path, file, backing, writable, self.durable)?;
        Ok(Layer::Qcow2(Box::new(qcow2)))
    }

    fn open_backing(&mut self, above: &Path, name: &str, format: Option<&str>) -> Result<Layer, BlockError> {
        let wrong = |why: String| BlockError::Backing { path: above.into(), why };
        if self.refuse_backing {
            return Err(wrong(format!(
                "it wants `{name}`, and images from elsewhere may not name files of this host"
            )));
        }
        if self.seen.len() >= MAX_LAYERS {
            return Err(wrong(format!("more than {MAX_LAYERS} images depend on each other")));
        }
        let name = name.strip_prefix("file:").unwrap_or(name);
        let protocol = name.split_once(':').filter(|(scheme, _)| !scheme.contains('/'));
        if let Some((scheme, _)) = protocol {
            return Err(wrong(format!("`{scheme}:` names are not supported, only files")));
        }
        let path = above.parent().unwrap_or(Path::new("")).join(name);
        let format = match format {
            None => None,
            Some("raw" | "file" | "host_device") => Some(ImageFormat::Raw),
            Some(name) => {
                Some(name.parse().map_err(|_| wrong(format!("its format `{name}` is not supported")))?)
            }
        };
        let (layer, found) = self.open(&path, format, false)?;
        if format.is_none() && found != ImageFormat::Raw {
            let name = above.display();
            return Err(BlockError::FormatInDoubt {
                path,
                why: format!("it looks like {found}, but the image on top of it does not say so"),
                fix: format!("record it: `qemu-img rebase -u -f qcow2 -F {found} -b BACKING {name}`"),
            });
        }
        Ok(layer)
    }
}

/// The same file once more, past the host's cache; `None` where the file system has no such thing.
fn open_direct(path: &Path, file: &File, writable: bool) -> Result<Option<File>, BlockError> {
    let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
    let flags = (OFlags::DIRECT | OFlags::NOCTTY).bits() as i32;
    let direct = match File::options().read(true).write(writable).custom_flags(flags).open(path) {
        Ok(direct) => direct,
        Err(e) if e.kind() == ErrorKind::InvalidInput => {
            tracing::warn!(image = %path.display(), "the file system cannot go past the host's cache: cache=none is cache=writeback here");
            return Ok(None);
        }
        Err(e) => return Err(failed(e)),
    };
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
    match identity(&direct).map_err(failed)? == identity(file).map_err(failed)? {
        true => Ok(Some(direct)),
        false => Err(failed(io::Error::other("the file was replaced while it was opened"))),
    }
}

pub(super) fn not_a_disk(kind: &std::fs::FileType) -> Option<&'static str> {
    match kind {
        k if k.is_file() || k.is_block_device() => None,
        k if k.is_dir() => Some("directory"),
        k if k.is_fifo() => Some("FIFO"),
        k if k.is_socket() => Some("socket"),
        _ => Some("character device"),
    }
}

/// The format to open `file` with: the stated one if the contents allow it, else what its first bytes say.
pub(super) fn settle_format(
    path: &Path,
    file: &File,
    stated: Option<ImageFormat>,
) -> Result<ImageFormat, BlockError> {
    let mut head = [0; qcow2::PROBE_BYTES];
    let mut len = 0;
    while len < head.len() {
        match file.read_at(&mut head[len..], len as u64) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(BlockError::Host { path: path.into(), doing: "read", source }),
        }
    }
    let found = qcow2::probe(&head[..len]);
    match (stated, found) {
        (Some(ImageFormat::Raw), _) => Ok(ImageFormat::Raw),
        (Some(wanted), Probe::Known(found)) if wanted != found => {
            let why = format!("its first bytes are not {wanted}'s");
            Err(BlockError::WrongFormat { path: path.into(), wanted, why })
        }
        (_, Probe::Foreign(format, fix)) => {
            Err(BlockError::UnsupportedFormat { path: path.into(), format, fix })
        }
        (None, Probe::Known(ImageFormat::Qcow2))
            if path.extension().is_some_and(|e| e == "raw" || e == "iso") =>
        {
            Err(BlockError::FormatInDoubt {
                path: path.into(),
                why: "it is named as a raw image and begins like a qcow2 one".into(),
                fix: "state the format: format=qcow2 (or format=raw)".into(),
            })
        }
        (_, Probe::Known(found)) => Ok(found),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
