//! Initial RAM disks: cpio archives (Linux Documentation/driver-api/early-userspace/buffer-format.rst), compressed or
//! not, and old-style file-system images. Linux unpacks them; here they are only recognised and placed.

use super::{
    Span,
    error::{LoadError, Role, first_bytes},
};
use isomer_core::{Gpa, GuestMemory};

/// What Linux takes for an initrd or initramfs: magic bytes at an offset.
const ACCEPTED: &[(usize, &[u8])] = &[
    (0, b"070701"),
    (0, b"070702"),
    (0, b"\x1f\x8b"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"\xfd7zXZ\0"),
    (0, b"BZh"),
    (0, b"\x5d\0\0"),
    (0, b"\x02\x21\x4c\x18"),
    (0, b"\x89LZO"),
    (0, b"hsqs"),
    (0, b"-rom1fs-"),
    (0x410, b"\x7f\x13"),
    (0x438, b"\x53\xef"),
];

const EXPECTED: &str = "a cpio archive (newc), one compressed with gzip, zstd, xz, bzip2, lzma, lz4 or lzo, or an ext2 or squashfs image";

/// Copies an initrd to `at`, which [`super::place_initrd`] found, after a look at its format.
pub fn load_initrd(bytes: &[u8], memory: &GuestMemory, at: Gpa) -> Result<Span, LoadError> {
    check(bytes)?;
    let span = Span::new(at, bytes.len() as u64);
    let span = span.ok_or_else(|| LoadError::Memory(not_ram(at, bytes)))?;
    memory.write(at, bytes)?;
    Ok(span)
}

fn not_ram(gpa: Gpa, bytes: &[u8]) -> isomer_core::MemoryError {
    isomer_core::MemoryError::NotRam { gpa, len: bytes.len() }
}

/// Refuses what Linux would silently ignore: empty files, unknown formats and truncated archives.
fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let role = Role::Initrd;
    if bytes.is_empty() {
        return Err(LoadError::Empty { role });
    }
    let accepted = ACCEPTED.iter().any(|(at, magic)| bytes.get(*at..).is_some_and(|b| b.starts_with(magic)));
    if !accepted {
        if bytes.starts_with(&object::elf::ELFMAG) {
            let (what, fix) = ("an ELF file", "give kernels with --kernel, and programs inside an initramfs");
            return Err(LoadError::Foreign { role, what, fix });
        }
        let unknown = LoadError::Unknown { role, start: first_bytes(bytes), expected: EXPECTED };
        return Err(super::sniff::foreign(role, bytes).unwrap_or(unknown));
    }
    if bytes.starts_with(b"07070") { check_cpio(bytes) } else { Ok(()) }
}

/// Bytes in the header of a cpio entry ("newc").
const ENTRY_LEN: usize = 110;

/// Walks the headers of an uncompressed archive up to its trailer; what follows (another archive, perhaps
/// compressed) is the kernel's business.
fn check_cpio(bytes: &[u8]) -> Result<(), LoadError> {
    let role = Role::Initrd;
    let mut at = 0usize;
    loop {
        let damaged = |why: &str| {
            let why = format!("entry at offset {at:#x}: {why}");
            LoadError::Damaged { role, format: "cpio archive", why }
        };
        let truncated = |need: usize| LoadError::Truncated {
            role,
            format: "cpio archive",
            need: need as u64,
            have: bytes.len() as u64,
        };
        let end = at.saturating_add(ENTRY_LEN);
        let header = bytes.get(at..end).ok_or_else(|| truncated(end))?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(damaged("no magic number"));
        }
        let field = |n: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).ok();
            let value = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
            value.map(|v| v as usize).ok_or_else(|| damaged("a field is not hexadecimal"))
        };
        let (file_len, name_len) = (field(6)?, field(11)?);
        let name_end = end.saturating_add(name_len);
        let name = bytes.get(end..name_end).ok_or_else(|| truncated(name_end))?;
        if name == b"TRAILER!!!\0" {
            return Ok(());
        }
        let next = name_end.next_multiple_of(4).saturating_add(file_len);
        if next > bytes.len() {
            return Err(truncated(next));
        }
        at = next.next_multiple_of(4);
    }
}
