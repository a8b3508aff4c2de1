//! Linux `Image` files (Linux Documentation/arch/riscv/boot-image-header.rst; the layout is arm64's).

use super::{
    Format, Loaded, Loader, TextOffsetFrom,
    error::{LoadError, Role},
};
use isomer_core::{Gpa, PAGE_SIZE};

/// Bytes in the header.
const HEADER_LEN: usize = 0x40;
const MAGIC_AT: usize = 0x38;
/// Where arm64 kernels go whose header does not say it.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;

/// Instruction sets that have this header, by its magic number.
const ISAS: &[([u8; 4], &str)] =
    &[(*b"RSC\x05", "riscv64"), (*b"ARM\x64", "aarch64"), ([0xcd, 0x23, 0x82, 0x81], "loongarch64")];

/// The fields that matter.
#[derive(Debug)]
pub(super) struct Header {
    magic: [u8; 4],
    /// Bytes from an aligned address to where the image goes.
    text_offset: u64,
    /// Bytes of memory the kernel needs from there, with its `.bss`; 0 in old kernels.
    image_size: u64,
    flags: u64,
}

impl Header {
    /// The header, if the file has one of any instruction set.
    pub(super) fn read(role: Role, bytes: &[u8]) -> Result<Option<Self>, LoadError> {
        let u64_at = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |v, byte| v << 8 | u64::from(*byte));
        if bytes.len() < HEADER_LEN {
            // "MZ" is both the EFI signature and a harmless instruction; short files with it were Images once.
            return match bytes.starts_with(b"MZ") {
                true => Err(truncated(role, HEADER_LEN as u64, bytes)),
                false => Ok(None),
            };
        }
        let mut magic = [0; 4];
        magic.copy_from_slice(&bytes[MAGIC_AT..MAGIC_AT + 4]);
        let known = ISAS.iter().any(|(other, _)| *other == magic);
        Ok(known.then(|| Self { magic, text_offset: u64_at(8), image_size: u64_at(16), flags: u64_at(24) }))
    }
}

fn truncated(role: Role, need: u64, bytes: &[u8]) -> LoadError {
    LoadError::Truncated { role, format: "Image", need, have: bytes.len() as u64 }
}

/// Bytes from the start that the file's PE headers describe, if they are sound: what a complete file has at least.
/// (`image_size` cannot tell: it counts `.bss`.)
fn pe_file_len(bytes: &[u8]) -> Option<u64> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let pe = u32_at(0x3c)? as usize;
    if !bytes.starts_with(b"MZ") || bytes.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = pe + 24 + usize::from(u16_at(pe + 20)?);
    let ends = (0..usize::from(u16_at(pe + 6)?)).map(|n| {
        let section = sections + 40 * n;
        Some(u64::from(u32_at(section + 16)?) + u64::from(u32_at(section + 20)?))
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// Places the image and returns where it starts: at its first byte.
pub(super) fn load(loader: &Loader<'_>, header: &Header, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let (role, formats) = (loader.role, loader.formats);
    if header.magic != formats.image_magic {
        let found = ISAS.iter().find(|(magic, _)| *magic == header.magic).map_or("another", |(_, isa)| isa);
        return Err(LoadError::WrongIsa { role, found: found.into(), expected: formats.isa });
    }
    let damaged = |why: String| LoadError::Damaged { role, format: "Image", why };
    if header.flags & 1 != 0 {
        return Err(LoadError::WrongIsa { role, found: "big-endian code".into(), expected: formats.isa });
    }
    if let Some(need) = pe_file_len(bytes).filter(|need| *need > bytes.len() as u64) {
        return Err(truncated(role, need, bytes));
    }
    let align = match formats.text_offset_from {
        TextOffsetFrom::RamStart => formats.image_align,
        TextOffsetFrom::AlignedBase => PAGE_SIZE,
    };
    let text_offset = match formats.text_offset_from {
        // Before Linux 3.17 the size was 0, and the offset not to be trusted.
        TextOffsetFrom::AlignedBase if header.image_size == 0 => OLD_TEXT_OFFSET,
        _ => header.text_offset,
    };
    if !text_offset.is_multiple_of(align) {
        return Err(damaged(format!("text_offset {text_offset:#x} is not a multiple of {align:#x}")));
    }
    let counted_from = match formats.text_offset_from {
        TextOffsetFrom::RamStart => loader.ram().start.0,
        TextOffsetFrom::AlignedBase => loader.base.0,
    };
    let wanted = counted_from.checked_add(text_offset);
    let wanted = wanted.ok_or_else(|| damaged(format!("text_offset {text_offset:#x} wraps")))?;
    let start = Gpa(loader.base.0.max(wanted));
    let span = loader.in_ram(start, header.image_size.max(bytes.len() as u64))?;
    loader.memory.write(start, bytes)?;
    Ok(Loaded { format: Format::Image, entry: start, span })
}
