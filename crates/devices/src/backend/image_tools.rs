//! What can be done with image files besides running a machine on them: describe, check, copy.

use super::{
    block::{BlockBackend, BlockError},
    host_file::{HostFile, OpenFile},
    image::{self, Image, ImageFormat, ImageOptions},
    image_lock, qcow2,
};
use serde::Serialize;
use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub use qcow2::check::CheckReport;

/// Bytes copied at a time.
const COPY_BYTES: usize = 2 << 20;
/// What is all zeros in these units is not written.
const ZERO_UNIT: usize = 64 << 10;
/// Images of a chain that are described.
const MAX_DESCRIBED: usize = 32;

/// What is known of an image without opening it for use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// The disk's length, in bytes.
    pub size_bytes: u64,
    /// Bytes the file takes on the host.
    pub host_bytes: u64,
    /// Its unit of allocation (qcow2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_bytes: Option<u64>,
    /// Snapshots inside the image (qcow2).
    pub snapshots: u32,
    /// It was not closed properly (qcow2).
    pub dirty: bool,
    /// It is encrypted, or has a feature that cannot be used.
    pub usable: bool,
    /// Another program has it open for this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_use: Option<&'static str>,
    /// The file below it, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_file: Option<String>,
    /// That one's format, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_format: Option<String>,
}

fn open(path: &Path) -> Result<File, BlockError> {
    let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if let Some(kind) = image::not_a_disk(&kind) {
        return Err(BlockError::NotADisk { path: path.into(), kind });
    }
    File::open(path).map_err(failed)
}

/// Describes the image at `path`, also while it is in use.
pub fn info(path: &Path, format: Option<ImageFormat>) -> Result<ImageInfo, BlockError> {
    let failed = |source| BlockError::Host { path: path.into(), doing: "read", source };
    let file = open(path)?;
    let metadata = file.metadata().map_err(failed)?;
    let format = image::settle_format(path, &file, format)?;
    let in_use = image_lock::user(&file).map_err(failed)?;
    let file = OpenFile::new(file, None);
    let file_bytes = file.len().map_err(failed)?;
    let mut info = ImageInfo {
        path: path.into(),
        format,
        size_bytes: file_bytes,
        host_bytes: metadata.blocks() * 512,
        cluster_bytes: None,
        snapshots: 0,
        dirty: false,
        usable: true,
        in_use,
        backing_file: None,
        backing_format: None,
    };
    if format == ImageFormat::Qcow2 {
        let described = qcow2::describe(path, &file, file_bytes)?;
        info.size_bytes = described.fields.size;
        info.cluster_bytes = Some(described.fields.cluster_bytes());
        info.snapshots = described.fields.snapshots;
        info.dirty = described.fields.incompatible & qcow2::DIRTY != 0;
        info.usable = qcow2::check_header(path, &file, file_bytes).is_ok();
        info.backing_file = described.header.backing_file;
        info.backing_format = described.header.backing_format;
    }
    Ok(info)
}

/// Describes the image and what lies below it, top first; ends where a chain leads back or gets too long.
pub fn chain(path: &Path, format: Option<ImageFormat>) -> Result<Vec<ImageInfo>, BlockError> {
    let mut images = vec![info(path, format)?];
    while images.len() < MAX_DESCRIBED {
        let Some(last) = images.last() else { break };
        let Some(name) = &last.backing_file else { break };
        let name = name.strip_prefix("file:").unwrap_or(name);
        let path = last.path.parent().unwrap_or(Path::new("")).join(name);
        if images.iter().any(|image| image.path == path) {
            break;
        }
        let format = last.backing_format.as_deref().and_then(|format| format.parse().ok());
        images.push(info(&path, format)?);
    }
    Ok(images)
}

/// Checks the tables of an image that nobody uses; `progress` hears the share done, 0 to 1. A raw image has none.
pub fn check(
    path: &Path,
    format: Option<ImageFormat>,
    repair: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<CheckReport, BlockError> {
    let failed = |source| BlockError::Host { path: path.into(), doing: "open", source };
    drop(open(path)?);
    let file = File::options().read(true).write(repair).open(path).map_err(failed)?;
    let format = image::settle_format(path, &file, format)?;
    match image_lock::lock(&file, repair).map_err(failed)? {
        image_lock::Lock::Conflict(held_for) => {
            return Err(BlockError::Locked { path: path.into(), held_for });
        }
        image_lock::Lock::Held | image_lock::Lock::Unavailable => {}
    }
    match format {
        ImageFormat::Raw => Ok(CheckReport::default()),
        ImageFormat::Qcow2 => qcow2::check::check(path, &OpenFile::new(file, None), repair, progress),
    }
}

/// Makes an overlay's record of `base`: its name as seen from `overlay`'s directory, its format and its length.
pub fn backing_of(
    overlay: &Path,
    base: &Path,
    format: Option<ImageFormat>,
) -> Result<(PathBuf, ImageFormat, u64), BlockError> {
    let failed = |source| BlockError::Host { path: base.into(), doing: "open", source };
    let image = Image::open(base, &ImageOptions { format, read_only: true, ..ImageOptions::default() })?;
    let base = base.canonicalize().map_err(failed)?;
    let directory =
        overlay.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = directory.canonicalize().ok().zip(base.parent()).is_some_and(|(own, its)| own == its);
    // Images that lie together are moved together.
    let name = base.file_name().filter(|_| beside).map_or_else(|| base.clone(), PathBuf::from);
    Ok((name, image.format(), image.size_bytes()))
}

/// Copies the disk in `source` to a new image at `to`; `progress` hears bytes done. Nothing is left if it fails.
pub fn convert(
    source: &Image,
    to: &Path,
    format: ImageFormat,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BlockError> {
    let size = source.size_bytes().next_multiple_of(super::block::SECTOR_BYTES);
    Image::create(to, format, size, None)?;
    let options = ImageOptions { format: Some(format), ..ImageOptions::default() };
    let copied = Image::open(to, &options).and_then(|target| {
        let failed = |error| BlockError::Copy { from: source.path().into(), to: to.into(), source: error };
        copy(source, &target, progress).map_err(failed)
    });
    copied.inspect_err(|_| {
        let _ = std::fs::remove_file(to);
    })
}

fn copy(source: &Image, target: &Image, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let (mut at, end) = (0, source.size_bytes());
    while at < end {
        let (data, len) = source.has_data(at)?;
        if len == 0 {
            return Err(io::Error::other("the image ends before its end"));
        }
        if !data {
            at += len;
            progress(at);
            continue;
        }
        let len = len.min(COPY_BYTES as u64 - at % ZERO_UNIT as u64);
        let chunk = &mut buffer[..len as usize];
        source.read_vectored(at, (&mut *chunk).into())?;
        // Zeros at the same places in every copy, whatever the source's extents.
        let mut from = 0;
        while from < chunk.len() {
            let unit = (ZERO_UNIT - (at as usize + from) % ZERO_UNIT).min(chunk.len() - from);
            let part = &chunk[from..from + unit];
            if part.iter().any(|byte| *byte != 0) {
                target.write_vectored(at + from as u64, part.into())?;
            }
            from += unit;
        }
        at += len;
        progress(at);
    }
    target.flush()
}
