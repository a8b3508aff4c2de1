//! Boot files: recognising kernels, firmware and initrds, and placing them in guest memory where QEMU's `virt` board
//! has them.
//!
//! Everything here reads files an attacker may have made. Sizes and offsets in them are checked before use, nothing
//! is allocated by a length that a file states, and no file can occupy more host memory than the machine has RAM.

mod compressed;
mod elf;
mod error;
mod image;
mod initrd;
mod place;
mod reset_vector;
mod sniff;

pub use error::{LoadError, Role};
pub use initrd::load_initrd;
pub use place::{Occupied, check_overlaps, place_fdt, place_initrd};
pub use reset_vector::{NextMode, reset_vector};

use isomer_core::{Gpa, GuestMemory};
use std::{borrow::Cow, fmt};

/// A kernel file's content, unpacked if it is compressed, at most `limit` bytes.
pub(crate) fn unpack(bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, LoadError> {
    compressed::unpack(Role::Kernel, bytes, limit)
}

/// A stretch of guest-physical addresses, the end not included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub start: Gpa,
    /// One past the last byte.
    pub end: Gpa,
}

impl Span {
    /// `len` bytes from `start`; `None` if that wraps.
    pub fn new(start: Gpa, len: u64) -> Option<Self> {
        Some(Self { start, end: Gpa(start.0.checked_add(len)?) })
    }

    /// Bytes in it.
    pub fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Has it no bytes?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Is `address` in it?
    pub fn holds(&self, address: Gpa) -> bool {
        self.start <= address && address < self.end
    }

    /// Is all of `other` in it?
    pub fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Do they share a byte?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// What boot files of an instruction set look like. Another instruction set is another value.
#[derive(Debug)]
pub struct BootFormats {
    /// The name users type ("riscv64").
    pub isa: &'static str,
    /// `e_machine` of its 64-bit little-endian ELF files.
    pub elf_machine: object::elf::Machine,
    /// Magic number at 0x38 of its Linux `Image` files.
    pub image_magic: [u8; 4],
    /// Alignment of the memory an `Image` is placed in, in bytes.
    pub image_align: u64,
    /// What an `Image`'s `text_offset` counts from.
    pub text_offset_from: TextOffsetFrom,
}

/// What an `Image`'s `text_offset` counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextOffsetFrom {
    /// The start of RAM: room for firmware, which may have taken it already.
    RamStart,
    /// Any aligned address: the kernel wants to be so far off alignment.
    AlignedBase,
}

/// riscv64 (Linux Documentation/arch/riscv/boot.rst: the kernel starts at a PMD boundary, 2 MiB).
pub const RISCV64: BootFormats = BootFormats {
    isa: "riscv64",
    elf_machine: object::elf::EM_RISCV,
    image_magic: *b"RSC\x05",
    image_align: 2 << 20,
    text_offset_from: TextOffsetFrom::RamStart,
};

/// aarch64 (Linux Documentation/arch/arm64/booting.rst: `text_offset` bytes from a 2 MiB-aligned address).
pub const AARCH64: BootFormats = BootFormats {
    isa: "aarch64",
    elf_machine: object::elf::EM_AARCH64,
    image_magic: *b"ARM\x64",
    image_align: 2 << 20,
    text_offset_from: TextOffsetFrom::AlignedBase,
};

/// The format a boot file turned out to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// ELF, placed by its program headers.
    Elf,
    /// Linux `Image`.
    Image,
    /// Bytes without a header, started at the first.
    Raw,
}

/// A boot file in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// How it was read.
    pub format: Format,
    /// Physical address of the first instruction.
    pub entry: Gpa,
    /// The memory it owns, with what it clears itself (`.bss`).
    pub span: Span,
}

/// A kernel, or a boot loader in its place.
#[derive(Debug)]
pub struct Kernel;

/// Machine-mode firmware.
#[derive(Debug)]
pub struct Firmware;

impl Kernel {
    /// Loads an ELF file, an `Image`, or either of them compressed with gzip or zstd.
    ///
    /// `floor` is the first free address: RAM's start, or where firmware ends. An `Image` goes to the first aligned
    /// address from there, an ELF file where its program headers say (position-independent ones to the same place as
    /// an `Image`). Bytes without a header (U-Boot for S-mode) are accepted with `accept_raw` and placed there too:
    /// that is right only behind firmware, where a boot loader can follow.
    pub fn load(
        formats: &BootFormats,
        bytes: &[u8],
        memory: &GuestMemory,
        floor: Gpa,
        accept_raw: bool,
    ) -> Result<Loaded, LoadError> {
        let image_base = Gpa(floor.0.checked_next_multiple_of(formats.image_align).unwrap_or(u64::MAX));
        Loader { role: Role::Kernel, formats, memory, base: image_base, accept_raw }.load(bytes)
    }
}

impl Firmware {
    /// Loads an ELF file where it wants to be, or (position-independent ELF, bytes without a header) at `base`, which
    /// is where the reset vector jumps to; either may be compressed with gzip or zstd.
    pub fn load(
        formats: &BootFormats,
        bytes: &[u8],
        memory: &GuestMemory,
        base: Gpa,
    ) -> Result<Loaded, LoadError> {
        Loader { role: Role::Firmware, formats, memory, base, accept_raw: true }.load(bytes)
    }
}

/// What the formats' own loaders need to know.
struct Loader<'a> {
    role: Role,
    formats: &'a BootFormats,
    memory: &'a GuestMemory,
    /// Where files go that have no address of their own.
    base: Gpa,
    accept_raw: bool,
}

impl Loader<'_> {
    fn load(&self, bytes: &[u8]) -> Result<Loaded, LoadError> {
        let role = self.role;
        if bytes.is_empty() {
            return Err(LoadError::Empty { role });
        }
        let bytes = compressed::unpack(role, bytes, self.memory.size())?;
        if bytes.starts_with(&object::elf::ELFMAG) {
            return elf::load(self, &bytes);
        }
        if let Some(header) = image::Header::read(role, &bytes)? {
            return image::load(self, &header, &bytes);
        }
        if let Some(foreign) = sniff::foreign(role, &bytes) {
            return Err(foreign);
        }
        if self.accept_raw {
            return self.load_raw(&bytes);
        }
        let expected = "a Linux Image, an ELF file, or either of them compressed with gzip or zstd";
        Err(LoadError::Unknown { role, start: error::first_bytes(&bytes), expected })
    }

    fn load_raw(&self, bytes: &[u8]) -> Result<Loaded, LoadError> {
        let span = self.in_ram(self.base, bytes.len() as u64)?;
        self.memory.write(span.start, bytes)?;
        Ok(Loaded { format: Format::Raw, entry: span.start, span })
    }

    /// The RAM that files go to: the region `base` is in. (Others hold what is not the guest's to overwrite: MROM.)
    fn ram(&self) -> Span {
        let region = self.memory.region(self.base, 1);
        let span = region.and_then(|region| Span::new(region.gpa, region.len));
        span.unwrap_or(Span { start: self.base, end: self.base })
    }

    /// `len` bytes from `start`, if they are RAM.
    fn in_ram(&self, start: Gpa, len: u64) -> Result<Span, LoadError> {
        let ram = self.ram();
        let outside = |span| LoadError::OutsideMemory { role: self.role, span, ram };
        let span = Span::new(start, len).ok_or_else(|| outside(Span { start, end: Gpa(u64::MAX) }))?;
        if ram.contains(&span) { Ok(span) } else { Err(outside(span)) }
    }
}

#[cfg(test)]
mod tests;
