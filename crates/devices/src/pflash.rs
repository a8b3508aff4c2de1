//! Parallel NOR flash with the Intel command set: JEDEC JESD68.01 (CFI) query and Intel's Basic Command Set
//! (AP-646; command names as in the P30 data sheet), two x16 chips side by side on a 32-bit bus.
//!
//! Programming and erasing take no time, so status is always ready. Programming clears bits and never sets them.
//! Blocks are never locked; a read-only flash answers as if all were. Both chips get every command: its number is
//! in the low byte of what is written, and answers repeat in both halves of a word.

use isomer_core::{Device, FwNode, FwValue, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::{cell::OnceCell, fmt, fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Bytes in one flash of the `virt` board.
pub const VIRT_LEN: usize = 32 << 20;
/// Bytes one erase command blanks (both chips).
pub const SECTOR_LEN: usize = 256 << 10;
/// Bytes one buffered write programs at most, and what it must not cross (both chips).
pub const BUFFER_LEN: usize = 4 << 10;

const MAX_LEN: usize = 256 << 20;
const BANK_WIDTH: usize = 4;
const CHIPS: usize = 2;
const ERASED: u8 = 0xff;

/// Commands, by the low byte of what is written.
mod command {
    pub(super) const PROGRAM: [u8; 2] = [0x40, 0x10];
    pub(super) const BLOCK_ERASE: [u8; 2] = [0x20, 0x28];
    pub(super) const LOCK_SETUP: u8 = 0x60;
    pub(super) const CLEAR_STATUS: u8 = 0x50;
    pub(super) const READ_STATUS: u8 = 0x70;
    pub(super) const READ_ID: u8 = 0x90;
    pub(super) const CFI_QUERY: u8 = 0x98;
    pub(super) const BUFFERED_PROGRAM: u8 = 0xe8;
    pub(super) const READ_ARRAY: u8 = 0xff;
    pub(super) const CONFIRM: u8 = 0xd0;
    /// Second cycle of lock, lock down, and program configuration register.
    pub(super) const AFTER_LOCK_SETUP: [u8; 4] = [0x01, 0x2f, 0x03, CONFIRM];
}

/// Status register bits.
mod status {
    pub(super) const READY: u8 = 0x80;
    pub(super) const ERASE_ERROR: u8 = 0x20;
    pub(super) const PROGRAM_ERROR: u8 = 0x10;
    pub(super) const BLOCK_LOCKED: u8 = 0x02;
    /// What programming a locked block reports.
    pub(super) const LOCKED: u8 = PROGRAM_ERROR | BLOCK_LOCKED;
    pub(super) const SEQUENCE_ERROR: u8 = ERASE_ERROR | PROGRAM_ERROR;
}

/// Manufacturer (Intel) and device of each chip.
const ID: [u8; 2] = [0x89, 0x18];

/// Why a flash could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    /// Flash sizes are powers of two.
    #[error("a flash of {0:#x} bytes cannot be: give a power of two from 512 KiB to 256 MiB")]
    Geometry(usize),
    /// The image does not fit.
    #[error("the flash image has {image} bytes and the flash {flash}: give a smaller image")]
    TooLarge {
        /// Bytes in the image.
        image: u64,
        /// Bytes in the flash.
        flash: usize,
    },
    /// The image file could not be read.
    #[error("cannot read the flash image: {0}")]
    Read(#[from] io::Error),
}

/// What reads show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Array,
    Status,
    Id,
    Cfi,
}

/// What the next write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Cycle {
    Command,
    ProgramData,
    EraseConfirm,
    LockCommand,
    /// The number of bus words to come, less one.
    BufferCount,
    /// This many bus words are to come.
    BufferData(u16),
    BufferConfirm,
}

/// One erase block in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Sector {
    /// All the same byte.
    Filled(u8),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Contents {
    Writable(Vec<Sector>),
    /// They come with the machine, as firmware does; this tells whether they are the same.
    ReadOnly(u64),
}

/// Chip registers and contents, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PflashState {
    mode: Mode,
    cycle: Cycle,
    status: u8,
    buffer: Buffer,
    contents: Contents,
}

/// The write buffer: data to be programmed at `block`, which the first word decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Buffer {
    block: Option<usize>,
    data: Vec<u8>,
}

/// The flash.
pub struct Pflash {
    mode: Mode,
    cycle: Cycle,
    status: u8,
    buffer: Buffer,
    len: usize,
    /// The contents; empty while everything is erased, so that an unused flash costs nothing.
    bytes: Vec<u8>,
    cfi: [u8; 0x40],
    read_only: bool,
    digest: OnceCell<u64>,
    file: Option<Backing>,
}

/// The file the contents are written back to.
struct Backing {
    file: File,
    /// Bytes in the file; what the flash has beyond was erased when it was opened.
    len: usize,
}

impl Backing {
    fn write(&mut self, bytes: &[u8], range: Range<usize>) -> io::Result<()> {
        // A short file grows without a hole: holes read as zeros, erased flash does not.
        let start = range.start.min(self.len);
        self.file.write_all_at(&bytes[start..range.end], start as u64)?;
        self.len = self.len.max(range.end);
        Ok(())
    }
}

impl fmt::Debug for Pflash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pflash")
            .field("mode", &self.mode)
            .field("cycle", &self.cycle)
            .field("status", &self.status)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Pflash {
    /// A flash of `len` bytes that starts with `image`, the rest erased. What the guest programs is lost with
    /// the device.
    pub fn with_image(len: usize, image: &[u8], read_only: bool) -> Result<Self, FlashError> {
        let mut flash = Self::erased(len, image.len() as u64, read_only)?;
        if !image.is_empty() {
            flash.contents()[..image.len()].copy_from_slice(image);
        }
        Ok(flash)
    }

    /// A flash of `len` bytes with the contents of `file`, the rest erased. Unless `read_only`, what the guest
    /// programs and erases is written to the file at once.
    pub fn with_file(len: usize, file: File, read_only: bool) -> Result<Self, FlashError> {
        let image_len = file.metadata()?.len();
        let mut flash = Self::erased(len, image_len, read_only)?;
        let image_len = image_len as usize; // at most `len` now
        file.read_exact_at(&mut flash.contents()[..image_len], 0)?;
        flash.file = (!read_only).then_some(Backing { file, len: image_len });
        Ok(flash)
    }

    fn erased(len: usize, image: u64, read_only: bool) -> Result<Self, FlashError> {
        if !len.is_power_of_two() || !(CHIPS * SECTOR_LEN..=MAX_LEN).contains(&len) {
            return Err(FlashError::Geometry(len));
        }
        if image > len as u64 {
            return Err(FlashError::TooLarge { image, flash: len });
        }
        Ok(Self {
            mode: Mode::Array,
            cycle: Cycle::Command,
            status: status::READY,
            buffer: Buffer::default(),
            len,
            bytes: Vec::new(),
            cfi: cfi_table(len),
            read_only,
            digest: OnceCell::new(),
            file: None,
        })
    }

    /// The contents, as reads show them in array mode.
    pub fn bytes(&mut self) -> &[u8] {
        self.contents()
    }

    fn contents(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![ERASED; self.len];
        }
        &mut self.bytes
    }

    /// Do reads show the contents now (and not status, identification or query data)?
    pub fn shows_array(&self) -> bool {
        self.mode == Mode::Array
    }

    /// What a read of one byte shows outside array mode.
    fn register_byte(&self, offset: u64) -> u8 {
        if offset & 1 != 0 {
            return 0; // upper byte of either chip
        }
        let word = usize::try_from(offset / BANK_WIDTH as u64).unwrap_or(usize::MAX);
        match self.mode {
            Mode::Status => self.status,
            Mode::Cfi => self.cfi.get(word).copied().unwrap_or(0),
            // Every block has its own copy; word 2 is its lock status.
            Mode::Id if word % 0x100 == 2 => self.read_only.into(),
            Mode::Id => ID.get(word % 0x100).copied().unwrap_or(0),
            Mode::Array => 0,
        }
    }

    /// One bus cycle of at most 4 bytes, all inside the flash.
    fn write_cycle(&mut self, at: usize, data: &[u8]) {
        let byte = data[0];
        match self.cycle {
            Cycle::Command => self.command(byte),
            Cycle::ProgramData => {
                let failed = if self.read_only { status::LOCKED } else { self.program(at, data) };
                self.finish(failed);
            }
            Cycle::EraseConfirm if byte == command::CONFIRM => {
                let failed = if self.read_only { status::LOCKED } else { self.erase(at) };
                self.finish(if failed == 0 {
                    0
                } else {
                    status::ERASE_ERROR | failed & !status::PROGRAM_ERROR
                });
            }
            Cycle::LockCommand if command::AFTER_LOCK_SETUP.contains(&byte) => self.finish(0),
            Cycle::EraseConfirm | Cycle::LockCommand if byte == command::READ_ARRAY => self.read_array(),
            Cycle::BufferCount => self.start_buffer(data),
            Cycle::BufferData(left) => self.fill_buffer(at, data, left),
            Cycle::BufferConfirm if byte == command::CONFIRM => {
                let failed = if self.read_only { status::LOCKED } else { self.program_buffer() };
                self.finish(failed);
            }
            Cycle::EraseConfirm | Cycle::LockCommand | Cycle::BufferConfirm => {
                self.finish(status::SEQUENCE_ERROR);
            }
        }
    }

    fn command(&mut self, byte: u8) {
        let (mode, cycle) = match byte {
            _ if command::PROGRAM.contains(&byte) => (Mode::Status, Cycle::ProgramData),
            _ if command::BLOCK_ERASE.contains(&byte) => (Mode::Status, Cycle::EraseConfirm),
            command::LOCK_SETUP => (Mode::Status, Cycle::LockCommand),
            command::BUFFERED_PROGRAM => (Mode::Status, Cycle::BufferCount),
            command::READ_STATUS => (Mode::Status, Cycle::Command),
            command::READ_ID => (Mode::Id, Cycle::Command),
            command::CFI_QUERY => (Mode::Cfi, Cycle::Command),
            command::CLEAR_STATUS => {
                self.status = status::READY;
                (Mode::Array, Cycle::Command)
            }
            // Read array; also 0x00 and 0xf0, AMD's reset, and anything unknown.
            _ => (Mode::Array, Cycle::Command),
        };
        (self.mode, self.cycle) = (mode, cycle);
    }

    fn read_array(&mut self) {
        (self.mode, self.cycle) = (Mode::Array, Cycle::Command);
        self.buffer = Buffer::default();
    }

    /// Ends a command: reads show status, with `errors` added.
    fn finish(&mut self, errors: u8) {
        (self.mode, self.cycle) = (Mode::Status, Cycle::Command);
        self.status |= status::READY | errors;
        self.buffer = Buffer::default();
    }

    /// Clears the bits that are clear in `data`; returns error bits, as [`Self::write_back`] does.
    fn program(&mut self, at: usize, data: &[u8]) -> u8 {
        self.contents()[at..at + data.len()].iter_mut().zip(data).for_each(|(byte, new)| *byte &= new);
        self.write_back(at..at + data.len())
    }

    fn erase(&mut self, at: usize) -> u8 {
        let start = at - at % SECTOR_LEN;
        self.contents()[start..start + SECTOR_LEN].fill(ERASED);
        self.write_back(start..start + SECTOR_LEN)
    }

    fn write_back(&mut self, range: Range<usize>) -> u8 {
        let Some(backing) = &mut self.file else { return 0 };
        match backing.write(&self.bytes, range) {
            Ok(()) => 0,
            Err(error) => {
                isomer_core::guest_warn!(%error, "flash: the image file could not be written");
                status::PROGRAM_ERROR
            }
        }
    }

    fn start_buffer(&mut self, data: &[u8]) {
        let less_one = u16::from(data[0]) | (u16::from(data.get(1).copied().unwrap_or(0)) << 8);
        if usize::from(less_one) >= BUFFER_LEN / BANK_WIDTH {
            self.finish(status::SEQUENCE_ERROR);
            return;
        }
        self.buffer = Buffer { block: None, data: vec![ERASED; BUFFER_LEN] };
        self.cycle = Cycle::BufferData(less_one + 1);
    }

    fn fill_buffer(&mut self, at: usize, data: &[u8], left: u16) {
        let (block, start) = (at - at % BUFFER_LEN, at % BUFFER_LEN);
        let fits = *self.buffer.block.get_or_insert(block) == block;
        match self.buffer.data.get_mut(start..start + data.len()).filter(|_| fits) {
            Some(place) => {
                place.copy_from_slice(data);
                self.cycle = if left > 1 { Cycle::BufferData(left - 1) } else { Cycle::BufferConfirm };
            }
            None => self.finish(status::SEQUENCE_ERROR),
        }
    }

    fn program_buffer(&mut self) -> u8 {
        let buffer = std::mem::take(&mut self.buffer);
        buffer.block.map_or(0, |block| self.program(block, &buffer.data))
    }

    fn saved_contents(&self) -> Contents {
        if self.read_only {
            return Contents::ReadOnly(*self.digest.get_or_init(|| digest(&self.saved_bytes())));
        }
        let save = |sector: &[u8]| {
            let first = sector[0];
            let same = sector.iter().all(|byte| *byte == first);
            if same { Sector::Filled(first) } else { Sector::Bytes(sector.to_vec()) }
        };
        if self.bytes.is_empty() {
            return Contents::Writable(vec![Sector::Filled(ERASED); self.len / SECTOR_LEN]);
        }
        Contents::Writable(self.bytes.chunks_exact(SECTOR_LEN).map(save).collect())
    }

    /// A copy of the contents.
    fn saved_bytes(&self) -> Vec<u8> {
        if self.bytes.is_empty() { vec![ERASED; self.len] } else { self.bytes.clone() }
    }

    /// The whole flash as a snapshot has it; `None` if it is not of this flash.
    fn decode(&self, contents: &Contents) -> Option<Vec<u8>> {
        let sectors = match contents {
            Contents::Writable(sectors) if !self.read_only => sectors,
            _ => return None,
        };
        if sectors.len() != self.len / SECTOR_LEN {
            return None;
        }
        let mut bytes = self.saved_bytes();
        for (place, sector) in bytes.chunks_exact_mut(SECTOR_LEN).zip(sectors) {
            match sector {
                Sector::Filled(byte) => place.fill(*byte),
                Sector::Bytes(data) if data.len() == SECTOR_LEN => place.copy_from_slice(data),
                Sector::Bytes(_) => return None,
            }
        }
        Some(bytes)
    }

    /// Takes over contents and brings the file up to date.
    fn restore_contents(&mut self, contents: &Contents) -> Result<(), String> {
        if self.read_only && *contents == self.saved_contents() {
            return Ok(());
        }
        let bytes = self.decode(contents).ok_or("it is of a flash with other firmware or another size")?;
        self.contents();
        if let Some(backing) = &mut self.file {
            for start in (0..bytes.len()).step_by(SECTOR_LEN) {
                let range = start..start + SECTOR_LEN;
                if bytes[range.clone()] != self.bytes[range.clone()] {
                    backing.write(&bytes, range).map_err(|e| format!("cannot write the flash image: {e}"))?;
                }
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Could this have been saved by a flash of this size?
    fn is_possible(&self, state: &PflashState) -> bool {
        let fits = |block: usize| block.is_multiple_of(BUFFER_LEN) && block < self.len;
        let buffer = &state.buffer;
        match state.cycle {
            Cycle::BufferData(left) => {
                (1..=BUFFER_LEN / BANK_WIDTH).contains(&usize::from(left))
                    && buffer.data.len() == BUFFER_LEN
                    && buffer.block.is_none_or(fits)
            }
            Cycle::BufferConfirm => buffer.data.len() == BUFFER_LEN && buffer.block.is_some_and(fits),
            _ => *buffer == Buffer::default(),
        }
    }
}

/// FNV-1a over 64-bit words.
fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0xcbf2_9ce4_8422_2325, |hash, chunk| {
        let word = chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        (hash ^ word).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The CFI query structure of each chip (JESD68.01, 2.4; from 0x31 the Intel primary table, version 1.0, in which
/// no optional feature is offered).
fn cfi_table(len: usize) -> [u8; 0x40] {
    let chip_len = len / CHIPS;
    let sectors = (len / SECTOR_LEN - 1).to_le_bytes();
    let sector_len = (SECTOR_LEN / CHIPS / 256).to_le_bytes();
    let log2 = |n: usize| n.trailing_zeros() as u8;
    let mut table = [0; 0x40];
    let mut put = |at: usize, bytes: &[u8]| table[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x10, b"QRY");
    put(0x13, &[0x01, 0x00, 0x31, 0x00]); // Intel extended command set, its table
    put(0x1b, &[0x45, 0x55]); // Vcc from 4.5 V to 5.5 V
    put(0x1f, &[7, 7, 10, 0]); // log2 of typical times: word, buffer (us), erase (ms), whole chip
    put(0x23, &[4, 4, 4, 0]); // log2 of how much longer at worst
    put(0x27, &[log2(chip_len)]);
    put(0x28, &[2, 0]); // x8 and x16 interface
    put(0x2a, &[log2(BUFFER_LEN / CHIPS), 0]);
    put(0x2c, &[1]); // one region of equal erase blocks
    put(0x2d, &sectors[..2]);
    put(0x2f, &sector_len[..2]);
    put(0x31, b"PRI10");
    put(0x3f, &[1]); // one protection field
    table
}

impl Device for Pflash {
    const NAME: &'static str = "cfi-flash";
    const VERSION: u32 = 1;
    type State = PflashState;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region != 0 {
            return 0;
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start.checked_add(size).is_none_or(|end| end > self.len) {
            return 0;
        }
        let mut bytes = [0; 8];
        if self.mode == Mode::Array {
            bytes[..size].fill(ERASED);
            if let Some(array) = self.bytes.get(start..start + size) {
                bytes[..size].copy_from_slice(array);
            }
        } else {
            bytes[..size].iter_mut().zip(offset..).for_each(|(byte, at)| *byte = self.register_byte(at));
        }
        u64::from_le_bytes(bytes)
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        let Ok(start) = usize::try_from(offset) else { return };
        if region != 0 || start.checked_add(size).is_none_or(|end| end > self.len) {
            return;
        }
        let bytes = value.to_le_bytes();
        for (at, data) in (start..).step_by(BANK_WIDTH).zip(bytes[..size].chunks(BANK_WIDTH)) {
            self.write_cycle(at, data);
        }
    }

    /// The contents stay: that is what a flash is for.
    fn reset(&mut self) {
        self.read_array();
        self.status = status::READY;
    }

    fn save(&self) -> PflashState {
        PflashState {
            mode: self.mode,
            cycle: self.cycle,
            status: self.status,
            buffer: self.buffer.clone(),
            contents: self.saved_contents(),
        }
    }

    fn restore(&mut self, state: PflashState) -> Result<(), StateError> {
        let damaged = |why: String| StateError::Damaged { device: Self::NAME, why };
        if !self.is_possible(&state) {
            return Err(damaged("impossible command state".into()));
        }
        self.restore_contents(&state.contents).map_err(damaged)?;
        (self.mode, self.cycle, self.status) = (state.mode, state.cycle, state.status);
        self.buffer = state.buffer;
        Ok(())
    }

    fn quiesce(&mut self) {
        if let Some(backing) = &self.file
            && let Err(error) = backing.file.sync_data()
        {
            tracing::warn!(%error, "flash: the image file could not be synchronised");
        }
    }

    /// One node may stand for adjacent flashes: give the first a placement with the windows of all.
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("flash", &["cfi-flash"])
        };
        Some(node.with("bank-width", FwValue::Cells(vec![BANK_WIDTH as u32])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use std::io::Read;

    const LEN: usize = 1 << 20;
    const READY: u32 = 0x0080_0080;

    fn flash() -> Pflash {
        Pflash::with_image(LEN, b"firmware", false).unwrap()
    }

    fn options() -> Options<Pflash> {
        Options {
            windows: &[LEN as u64],
            self_contained: true,
            forget_kept: |state| state.contents = Contents::Writable(Vec::new()),
        }
    }

    device_conformance!(conformance, flash(), options());
    device_conformance!(
        conformance_read_only,
        Pflash::with_image(LEN, b"firmware", true).unwrap(),
        Options { forget_kept: |_| (), ..options() }
    );
    device_conformance!(
        conformance_file,
        Pflash::with_file(LEN, tempfile::tempfile().unwrap(), false).unwrap(),
        options()
    );

    fn get(flash: &mut Pflash, offset: u64) -> u32 {
        Device::read(flash, 0, offset, 4) as u32
    }

    /// Both chips get `byte`.
    fn send(flash: &mut Pflash, offset: u64, byte: u8) {
        Device::write(flash, 0, offset, 4, u64::from(byte) * 0x0001_0001);
    }

    fn status(flash: &mut Pflash) -> u32 {
        send(flash, 0, command::READ_STATUS);
        get(flash, 0)
    }

    #[test]
    fn the_query_is_found_on_a_32_bit_bus_of_two_chips() {
        let mut flash = Pflash::with_image(VIRT_LEN, &[], false).unwrap();
        assert_eq!(Device::read(&mut flash, 0, 0x40, 8), u64::MAX);
        send(&mut flash, 0x55 * 4, command::CFI_QUERY);
        assert_eq!(Device::read(&mut flash, 0, 0x40, 8), 0x0052_0052_0051_0051);
        let mut query = |word: u64| get(&mut flash, word * 4) & 0xff;
        assert_eq!(1u64 << query(0x27), (VIRT_LEN / CHIPS) as u64);
        assert_eq!((query(0x2d) | query(0x2e) << 8) as usize + 1, VIRT_LEN / SECTOR_LEN);
        assert_eq!((query(0x2f) << 8 | query(0x30) << 16) as usize * CHIPS, SECTOR_LEN);
        assert_eq!((1 << query(0x2a)) * CHIPS, BUFFER_LEN);
        assert_eq!([query(0x31), query(0x32), query(0x33)], [0x50, 0x52, 0x49]);
        assert_eq!(query(0x1000), 0);
        send(&mut flash, 0, command::READ_ID);
        assert_eq!(
            [get(&mut flash, 0), get(&mut flash, 4), get(&mut flash, 8)],
            [0x0089_0089, 0x0018_0018, 0]
        );
        send(&mut flash, 0, 0xf0);
        assert_eq!(get(&mut flash, 0x40), u32::MAX);
    }

    #[test]
    fn a_word_is_programmed_and_bits_only_fall() {
        let mut flash = flash();
        for data in [0xffff_0ff0, 0x1234_ffff] {
            send(&mut flash, 0x100, 0x40);
            Device::write(&mut flash, 0, 0x100, 4, data);
            assert_eq!(get(&mut flash, 0x100), READY);
        }
        send(&mut flash, 0, command::READ_ARRAY);
        assert_eq!(get(&mut flash, 0x100), 0x1234_0ff0);
        assert_eq!(&flash.bytes()[..8], b"firmware");
    }

    #[test]
    fn a_block_is_erased_after_confirmation_only() {
        let mut flash = flash();
        let sector = SECTOR_LEN as u64;
        for at in [0x10, sector, 2 * sector - 4, 2 * sector] {
            send(&mut flash, at, 0x40);
            Device::write(&mut flash, 0, at, 4, 0);
        }
        send(&mut flash, sector + 8, 0x20);
        send(&mut flash, sector + 8, 0x00);
        assert_eq!(status(&mut flash) as u8, status::READY | status::SEQUENCE_ERROR);
        send(&mut flash, 0, command::CLEAR_STATUS);
        assert!(flash.shows_array());
        assert_eq!(get(&mut flash, sector), 0);
        send(&mut flash, sector + 8, 0x20);
        send(&mut flash, sector + 8, command::CONFIRM);
        assert_eq!(get(&mut flash, 0), READY);
        send(&mut flash, 0, command::READ_ARRAY);
        let words = [0x10, sector, 2 * sector - 4, 2 * sector].map(|at| get(&mut flash, at));
        assert_eq!(words, [0, u32::MAX, u32::MAX, 0]);
    }

    /// Starts a buffered write of `words` at `at`.
    fn start_buffer(flash: &mut Pflash, at: u64, words: u64) {
        send(flash, at, command::BUFFERED_PROGRAM);
        assert_eq!(get(flash, at), READY);
        Device::write(flash, 0, at, 4, (words - 1) * 0x0001_0001);
    }

    #[test]
    fn a_full_buffer_is_programmed() {
        let mut flash = flash();
        let (at, words) = (0x2000, BUFFER_LEN as u64 / 4);
        start_buffer(&mut flash, at, words);
        (0..words / 2).for_each(|i| Device::write(&mut flash, 0, at + 8 * i, 8, i << 32 | i));
        assert_eq!(flash.bytes()[at as usize], ERASED, "nothing before confirmation");
        send(&mut flash, 0, command::CONFIRM);
        assert_eq!(get(&mut flash, at), READY);
        send(&mut flash, 0, command::READ_ARRAY);
        assert!((0..words).all(|i| u64::from(get(&mut flash, at + 4 * i)) == i / 2));
        assert_eq!(get(&mut flash, at + BUFFER_LEN as u64), u32::MAX);
    }

    #[test]
    fn a_wrong_buffer_sequence_programs_nothing() {
        let mut flash = flash();
        let before = flash.bytes().to_vec();
        let wrong = u32::from(status::READY | status::SEQUENCE_ERROR) * 0x0001_0001;
        start_buffer(&mut flash, 0, 2);
        Device::write(&mut flash, 0, 0, 4, 0);
        Device::write(&mut flash, 0, BUFFER_LEN as u64, 4, 0); // leaves the block
        assert_eq!(status(&mut flash), wrong);
        send(&mut flash, 0, command::CLEAR_STATUS);
        start_buffer(&mut flash, 0, BUFFER_LEN as u64 / 4 + 1);
        assert_eq!(status(&mut flash), wrong);
        send(&mut flash, 0, command::CLEAR_STATUS);
        start_buffer(&mut flash, 0, 1);
        Device::write(&mut flash, 0, 0, 4, 0);
        send(&mut flash, 0, 0x00); // not confirmed
        assert_eq!(status(&mut flash), wrong);
        assert_eq!(flash.bytes(), before);
    }

    #[test]
    fn edk2_unlocks_and_finds_unlocked() {
        let mut flash = flash();
        send(&mut flash, 8, command::READ_ID);
        assert_eq!(get(&mut flash, 8), 0);
        send(&mut flash, 0, command::LOCK_SETUP);
        send(&mut flash, 0, command::CONFIRM);
        assert_eq!(status(&mut flash), READY);
    }

    #[test]
    fn a_read_only_flash_is_locked() {
        let mut flash = Pflash::with_image(LEN, b"code", true).unwrap();
        send(&mut flash, 0, 0x20);
        send(&mut flash, 0, command::CONFIRM);
        assert_eq!(status(&mut flash) as u8, status::READY | status::ERASE_ERROR | status::BLOCK_LOCKED);
        send(&mut flash, 0, command::CLEAR_STATUS);
        send(&mut flash, 0, 0x40);
        Device::write(&mut flash, 0, 0, 4, 0);
        assert_eq!(status(&mut flash) as u8, status::READY | status::PROGRAM_ERROR | status::BLOCK_LOCKED);
        assert_eq!(&flash.bytes()[..4], b"code");
        let other = Pflash::with_image(LEN, b"Code", true).unwrap();
        assert!(Device::restore(&mut flash, Device::save(&other)).is_err());
    }

    #[test]
    fn changes_reach_the_file_without_holes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0x5a; 100], 0).unwrap();
        let mut flash = Pflash::with_file(LEN, file.try_clone().unwrap(), false).unwrap();
        send(&mut flash, 200, 0x40);
        Device::write(&mut flash, 0, 200, 4, 0x0102_0304);
        let mut contents = Vec::new();
        file.read_to_end(&mut contents).unwrap();
        assert_eq!(contents, [&[0x5a; 100][..], &[ERASED; 100], &[4, 3, 2, 1]].concat());
        let state = Device::save(&flash);
        send(&mut flash, 0, 0x20);
        send(&mut flash, 0, command::CONFIRM);
        Device::restore(&mut flash, state).unwrap();
        let mut again = Pflash::with_file(LEN, file, false).unwrap();
        let bytes = again.bytes();
        assert_eq!((&bytes[..100], bytes[200]), (&[0x5a; 100][..], 4));
    }

    #[test]
    fn sizes_are_checked() {
        assert!(matches!(Pflash::with_image(LEN + 1, &[], false), Err(FlashError::Geometry(_))));
        assert!(matches!(Pflash::with_image(0, &[], false), Err(FlashError::Geometry(0))));
        assert!(matches!(
            Pflash::with_image(LEN, &vec![0; LEN + 1], false),
            Err(FlashError::TooLarge { .. })
        ));
        let state = Device::save(&flash());
        assert!(Device::restore(&mut Pflash::with_image(2 * LEN, &[], false).unwrap(), state).is_err());
    }
}
