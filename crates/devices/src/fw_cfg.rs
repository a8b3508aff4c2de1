//! Firmware configuration device, memory-mapped with DMA (QEMU's `docs/specs/fw_cfg.rst`): named items firmware
//! and kernels read, one at a time, front to back.
//!
//! | Offset | Register |
//! |---|---|
//! | 0 | data: 1, 2, 4 or 8 next bytes of the item, in memory order (read-only) |
//! | 8 | selector (16 bits, big-endian, write-only) |
//! | 16 | DMA: address of a control structure, big-endian, as 64 bits or two halves of which the second starts it |
//!
//! The bus is that of a little-endian guest, so big-endian registers arrive byte-swapped.

use isomer_core::{Device, FwNode, FwValue, Gpa, GuestMemory, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Bytes in the register window.
pub const WINDOW_LEN: u64 = 0x18;
/// Files the directory has room for.
pub const MAX_FILES: usize = 256;
/// Longest file name, in bytes.
pub const MAX_NAME_LEN: usize = 55;

/// Selector keys of items that are not files.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Feature bits, little-endian u32.
    pub const ID: u16 = 0x01;
    /// System UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// RAM in bytes, little-endian u64.
    pub const RAM_SIZE: u16 = 0x03;
    /// CPUs, little-endian u16.
    pub const NB_CPUS: u16 = 0x05;
    /// Size of the kernel in bytes, little-endian u32.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Size of the initial RAM disk in bytes, little-endian u32.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Show a boot menu, little-endian u16.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Most CPUs, little-endian u16.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// Size of the kernel command line with its NUL, little-endian u32.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The kernel command line with its NUL.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Size of the kernel's setup part, little-endian u32.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The kernel's setup part.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of files.
    pub const FILE_DIR: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Items that depend on the guest's architecture.
    pub const ARCH_LOCAL: u16 = 0x8000;
    /// Asks for write access, which is not given; otherwise without meaning.
    pub(super) const WRITE_CHANNEL: u16 = 0x4000;
}

const DATA: u64 = 0;
const SELECTOR: u64 = 8;
const DMA: u64 = 16;

/// ID: the plain interface and DMA.
const FEATURES: u32 = 1 | 2;
const DMA_SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

/// Bits of a DMA control word.
mod control {
    pub(super) const ERROR: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const SKIP: u32 = 4;
    pub(super) const SELECT: u32 = 8;
    pub(super) const WRITE: u32 = 16;
}

/// Most bytes a DMA read may ask for beyond an item's end, which are zeros: bounds the work of one access.
const MAX_PADDING: u64 = 1 << 20;

/// Why an item was not added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FwCfgError {
    /// The name does not fit or holds bytes a directory entry cannot.
    #[error("fw_cfg file name {0:?} is not 1 to {MAX_NAME_LEN} characters of printable ASCII; shorten it")]
    Name(String),
    /// There is such a file or item.
    #[error("fw_cfg already has {0}; give each item once")]
    Duplicate(String),
    /// The directory is full.
    #[error("fw_cfg has room for {MAX_FILES} files; remove some")]
    Full,
    /// Sizes are 32 bits wide.
    #[error("fw_cfg item {0} is larger than 4 GiB - 1 byte")]
    TooLarge(String),
    /// The key belongs to files, to the directory or to a flag.
    #[error("fw_cfg key {0:#x} is reserved")]
    Reserved(u16),
}

type Bytes = Arc<[u8]>;

/// Where the guest is in which item. The items themselves come with the board, as firmware does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    selected: u16,
    /// Bytes of the selected item that were read or skipped.
    position: u64,
    /// Upper half of the DMA address, written and waiting for the lower.
    dma_high: u32,
}

/// The device.
pub struct FwCfg {
    state: FwCfgState,
    items: BTreeMap<u16, Bytes>,
    /// Sorted by name; the n-th has key `FILE_FIRST + n`.
    files: BTreeMap<String, Bytes>,
    memory: GuestMemory,
}

impl fmt::Debug for FwCfg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: BTreeMap<_, _> = self.files.iter().map(|(name, bytes)| (name, bytes.len())).collect();
        f.debug_struct("FwCfg").field("state", &self.state).field("files", &sizes).finish_non_exhaustive()
    }
}

impl FwCfg {
    /// A device with the signature, the feature bits and an empty directory, that reads and writes `memory`.
    pub fn new(memory: GuestMemory) -> Self {
        let mut items: BTreeMap<u16, Bytes> = BTreeMap::new();
        items.insert(key::SIGNATURE, b"QEMU".to_vec().into());
        items.insert(key::ID, FEATURES.to_le_bytes().to_vec().into());
        let mut device = Self { state: FwCfgState::default(), items, files: BTreeMap::new(), memory };
        device.update_directory();
        device
    }

    /// Adds the item `key`.
    pub fn add_item(&mut self, key: u16, bytes: impl Into<Arc<[u8]>>) -> Result<(), FwCfgError> {
        let bytes = bytes.into();
        let number = key & !key::ARCH_LOCAL;
        if number & key::WRITE_CHANNEL != 0 || number >= key::FILE_FIRST {
            return Err(FwCfgError::Reserved(key));
        }
        if self.items.contains_key(&key) {
            return Err(FwCfgError::Duplicate(format!("key {key:#x}")));
        }
        check_len(&bytes, || format!("{key:#x}"))?;
        self.items.insert(key, bytes);
        Ok(())
    }

    /// Adds the file `name` ("opt/org.example/x", "etc/acpi/tables"). Keys of other files may move, so all files
    /// are added before a guest runs.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<(), FwCfgError> {
        let bytes = bytes.into();
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(FwCfgError::Name(name.to_owned()));
        }
        if self.files.contains_key(name) {
            return Err(FwCfgError::Duplicate(name.to_owned()));
        }
        if self.files.len() >= MAX_FILES {
            return Err(FwCfgError::Full);
        }
        check_len(&bytes, || name.to_owned())?;
        self.files.insert(name.to_owned(), bytes);
        self.update_directory();
        Ok(())
    }

    /// A big-endian count, then for each file its size, key, two zero bytes and NUL-padded name.
    fn update_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for ((name, bytes), key) in self.files.iter().zip(key::FILE_FIRST..) {
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name.bytes().chain(std::iter::repeat(0)).take(MAX_NAME_LEN + 1));
        }
        self.items.insert(key::FILE_DIR, directory.into());
    }

    /// The item's bytes; those of an item that does not exist are none.
    fn item(&self, key: u16) -> &[u8] {
        let file = key.checked_sub(key::FILE_FIRST).and_then(|n| self.files.values().nth(n.into()));
        file.or_else(|| self.items.get(&key)).map_or(&[], |bytes| bytes)
    }

    fn select(&mut self, key: u16) {
        self.state.selected = key & !key::WRITE_CHANNEL;
        self.state.position = 0;
    }

    /// The unread part of the selected item.
    fn rest(&self) -> &[u8] {
        let item = self.item(self.state.selected);
        usize::try_from(self.state.position).ok().and_then(|at| item.get(at..)).unwrap_or(&[])
    }

    /// Moves on, to the item's end at most.
    fn advance(&mut self, len: u64) {
        self.state.position += len.min(self.rest().len() as u64);
    }

    fn read_data(&mut self, size: usize) -> u64 {
        let mut bytes = [0; 8];
        let rest = self.rest();
        let len = rest.len().min(size);
        bytes[..len].copy_from_slice(&rest[..len]);
        self.advance(size as u64);
        u64::from_le_bytes(bytes)
    }

    /// Carries out the control structure at `at`: control and length (32 bits each) and address (64), big-endian.
    fn dma(&mut self, at: Gpa) {
        let mut words = [0; 16];
        let fetched = self.memory.read(at, &mut words);
        let word =
            |i: usize| words.iter().skip(i).take(4).fold(0u32, |value, b| (value << 8) | u32::from(*b));
        let address = Gpa((u64::from(word(8)) << 32) | u64::from(word(12)));
        let done = fetched.is_ok() && self.transfer(word(0), u64::from(word(4)), address);
        let result = if done { 0 } else { control::ERROR };
        if self.memory.write(at, &result.to_be_bytes()).is_err() {
            isomer_core::guest_warn!(%at, "fw_cfg: DMA control structure is outside RAM");
        }
    }

    /// Returns whether it was done.
    fn transfer(&mut self, control: u32, len: u64, address: Gpa) -> bool {
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        if control & control::READ != 0 {
            return self.transfer_to(address, len);
        }
        if control & control::WRITE != 0 {
            return false;
        }
        if control & control::SKIP != 0 {
            self.advance(len);
        }
        true
    }

    fn transfer_to(&mut self, address: Gpa, len: u64) -> bool {
        const ZEROS: [u8; 4096] = [0; 4096];
        let rest = self.rest();
        let data = &rest[..usize::try_from(len).unwrap_or(usize::MAX).min(rest.len())];
        let mut padding = len - data.len() as u64;
        let in_ram = usize::try_from(len).is_ok_and(|len| len == 0 || self.memory.is_ram(address, len));
        if padding > MAX_PADDING || !in_ram || self.memory.write(address, data).is_err() {
            return false;
        }
        let mut at = address.wrapping_add(data.len() as u64);
        while padding > 0 {
            let zeros = &ZEROS[..padding.min(ZEROS.len() as u64) as usize];
            if self.memory.write(at, zeros).is_err() {
                return false;
            }
            at = at.wrapping_add(zeros.len() as u64);
            padding -= zeros.len() as u64;
        }
        self.advance(len);
        true
    }
}

fn check_len(bytes: &[u8], name: impl Fn() -> String) -> Result<(), FwCfgError> {
    u32::try_from(bytes.len()).map(drop).map_err(|_| FwCfgError::TooLarge(name()))
}

impl Device for FwCfg {
    const NAME: &'static str = "qemu,fw-cfg-mmio";
    const VERSION: u32 = 1;
    type State = FwCfgState;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        match offset {
            _ if region != 0 => 0,
            DATA => self.read_data(size),
            DMA..WINDOW_LEN if offset + size as u64 <= WINDOW_LEN => {
                let mut bytes = [0; 8];
                let from = (offset - DMA) as usize;
                bytes[..size].copy_from_slice(&DMA_SIGNATURE.to_be_bytes()[from..from + size]);
                u64::from_le_bytes(bytes)
            }
            _ => 0,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        match (offset, size) {
            _ if region != 0 => {}
            (SELECTOR, 2) => self.select((value as u16).swap_bytes()),
            (DMA, 8) => {
                self.state.dma_high = 0;
                self.dma(Gpa(value.swap_bytes()));
            }
            (DMA, 4) => self.state.dma_high = (value as u32).swap_bytes(),
            (20, 4) => {
                let high = std::mem::take(&mut self.state.dma_high);
                self.dma(Gpa((u64::from(high) << 32) | u64::from((value as u32).swap_bytes())));
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.state = FwCfgState::default();
    }

    fn save(&self) -> FwCfgState {
        self.state.clone()
    }

    fn restore(&mut self, state: FwCfgState) -> Result<(), StateError> {
        let len = self.item(state.selected).len() as u64;
        if state.selected & key::WRITE_CHANNEL != 0 || state.position > len {
            let why = format!("byte {} of item {:#x}, which has {len}", state.position, state.selected);
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        self.state = state;
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("fw-cfg", &["qemu,fw-cfg-mmio"])
        };
        Some(node.with("dma-coherent", FwValue::Flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;

    const RAM: u64 = 0x8000_0000;
    const RAM_LEN: u64 = 4 << 20;

    fn device() -> FwCfg {
        let mut device = FwCfg::new(GuestMemory::new(&[(Gpa(RAM), RAM_LEN)]).unwrap());
        device.add_item(key::NB_CPUS, 4u16.to_le_bytes().to_vec()).unwrap();
        device.add_file("opt/b", b"0123456789".to_vec()).unwrap();
        device.add_file("etc/a", vec![7; 3]).unwrap();
        device
    }

    device_conformance!(
        conformance,
        device(),
        Options { windows: &[WINDOW_LEN], self_contained: true, ..Options::default() }
    );

    fn select(device: &mut FwCfg, key: u16) {
        Device::write(device, 0, SELECTOR, 2, key.swap_bytes().into());
    }

    fn read_bytes(device: &mut FwCfg, len: usize) -> Vec<u8> {
        (0..len).map(|_| Device::read(device, 0, 0, 1) as u8).collect()
    }

    /// Puts a control structure at the start of RAM, starts it, and returns the control word left there.
    fn dma(device: &mut FwCfg, control: u32, len: u32, address: u64) -> u32 {
        let words = [control.to_be_bytes(), len.to_be_bytes()].concat();
        device.memory.write(Gpa(RAM), &[&words[..], &address.to_be_bytes()].concat()).unwrap();
        Device::write(device, 0, DMA, 8, RAM.swap_bytes());
        let mut result = [0; 4];
        device.memory.read(Gpa(RAM), &mut result).unwrap();
        u32::from_be_bytes(result)
    }

    fn ram(device: &FwCfg, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        device.memory.read(Gpa(RAM + offset), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_signature_and_features_are_there() {
        let mut device = device();
        assert_eq!(read_bytes(&mut device, 6), b"QEMU\0\0");
        select(&mut device, key::ID);
        assert_eq!(Device::read(&mut device, 0, 0, 4), 3);
        assert_eq!(Device::read(&mut device, 0, DMA, 8).swap_bytes(), 0x5145_4d55_2043_4647);
        assert_eq!((Device::read(&mut device, 0, 20, 4) as u32).swap_bytes(), 0x2043_4647);
    }

    #[test]
    fn the_directory_is_sorted_and_leads_to_the_files() {
        let mut device = device();
        select(&mut device, key::FILE_DIR);
        let directory = read_bytes(&mut device, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..18], *b"\0\0\0\x03\0\x20\0\0etc/a\0");
        assert_eq!(directory[68..82], *b"\0\0\0\x0a\0\x21\0\0opt/b\0");
        select(&mut device, 0x21);
        assert_eq!(Device::read(&mut device, 0, 0, 4).to_le_bytes()[..4], *b"0123");
        assert_eq!(Device::read(&mut device, 0, 0, 8).to_le_bytes(), *b"456789\0\0");
        assert_eq!(Device::read(&mut device, 0, 0, 2), 0);
        select(&mut device, 0x22);
        assert_eq!(read_bytes(&mut device, 2), [0, 0]);
    }

    #[test]
    fn dma_selects_skips_reads_and_pads() {
        let mut device = device();
        assert_eq!(dma(&mut device, 0x21 << 16 | control::SELECT | control::SKIP, 2, 0), 0);
        assert_eq!(dma(&mut device, control::READ, 3, RAM + 0x100), 0);
        assert_eq!(ram(&device, 0x100, 4), b"234\0");
        device.memory.write(Gpa(RAM + 0x200), &[0xff; 9000]).unwrap();
        assert_eq!(dma(&mut device, control::READ, 8999, RAM + 0x200), 0);
        let padded = ram(&device, 0x200, 9000);
        assert!(padded.starts_with(b"56789\0") && padded.ends_with(b"\0\xff"));
        assert_eq!(dma(&mut device, control::WRITE, 1, RAM + 0x100), control::ERROR);
    }

    #[test]
    fn dma_starts_with_the_lower_half() {
        let mut device = device();
        let words: Vec<u8> =
            [0x0005_000a_u32, 2, 0, RAM as u32 + 64].iter().flat_map(|w| w.to_be_bytes()).collect();
        device.memory.write(Gpa(RAM), &words).unwrap();
        Device::write(&mut device, 0, DMA, 4, 0);
        assert_eq!(ram(&device, 0, 1), [0]);
        assert_eq!(ram(&device, 64, 2), [0, 0]);
        Device::write(&mut device, 0, 20, 4, (RAM as u32).swap_bytes().into());
        assert_eq!(ram(&device, 64, 2), [4, 0]);
        assert_eq!(ram(&device, 0, 4), [0; 4]);
    }

    #[test]
    fn hostile_transfers_are_refused() {
        let mut device = device();
        select(&mut device, 0x21);
        for (len, address) in [
            (u32::MAX, RAM),
            (8, RAM + RAM_LEN - 4),
            (8, u64::MAX - 3),
            (8, 0),
            (10 + MAX_PADDING as u32 + 1, RAM + 0x1000),
        ] {
            assert_eq!(
                dma(&mut device, control::READ, len, address),
                control::ERROR,
                "{len:#x} to {address:#x}"
            );
        }
        assert_eq!(dma(&mut device, control::SKIP, u32::MAX, 0), 0);
        assert_eq!(dma(&mut device, control::READ, 0, 0), 0);
        for at in [0, u64::MAX, RAM + RAM_LEN - 8] {
            Device::write(&mut device, 0, DMA, 8, at.swap_bytes());
        }
    }

    #[test]
    fn items_have_limits() {
        let mut device = device();
        let long = "x".repeat(56);
        for name in ["", "a b", "\u{e9}", &long] {
            assert_eq!(device.add_file(name, vec![]), Err(FwCfgError::Name(name.into())));
        }
        assert_eq!(device.add_file("opt/b", vec![]), Err(FwCfgError::Duplicate("opt/b".into())));
        assert_eq!(device.add_item(key::FILE_FIRST, vec![]), Err(FwCfgError::Reserved(0x20)));
        assert!(matches!(device.add_item(key::SIGNATURE, vec![]), Err(FwCfgError::Duplicate(_))));
        for i in 2..MAX_FILES {
            device.add_file(&format!("opt/{i}"), vec![]).unwrap();
        }
        assert_eq!(device.add_file("opt/more", vec![]), Err(FwCfgError::Full));
    }

    #[test]
    fn a_state_beyond_an_item_is_refused() {
        let mut device = device();
        let state = FwCfgState { selected: 0x20, position: 4, dma_high: 0 };
        assert!(Device::restore(&mut device, state).is_err());
    }
}
