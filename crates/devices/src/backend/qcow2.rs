//! qcow2 images; here image format probing, and checks of a qcow2 header before anything is allocated by it
//! (QEMU's `docs/interop/qcow2.rst`, versions 2 and 3).

mod batch;
pub(super) mod check;
mod create;
mod disk;
mod tables;

pub(super) use create::{Create, create};
pub(super) use disk::Qcow2;

use super::{
    block::BlockError,
    host_file::{HostFile, read_vec},
    image::ImageFormat,
    layer::Layer,
};
use check::CheckReport;
use std::{path::Path, sync::Arc};

/// First bytes of a qcow2 image.
pub(crate) const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Bytes needed to probe a format.
pub(crate) const PROBE_BYTES: usize = 512;

const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_BACKING_NAME_BYTES: u32 = 1023;
const V2_HEADER_BYTES: usize = 72;
const V3_HEADER_BYTES: usize = 104;
/// Type of the header extension that holds the backing file's format.
const BACKING_FORMAT_EXTENSION: u32 = 0xe279_2aca;
/// Sizes of a cluster, as powers of two.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Incompatible feature: reference counts may be wrong.
pub(super) const DIRTY: u64 = 1 << 0;
/// Autoclear feature: the bitmaps extension names clusters that are in use.
const BITMAPS_VALID: u64 = 1 << 0;
/// L1 and L2 entries: where the table or cluster is.
pub(super) const L2_OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;

const CONVERT: &str = "`qemu-img convert -O qcow2 OLD NEW` makes an image that works";
const UNPACK: &str = "unpack it first";

/// Formats that are recognised in order to be refused: `(first bytes, name, fix)`.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (b"KDMV", "VMDK", CONVERT),
    (b"# Disk DescriptorFile", "VMDK descriptor", CONVERT),
    (b"vhdxfile", "VHDX", CONVERT),
    (b"conectix", "VHD", CONVERT),
    (b"<<< ", "VDI", CONVERT),
    (b"QED\0", "QED", CONVERT),
    (b"WithoutFreeSpace", "Parallels", CONVERT),
    (b"WithouFreSpacExt", "Parallels", CONVERT),
    (
        b"LUKS\xba\xbe",
        "LUKS-encrypted",
        "unlock it on the host, or let the guest unlock it with the format given as raw",
    ),
    (b"\x1f\x8b\x08", "gzip", UNPACK),
    (b"\xfd7zXZ\0", "xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd", UNPACK),
    (b"BZh", "bzip2", UNPACK),
    (b"PK\x03\x04", "zip", UNPACK),
];

/// What the first bytes of a file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A format that can be opened; raw when nothing else fits.
    Known(ImageFormat),
    /// A format that cannot: its name, and what to do about it.
    Foreign(&'static str, &'static str),
}

/// Tells the format by the first [`PROBE_BYTES`] bytes.
pub(crate) fn probe(head: &[u8]) -> Probe {
    if head.starts_with(MAGIC) {
        return Probe::Known(ImageFormat::Qcow2);
    }
    let foreign = FOREIGN.iter().find(|(magic, ..)| head.starts_with(magic));
    foreign.map_or(Probe::Known(ImageFormat::Raw), |(_, name, fix)| Probe::Foreign(name, fix))
}

/// What opening a qcow2 image needs to know beyond what the library handles.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Qcow2Header {
    /// Name of the backing file, as recorded.
    pub(crate) backing_file: Option<String>,
    /// Format of the backing file, as recorded.
    pub(crate) backing_format: Option<String>,
}

/// Reads and checks the header and first-level table of `file`. After this, the sizes in the header are bounded:
/// 32 MiB of L1, 8 MiB of refcount table, 2 MiB clusters.
pub(super) fn check_header(
    path: &Path,
    file: &dyn HostFile,
    file_bytes: u64,
) -> Result<Qcow2Header, BlockError> {
    let checker = Checker { path, file, file_bytes };
    let fields = checker.fields()?;
    checker.features(&fields, DIRTY)?;
    checker.tables(&fields)?;
    checker.backing(&fields)
}

/// Opens the image in `file`, whose header [`check_header`] has accepted. One that was not closed properly is checked
/// first and rid of leaks, if it is to be written; returns how many there were.
pub(super) fn open(
    path: &Path,
    file: Arc<dyn HostFile>,
    backing: Option<Layer>,
    writable: bool,
    durable: bool,
) -> Result<(Qcow2, u64), BlockError> {
    let failed = |source| BlockError::Host { path: path.into(), doing: "read", source };
    let file_bytes = file.len().map_err(failed)?;
    let checker = Checker { path, file: &*file, file_bytes };
    let fields = checker.fields()?;
    checker.tables(&fields)?;
    let mut leaks = 0;
    if writable && fields.incompatible & DIRTY != 0 {
        let report = check::check(path, &*file, true, &mut |_| {})?;
        if report.corruptions > 0 {
            let first = report.problems.first().cloned().unwrap_or_default();
            return Err(checker.damaged(format!("it was not closed properly, and {first}")));
        }
        leaks = report.leaks;
        tracing::info!(image = %path.display(), leaks, "the image was not closed properly; it is sound");
    }
    let qcow2 = Qcow2::open(file.clone(), &fields, backing, writable, durable)
        .map_err(|error| checker.damaged(error.to_string()))?;
    Ok((qcow2, leaks))
}

/// Checks the image in `file`.
pub(super) fn check_alone(path: &Path, file: &dyn HostFile) -> Result<CheckReport, BlockError> {
    check::check(path, file, false, &mut |_| {})
}

/// The header's fields as they are on disk.
pub(super) struct Fields {
    pub(super) version: u32,
    backing_offset: u64,
    backing_len: u32,
    /// 9 to 21, once checked.
    pub(super) cluster_bits: u32,
    /// The disk's length in bytes.
    pub(super) size: u64,
    crypt_method: u32,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
    pub(super) refcount_offset: u64,
    pub(super) refcount_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    pub(super) incompatible: u64,
    pub(super) autoclear: u64,
    /// log2 of the bits in a reference count.
    pub(super) refcount_order: u32,
    header_len: u32,
}

impl Fields {
    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// What a header says about an image, for people.
pub(super) struct Description {
    pub(super) fields: Fields,
    pub(super) header: Qcow2Header,
}

/// Reads the header of an image that need not be usable: encrypted, in use, not closed properly.
pub(super) fn describe(path: &Path, file: &dyn HostFile, file_bytes: u64) -> Result<Description, BlockError> {
    let checker = Checker { path, file, file_bytes };
    let fields = checker.fields()?;
    if !CLUSTER_BITS.contains(&fields.cluster_bits) {
        return Err(checker.damaged(format!("its cluster size is 2^{} bytes", fields.cluster_bits)));
    }
    let header = checker.backing(&fields)?;
    Ok(Description { fields, header })
}

/// Reads the header of an image all of whose clusters can be accounted for.
fn checked_fields(path: &Path, file: &dyn HostFile, file_bytes: u64) -> Result<Fields, BlockError> {
    let checker = Checker { path, file, file_bytes };
    let fields = checker.fields()?;
    checker.features(&fields, DIRTY)?;
    checker.tables(&fields)?;
    if fields.autoclear & BITMAPS_VALID != 0 {
        return Err(checker.unsupported("has persistent bitmaps", "`qemu-img bitmap --remove` removes them"));
    }
    Ok(fields)
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

struct Checker<'a> {
    path: &'a Path,
    file: &'a dyn HostFile,
    file_bytes: u64,
}

impl Checker<'_> {
    fn damaged(&self, why: impl Into<String>) -> BlockError {
        BlockError::Damaged { path: self.path.into(), why: why.into() }
    }

    fn unsupported(&self, what: impl Into<String>, fix: &'static str) -> BlockError {
        BlockError::UnsupportedFeature { path: self.path.into(), what: what.into(), fix }
    }

    /// `len` bytes at `offset`; the caller bounds `len`.
    fn read(&self, offset: u64, len: usize, what: &str) -> Result<Vec<u8>, BlockError> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.file_bytes) {
            let why = format!("its {what} ends beyond the end of the file ({} bytes)", self.file_bytes);
            return Err(self.damaged(why));
        }
        let failed = |source| BlockError::Host { path: self.path.into(), doing: "read", source };
        read_vec(self.file, offset, len).map_err(failed)
    }

    fn fields(&self) -> Result<Fields, BlockError> {
        let v2 = self.read(0, V2_HEADER_BYTES, "header")?;
        let version = be32(&v2, 4);
        let v3 = match version {
            2 => Vec::new(),
            3 => self.read(0, V3_HEADER_BYTES, "header")?,
            _ => return Err(self.unsupported(format!("has version {version}"), CONVERT)),
        };
        Ok(Fields {
            version,
            backing_offset: be64(&v2, 8),
            backing_len: be32(&v2, 16),
            cluster_bits: be32(&v2, 20),
            size: be64(&v2, 24),
            crypt_method: be32(&v2, 32),
            l1_entries: be32(&v2, 36),
            l1_offset: be64(&v2, 40),
            refcount_offset: be64(&v2, 48),
            refcount_clusters: be32(&v2, 56),
            snapshots: be32(&v2, 60),
            snapshots_offset: be64(&v2, 64),
            autoclear: be64(&v3, 88),
            incompatible: be64(&v3, 72),
            refcount_order: if version == 2 { 4 } else { be32(&v3, 96) },
            header_len: if version == 2 { V2_HEADER_BYTES as u32 } else { be32(&v3, 100) },
        })
    }

    fn features(&self, fields: &Fields, allowed: u64) -> Result<(), BlockError> {
        const REPAIR: &str = "`qemu-img check -r all` repairs it";
        const FEATURES: [(u64, &str, &str); 5] = [
            (DIRTY, "was not closed properly (dirty bit)", REPAIR),
            (1 << 1, "is marked corrupt", REPAIR),
            (1 << 2, "keeps its data in another file", CONVERT),
            (1 << 3, "is compressed with something other than deflate", CONVERT),
            (1 << 4, "has extended L2 entries", CONVERT),
        ];
        if fields.crypt_method != 0 {
            return Err(self.unsupported("is encrypted", CONVERT));
        }
        if let Some((_, what, fix)) =
            FEATURES.iter().find(|(bit, ..)| fields.incompatible & !allowed & bit != 0)
        {
            return Err(self.unsupported(*what, fix));
        }
        if fields.incompatible & !allowed != 0 {
            let what = format!("needs features {:#x}, which are unknown", fields.incompatible);
            return Err(self.unsupported(what, CONVERT));
        }
        Ok(())
    }

    fn tables(&self, fields: &Fields) -> Result<(), BlockError> {
        if !CLUSTER_BITS.contains(&fields.cluster_bits) {
            return Err(self.damaged(format!("its cluster size is 2^{} bytes", fields.cluster_bits)));
        }
        let cluster = fields.cluster_bytes();
        if fields.refcount_order > 6 {
            return Err(self.damaged(format!("its reference counts have 2^{} bits", fields.refcount_order)));
        }
        let least_header = if fields.version == 2 { V2_HEADER_BYTES } else { V3_HEADER_BYTES } as u64;
        if !(least_header..=cluster).contains(&u64::from(fields.header_len)) {
            return Err(self.damaged(format!("its header has {} bytes", fields.header_len)));
        }
        // Bytes of the disk that one L1 entry maps: an L2 table fills a cluster with 8-byte entries.
        let mapped_by_l1_entry = u128::from(cluster) * u128::from(cluster / 8);
        let l1_needed = u128::from(fields.size).div_ceil(mapped_by_l1_entry);
        let l1_bytes = u64::from(fields.l1_entries) * 8;
        if l1_bytes > MAX_L1_BYTES
            || u128::from(fields.l1_entries) < l1_needed
            || fields.size > i64::MAX as u64
        {
            let (size, entries) = (fields.size, fields.l1_entries);
            return Err(self.damaged(format!("an L1 table of {entries} entries cannot map {size} bytes")));
        }
        let refcount_bytes = u64::from(fields.refcount_clusters) << fields.cluster_bits;
        if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_TABLE_BYTES.max(cluster) {
            return Err(self.damaged(format!("its refcount table has {refcount_bytes} bytes")));
        }
        if !fields.l1_offset.is_multiple_of(cluster) || !fields.refcount_offset.is_multiple_of(cluster) {
            return Err(self.damaged("its tables do not start at cluster boundaries"));
        }
        if fields.refcount_offset.checked_add(refcount_bytes).is_none_or(|end| end > self.file_bytes) {
            return Err(self.damaged("its refcount table lies beyond the end of the file"));
        }
        let l1 = self.read(fields.l1_offset, l1_bytes as usize, "L1 table")?;
        let l2_offsets = (0..l1.len()).step_by(8).map(|at| be64(&l1, at) & L2_OFFSET_MASK);
        for offset in l2_offsets {
            if !offset.is_multiple_of(cluster) {
                return Err(
                    self.damaged(format!("an L2 table at {offset:#x} is not aligned to its clusters"))
                );
            }
            if offset >= self.file_bytes {
                return Err(
                    self.damaged(format!("an L2 table at {offset:#x} lies beyond the end of the file"))
                );
            }
        }
        Ok(())
    }

    fn backing(&self, fields: &Fields) -> Result<Qcow2Header, BlockError> {
        if fields.backing_offset == 0 {
            return Ok(Qcow2Header::default());
        }
        let cluster = fields.cluster_bytes();
        let len = fields.backing_len;
        let inside = fields.backing_offset.checked_add(len.into()).is_some_and(|end| end <= cluster);
        if len > MAX_BACKING_NAME_BYTES || !inside {
            return Err(self.damaged("the name of its backing file is not in the first cluster"));
        }
        let name = self.read(fields.backing_offset, len as usize, "backing file name")?;
        let name =
            String::from_utf8(name).map_err(|_| self.damaged("the name of its backing file is not UTF-8"))?;
        let backing_format = self.backing_format(fields)?;
        Ok(Qcow2Header { backing_file: Some(name), backing_format })
    }

    /// Walks the header extensions for the backing file's format.
    fn backing_format(&self, fields: &Fields) -> Result<Option<String>, BlockError> {
        let end = fields.cluster_bytes().min(fields.backing_offset);
        let mut at = u64::from(fields.header_len);
        while at + 8 <= end {
            let head = self.read(at, 8, "header extension")?;
            let (kind, len) = (be32(&head, 0), u64::from(be32(&head, 4)));
            if kind == 0 {
                break;
            }
            if at + 8 + len > end {
                return Err(self.damaged("a header extension is longer than the header"));
            }
            if kind == BACKING_FORMAT_EXTENSION {
                let name = self.read(at + 8, len as usize, "backing format")?;
                return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
            }
            at += 8 + len.next_multiple_of(8);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        assert_eq!(probe(b"QFI\xfb\0\0\0\x03"), Probe::Known(ImageFormat::Qcow2));
        assert_eq!(probe(b""), Probe::Known(ImageFormat::Raw));
        assert_eq!(probe(&[0; 512]), Probe::Known(ImageFormat::Raw));
        assert!(matches!(probe(b"KDMV\x01"), Probe::Foreign("VMDK", _)));
        assert!(matches!(probe(b"\xfd7zXZ\0rest"), Probe::Foreign("xz", _)));
    }
}
