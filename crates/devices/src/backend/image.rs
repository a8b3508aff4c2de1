//! Disk images in files and block devices: raw and qcow2 with backing files, read and written by `imago`.
//!
//! An image's format is settled when it is opened: stated by the caller, or detected and from then on
//! part of what the machine records. A guest that writes a qcow2 header into a disk whose format was detected
//! as raw would change what the next start makes of the file, so exactly that write is refused.

use super::{
    block::{BlockBackend, BlockError, IoVector, IoVectorMut, SECTOR_BYTES},
    image_lock::{self, Lock},
    qcow2::{self, Probe},
};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping, Storage,
    StorageOpenOptions, file::File as StorageFile, format::PreallocateMode, qcow2::Qcow2, raw::Raw,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

type Access = FormatAccess<StorageFile>;

/// The longest disk: what a qcow2 image with clusters of 64 KiB can map with an L1 table of a megabyte.
const MAX_DISK_BYTES: u64 = 64 << 40;
/// Images in a backing chain, at most.
const MAX_LAYERS: usize = 32;

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
}

/// An open disk image.
pub struct Image {
    path: PathBuf,
    format: ImageFormat,
    read_only: bool,
    size_bytes: AtomicU64,
    /// The format was detected as raw: writes must not turn it into anything else.
    keep_raw: bool,
    /// Shared for reads and writes, exclusive for what takes storage away (discard).
    access: RwLock<Access>,
    /// Of a raw image, to ask the host where its holes are.
    raw: Option<File>,
    /// What is below the image has no end that matters: see [`Self::resize`].
    has_backing: bool,
    /// The library gave up in mid-operation; what it holds can no longer be trusted.
    failed: AtomicBool,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {}, {} bytes)", self.path.display(), self.format, self.size_bytes())
    }
}

impl Image {
    /// Opens the image at `path` and locks it, and its backing files, against conflicting use.
    pub fn open(path: &Path, options: &ImageOptions) -> Result<Self, BlockError> {
        let read_only_file = options.read_only || options.ephemeral;
        let mut chain = Chain { refuse_backing: options.refuse_backing, seen: Vec::new() };
        let layer = chain.open(path, options.format, !read_only_file)?;
        let (format, detected) = (layer.format, options.format.is_none());
        let access = if options.ephemeral { overlay(path, layer.access)? } else { layer.access };
        let raw = layer.raw.filter(|_| !options.ephemeral);
        Ok(Self {
            path: path.into(),
            format,
            read_only: options.read_only,
            size_bytes: AtomicU64::new(access.size()),
            keep_raw: detected && format == ImageFormat::Raw && !options.ephemeral,
            access: RwLock::new(access),
            raw,
            has_backing: layer.has_backing || options.ephemeral,
            failed: AtomicBool::new(false),
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
        let made = match (format, backing) {
            (ImageFormat::Raw, None) => file.set_len(size_bytes),
            (ImageFormat::Raw, Some(_)) => Err(io::Error::other("a raw image cannot have a backing file")),
            (ImageFormat::Qcow2, backing) => guarded(|| {
                let storage_options = StorageOpenOptions::new().filename(path).write(true);
                let storage = StorageFile::from_open_file(file, storage_options)?;
                let mut builder = Qcow2::<StorageFile>::create_builder(storage).size(size_bytes);
                if let Some((backing, format)) = backing {
                    let name = backing
                        .to_str()
                        .ok_or_else(|| io::Error::other("the backing file's name is not UTF-8"))?;
                    builder = builder.backing(name.to_owned(), format.name().to_owned());
                }
                builder.create()
            }),
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
        // What a longer backing file holds beyond the old end must not appear.
        let growth = match self.format {
            ImageFormat::Raw => PreallocateMode::None,
            ImageFormat::Qcow2 => PreallocateMode::Zero,
        };
        self.run(self.exclusive(), |mut access| {
            let wanted = if self.has_backing { growth } else { PreallocateMode::None };
            access.resize(size_bytes, wanted)?;
            access.flush()?;
            access.sync()?;
            self.size_bytes.store(size_bytes, Ordering::Release);
            Ok(())
        })
        .map_err(failed)
    }

    /// Does the image, or anything below it, hold data for the bytes from `offset`? Returns that and for how many
    /// bytes it holds, at least 1 before the disk's end.
    pub fn has_data(&self, offset: u64) -> io::Result<(bool, u64)> {
        let rest = self.size_bytes().saturating_sub(offset);
        if let Some(file) = &self.raw {
            return data_or_hole(file, offset, rest);
        }
        let mut answer = (true, rest);
        self.run(self.shared(), |access| {
            let (mapping, len) = access.get_mapping(offset, rest)?;
            answer = (!matches!(mapping, Mapping::Zero { .. }), len);
            Ok(())
        })?;
        Ok(answer)
    }

    /// Where the image is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format it was opened as: what to record, so that it is never detected again.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Runs one operation of the library. Damage it does not expect may make it panic: that costs the image, not the machine.
    fn run<G>(&self, guard: G, operation: impl FnOnce(G) -> io::Result<()>) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("the image failed before"));
        }
        let result = catch_unwind(AssertUnwindSafe(|| operation(guard)));
        result.unwrap_or_else(|_| {
            self.failed.store(true, Ordering::Release);
            tracing::error!(image = %self.path.display(), "the disk image is damaged beyond what can be handled; it is out of use");
            Err(io::Error::new(ErrorKind::InvalidData, "damaged image"))
        })
    }

    fn shared(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Access> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
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
        self.run(self.shared(), |access| access.read(&mut result[..], 0))?;
        let at = offset as usize;
        result[at..at + written.len()].copy_from_slice(written);
        if qcow2::probe(&result) != Probe::Known(ImageFormat::Raw) {
            isomer_core::guest_warn!(image = %self.path.display(), "refused a write that would change what the image looks like; state its format to allow it");
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.run(self.shared(), |access| access.write(written, offset))
    }
}

impl BlockBackend for Image {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_vectored(&self, offset: u64, buffers: IoVectorMut<'_>) -> io::Result<()> {
        self.run(self.shared(), |access| access.readv(buffers, offset))
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
        self.run(self.shared(), |access| access.writev(buffers, offset))
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.run(self.shared(), |access| {
            access.flush()?;
            access.sync()
        })
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable(offset, len)?;
        let discarded = self.run(self.exclusive(), |mut access| access.discard_to_any(offset, len));
        // A discard is advice: a host that cannot take it has done nothing wrong.
        discarded.or_else(|e| if e.kind() == ErrorKind::Unsupported { Ok(()) } else { Err(e) })
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.check_writable(offset, len)?;
        let zeroed = match unmap {
            true => self.run(self.exclusive(), |mut access| access.discard_to_zero(offset, len)),
            false => self.run(self.shared(), |access| access.write_zeroes(offset, len)),
        };
        match zeroed {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                self.run(self.shared(), |access| write_zero_blocks(&access, offset, len))
            }
            other => other,
        }
    }
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

/// Does `file` hold data at `offset`, and for how many of the `len` bytes from there does that answer hold?
fn data_or_hole(file: &File, offset: u64, len: u64) -> io::Result<(bool, u64)> {
    use rustix::{
        fs::{SeekFrom, seek},
        io::Errno,
    };
    if len == 0 {
        return Ok((false, 0));
    }
    let within = |end: u64| end.saturating_sub(offset).min(len);
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => Ok((false, within(data))),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => Ok((true, within(hole))),
            _ => Ok((true, len)),
        },
        // No data up to the end of the file.
        Err(Errno::NXIO) => Ok((false, len)),
        // The file system cannot tell.
        Err(_) => Ok((true, len)),
    }
}

/// Zeroes as data, for formats and hosts that know no better (qcow2 version 2).
fn write_zero_blocks(access: &Access, mut offset: u64, len: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let end = offset + len;
    while offset < end {
        let chunk = (end - offset).min(ZEROES.len() as u64);
        access.write(&ZEROES[..chunk as usize], offset)?;
        offset += chunk;
    }
    Ok(())
}

/// Runs library code on an image that may be hostile: its panics become errors.
fn guarded<T>(operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(operation));
    result.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::InvalidData, "its metadata contradicts itself")))
}

/// A qcow2 overlay on `base` in a file without a name.
fn overlay(path: &Path, base: Access) -> Result<Access, BlockError> {
    let failed =
        |source| BlockError::Host { path: path.into(), doing: "make a temporary overlay of", source };
    let file = temporary_file().map_err(failed)?;
    guarded(|| {
        let storage = StorageFile::from_open_file(file, StorageOpenOptions::new().write(true))?;
        let size = base.size();
        let created = Qcow2::<StorageFile>::create_builder(storage).size(size);
        let open = |storage| Ok(Qcow2::builder(storage).backing(Some(base)).data_file(None).write(true));
        created.create_open(DenyImplicitOpenGate::default(), open).map(FormatAccess::new)
    })
    .map_err(failed)
}

/// A file without a name in the temporary directory, or in memory where the file system cannot do that.
fn temporary_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        .or_else(|_| rustix::fs::memfd_create("isomer-overlay", rustix::fs::MemfdFlags::CLOEXEC))?;
    Ok(file.into())
}

/// One opened image of a backing chain.
struct Layer {
    access: Access,
    format: ImageFormat,
    raw: Option<File>,
    has_backing: bool,
}

/// Opens an image and what lies below it.
struct Chain {
    refuse_backing: bool,
    /// Device and inode numbers of the images above.
    seen: Vec<(u64, u64)>,
}

impl Chain {
    fn open(
        &mut self,
        path: &Path,
        format: Option<ImageFormat>,
        writable: bool,
    ) -> Result<Layer, BlockError> {
        let (file, file_bytes) = self.open_file(path, writable)?;
        let format = settle_format(path, &file, format)?;
        match format {
            ImageFormat::Raw => {
                let raw = file.try_clone().ok();
                Ok(Layer { access: open_raw(path, file, writable)?, format, raw, has_backing: false })
            }
            ImageFormat::Qcow2 => {
                let (access, has_backing) = self.open_qcow2(path, file, file_bytes, writable)?;
                Ok(Layer { access, format, raw: None, has_backing })
            }
        }
    }

    /// Opens, identifies and locks the file; never blocks on a FIFO. Returns its length in bytes too.
    fn open_file(&mut self, path: &Path, writable: bool) -> Result<(File, u64), BlockError> {
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
        let storage = file.try_clone().and_then(StorageFile::try_from).map_err(failed)?;
        let file_bytes = storage.size().map_err(failed)?;
        Ok((file, file_bytes))
    }

    fn open_qcow2(
        &mut self,
        path: &Path,
        file: File,
        file_bytes: u64,
        writable: bool,
    ) -> Result<(Access, bool), BlockError> {
        let header = qcow2::check(path, &file, file_bytes)?;
        let backing = match &header.backing_file {
            Some(name) => Some(self.open_backing(path, name, header.backing_format.as_deref())?),
            None => None,
        };
        let has_backing = backing.is_some();
        let access = guarded(|| {
            let options = StorageOpenOptions::new().filename(path).write(writable);
            let storage = StorageFile::from_open_file(file, options)?;
            let builder =
                Qcow2::<StorageFile>::builder(storage).write(writable).backing(backing).data_file(None);
            builder.open(DenyImplicitOpenGate::default()).map(FormatAccess::new)
        })
        .map_err(|error| BlockError::Damaged { path: path.into(), why: error.to_string() })?;
        Ok((access, has_backing))
    }

    fn open_backing(&mut self, above: &Path, name: &str, format: Option<&str>) -> Result<Access, BlockError> {
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
        let layer = self.open(&path, format, false)?;
        if format.is_none() && layer.format != ImageFormat::Raw {
            let name = above.display();
            return Err(BlockError::FormatInDoubt {
                path,
                why: format!("it looks like {}, but the image on top of it does not say so", layer.format),
                fix: format!(
                    "record it: `qemu-img rebase -u -f qcow2 -F {} -b BACKING {name}`",
                    layer.format
                ),
            });
        }
        Ok(layer.access)
    }
}

fn open_raw(path: &Path, file: File, writable: bool) -> Result<Access, BlockError> {
    guarded(|| {
        let options = StorageOpenOptions::new().filename(path).write(writable);
        let storage = StorageFile::from_open_file(file, options)?;
        let builder = Raw::<StorageFile>::builder(storage).write(writable);
        builder.open(DenyImplicitOpenGate::default()).map(FormatAccess::new)
    })
    .map_err(|source| BlockError::Host { path: path.into(), doing: "open", source })
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
