//! GICv3 interrupt translation service (IHI 0069H, 5.2 and 12.18): turns messages, a device's number and an event,
//! into LPIs. Physical LPIs only.
//!
//! The tables that software provides hold everything it maps, so a guest decides how much memory that takes, and all
//! of it is its own. Commands are carried out when `GITS_CWRITER` is written; they never stall, and those that make
//! no sense are passed over, as an ITS without error reporting may do.

use super::{
    Gicv3, ID_BITS,
    distributor::{IIDR, PIDR2},
    lpi::LpiPort,
};
use crate::gic::lines::{read_words, write_words};
use crate::pci::MsiSink;
use isomer_core::{Device, FwNode, FwValue, Gpa, GuestMemory, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in the register window: control and translation pages.
pub const WINDOW_LEN: u64 = 0x2_0000;
/// Where in the window messages are written to.
pub const TRANSLATER: u64 = 0x1_0040;

/// Register offsets in bytes.
mod reg {
    pub(super) const CTLR: u64 = 0x0;
    pub(super) const IIDR: u64 = 0x4;
    pub(super) const TYPER: u64 = 0x8;
    pub(super) const TYPER_HIGH: u64 = 0xc;
    pub(super) const CBASER: u64 = 0x80;
    pub(super) const CBASER_HIGH: u64 = 0x84;
    pub(super) const CWRITER: u64 = 0x88;
    pub(super) const CREADR: u64 = 0x90;
    pub(super) const BASER: u64 = 0x100;
    pub(super) const BASER_END: u64 = 0x140;
    pub(super) const PIDR2: u64 = 0xffe8;
}

mod ctlr {
    pub(super) const ENABLED: u32 = 1;
    pub(super) const QUIESCENT: u32 = 1 << 31;
}

/// Bytes of an entry in every table: device, collection and interrupt translation.
pub(super) const ENTRY_LEN: u64 = 8;
/// Bits of device, event and collection numbers.
pub(super) const NUMBER_BITS: u32 = 16;

/// `GITS_TYPER`: physical LPIs, entry size, event, device and collection bits; redistributors by processor number.
const TYPER: u64 = 1
    | (ENTRY_LEN - 1) << 4
    | (ID_BITS as u64 - 1) << 8
    | (NUMBER_BITS as u64 - 1) << 13
    | (NUMBER_BITS as u64 - 1) << 32
    | 1 << 36;

/// Valid, in every register and entry that has such a bit.
pub(super) const VALID: u64 = 1 << 63;
/// `GITS_BASER`: the table has two levels.
const INDIRECT: u64 = 1 << 62;
/// Writable bits of `GITS_BASER`: the others say what the table is for and how long its entries are.
const BASER_MASK: u64 = VALID | INDIRECT | 7 << 59 | 7 << 53 | 0xffff_ffff_ffff;
/// Writable bits of `GITS_CBASER`.
const CBASER_MASK: u64 = VALID | 7 << 59 | 7 << 53 | 0xf_ffff_ffff_fcff;
/// Bits of `GITS_CWRITER` and `GITS_CREADR`: an offset in the queue, in bytes.
const OFFSET_MASK: u64 = 0xf_ffe0;

/// The tables, by `GITS_BASER` number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Table {
    Devices,
    Collections,
}

/// `GITS_BASER.Type` of each.
const TABLE_TYPES: [u64; 2] = [1, 4];

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItsState {
    enabled: bool,
    cbaser: u64,
    cwriter: u64,
    creadr: u64,
    baser: [u64; 2],
}

impl ItsState {
    fn is_possible(&self) -> bool {
        self.cbaser & !CBASER_MASK == 0
            && (self.cwriter | self.creadr) & !OFFSET_MASK == 0
            && self.baser.iter().all(|baser| baser & !BASER_MASK == 0)
    }

    /// Bytes in the command queue.
    pub(super) fn queue_len(&self) -> u64 {
        if self.cbaser & VALID != 0 { ((self.cbaser & 0xff) + 1) << 12 } else { 0 }
    }
}

pub(super) struct Core {
    pub(super) state: ItsState,
    pub(super) lpis: LpiPort,
    pub(super) memory: GuestMemory,
    translater: Gpa,
}

impl Core {
    pub(super) fn is_enabled(&self) -> bool {
        self.state.enabled
    }

    /// The next command to carry out, which it then counts as done.
    pub(super) fn next_command(&mut self) -> Option<[u64; 4]> {
        let state = &mut self.state;
        let len = state.queue_len();
        if !state.enabled || state.creadr == state.cwriter || state.cwriter.max(state.creadr) >= len {
            return None;
        }
        let mut bytes = [0; 32];
        let at = Gpa(state.cbaser & 0xf_ffff_ffff_f000).wrapping_add(state.creadr);
        // A queue that is not RAM holds zeros, and those are no command.
        let _ = self.memory.read(at, &mut bytes);
        state.creadr = (state.creadr + 32) % len;
        let word = |n: usize| bytes[8 * n..8 * n + 8].iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
        Some([0, 1, 2, 3].map(word))
    }

    /// Where a table has the entry `index`.
    pub(super) fn entry_at(&self, table: Table, index: u64) -> Option<Gpa> {
        let baser = self.state.baser[table as usize];
        if baser & VALID == 0 {
            return None;
        }
        let page_len = [0x1000u64, 0x4000, 0x1_0000, 0x1_0000][(baser >> 8 & 3) as usize];
        let base = match page_len {
            0x1_0000 => baser & 0xffff_ffff_0000 | (baser >> 12 & 0xf) << 48,
            _ => baser & 0xffff_ffff_f000 & !(page_len - 1),
        };
        let len = ((baser & 0xff) + 1) * page_len;
        let within = |offset: u64| (offset < len).then(|| Gpa(base).wrapping_add(offset));
        if baser & INDIRECT == 0 {
            return within(index * ENTRY_LEN);
        }
        let a_page = page_len / ENTRY_LEN;
        let page = self.load(within(index / a_page * ENTRY_LEN)?)?;
        let start = Gpa(page & 0xf_ffff_ffff_f000 & !(page_len - 1));
        (page & VALID != 0).then(|| start.wrapping_add(index % a_page * ENTRY_LEN))
    }

    /// Reads an entry; `None` if it is not in RAM.
    pub(super) fn load(&self, at: Gpa) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes an entry, if it is in RAM.
    pub(super) fn store(&self, at: Gpa, entry: u64) {
        if self.memory.write(at, &entry.to_le_bytes()).is_err() {
            isomer_core::guest_warn!(%at, "GICv3 ITS: a table is not in RAM");
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let state = &self.state;
        let half = |whole: u64| (whole >> (offset % 8 * 8)) as u32;
        match offset {
            reg::CTLR if state.enabled => ctlr::ENABLED,
            reg::CTLR => ctlr::QUIESCENT,
            reg::IIDR => IIDR,
            reg::TYPER | reg::TYPER_HIGH => half(TYPER),
            reg::CBASER | reg::CBASER_HIGH => half(state.cbaser),
            reg::CWRITER => state.cwriter as u32,
            reg::CREADR => state.creadr as u32,
            reg::BASER..reg::BASER_END => {
                let number = ((offset - reg::BASER) / 8) as usize;
                let table = state.baser.get(number).zip(TABLE_TYPES.get(number));
                table.map_or(0, |(baser, kind)| half(baser | kind << 56 | (ENTRY_LEN - 1) << 48))
            }
            reg::PIDR2 => PIDR2,
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32, mask: u32) {
        let state = &mut self.state;
        let shift = offset % 8 * 8;
        let merge = |whole: u64| whole & !(u64::from(mask) << shift) | u64::from(value) << shift;
        match offset {
            reg::CTLR => state.enabled = value & ctlr::ENABLED != 0,
            reg::CBASER | reg::CBASER_HIGH if !state.enabled => {
                state.cbaser = merge(state.cbaser) & CBASER_MASK;
                state.creadr = 0;
            }
            reg::CWRITER => state.cwriter = merge(state.cwriter) & OFFSET_MASK,
            reg::BASER..reg::BASER_END if !state.enabled => {
                if let Some(baser) = state.baser.get_mut(((offset - reg::BASER) / 8) as usize) {
                    *baser = merge(*baser) & BASER_MASK;
                }
            }
            _ => return,
        }
        self.run_commands();
    }
}

/// The translation service as its device side and the functions that send messages share it.
struct Shared(Mutex<Core>);

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiSink for Shared {
    fn send(&self, requester_id: u16, address: u64, data: u32) {
        let core = self.core();
        if address == core.translater.0 {
            core.translate(requester_id.into(), data.into());
        }
    }
}

/// The interrupt translation service.
pub struct Its(Arc<Shared>);

impl std::fmt::Debug for Its {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Its").field(&self.0.core().state).finish()
    }
}

impl Its {
    /// A service before `gic`'s redistributors, whose window is at `base`. Its tables and commands are in `memory`.
    pub fn new(gic: &Gicv3, memory: GuestMemory, base: Gpa) -> Self {
        let lpis = LpiPort::new(gic.shared.clone());
        let translater = base.wrapping_add(TRANSLATER);
        Self(Arc::new(Shared(Mutex::new(Core { state: ItsState::default(), lpis, memory, translater }))))
    }

    /// Where functions send their messages. The device's number is the function's requester ID.
    pub fn msi_sink(&self) -> Arc<dyn MsiSink> {
        self.0.clone()
    }
}

impl Device for Its {
    const NAME: &'static str = "arm,gic-v3-its";
    const VERSION: u32 = 1;
    type State = ItsState;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region == 0 { read_words(offset, size, |at| self.0.core().read(at)) } else { 0 }
    }

    /// A CPU has no device number, so its writes to `GITS_TRANSLATER` translate to nothing.
    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region == 0 {
            write_words(offset, size, value, |at, value, mask| self.0.core().write(at, value, mask));
        }
    }

    fn reset(&mut self) {
        self.0.core().state = ItsState::default();
    }

    fn save(&self) -> ItsState {
        self.0.core().state.clone()
    }

    fn restore(&mut self, state: ItsState) -> Result<(), StateError> {
        if !state.is_possible() {
            return Err(StateError::Damaged { device: Self::NAME, why: "impossible register values".into() });
        }
        self.0.core().state = state;
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("its", &["arm,gic-v3-its"])
        };
        Some(node.with("msi-controller", FwValue::Flag).with("#msi-cells", FwValue::Cells(vec![1])))
    }
}
