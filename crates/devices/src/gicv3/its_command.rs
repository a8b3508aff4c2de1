//! The ITS's commands (IHI 0069H, 5.3) and the translation they set up.
//!
//! | Entry | 63 | 51:8 | 47:32 | 31:0 |
//! |---|---|---|---|---|
//! | device | valid | interrupt translation table | | event bits less one (4:0) |
//! | interrupt translation | valid | | collection | LPI |
//! | collection | valid | | | CPU number (15:0) |

use super::{
    FIRST_LPI, ID_BITS,
    its::{Core, ENTRY_LEN, NUMBER_BITS, Table, VALID},
};
use isomer_core::Gpa;
use std::collections::BTreeSet;

/// Bits of a device's entry and of MAPD that hold the address of the interrupt translation table.
const ITT_MASK: u64 = 0xf_ffff_ffff_ff00;

/// Command numbers.
mod command {
    pub(super) const MOVI: u64 = 0x01;
    pub(super) const INT: u64 = 0x03;
    pub(super) const CLEAR: u64 = 0x04;
    pub(super) const MAPD: u64 = 0x08;
    pub(super) const MAPC: u64 = 0x09;
    pub(super) const MAPTI: u64 = 0x0a;
    pub(super) const MAPI: u64 = 0x0b;
    pub(super) const INV: u64 = 0x0c;
    pub(super) const INVALL: u64 = 0x0d;
    pub(super) const MOVALL: u64 = 0x0e;
    pub(super) const DISCARD: u64 = 0x0f;
}

/// What an event leads to.
struct Target {
    /// Where its entry is.
    entry: Gpa,
    lpi: u32,
    cpu: usize,
}

impl Core {
    /// Carries out what is in the command queue.
    pub(super) fn run_commands(&mut self) {
        // Software queued its INVALLs after it changed configurations, so one reading serves all that are queued.
        let mut invalidated = BTreeSet::new();
        let mut left = self.state.queue_len() / 32;
        while left > 0
            && let Some(words) = self.next_command()
        {
            left -= 1;
            self.run(words, &mut invalidated);
        }
    }

    fn run(&self, [w0, w1, w2, w3]: [u64; 4], invalidated: &mut BTreeSet<usize>) {
        let (device, event) = (w0 >> 32, w1 & 0xffff_ffff);
        let (icid, valid) = (w2 & 0xffff, w2 & VALID);
        let target = || self.target(device, event);
        match w0 & 0xff {
            command::MAPD => self.map_device(device, valid | w2 & ITT_MASK | w1 & 0x1f),
            command::MAPC => self.map_collection(icid, valid, w2 >> 16 & 0xffff),
            command::MAPTI => self.map_event(device, event, icid, w1 >> 32),
            command::MAPI => self.map_event(device, event, icid, event),
            command::MOVI => self.move_event(device, event, icid),
            command::DISCARD => {
                if let Some(target) = target() {
                    self.lpis.clear(target.cpu, target.lpi);
                    self.store(target.entry, 0);
                }
            }
            command::INT => self.translate(device, event),
            command::CLEAR => drop(target().map(|target| self.lpis.clear(target.cpu, target.lpi))),
            command::INV => drop(target().map(|target| self.lpis.invalidate(target.cpu, target.lpi))),
            command::INVALL => {
                if let Some(cpu) = self.collection(icid).filter(|cpu| invalidated.insert(*cpu)) {
                    self.lpis.invalidate_all(cpu);
                }
            }
            command::MOVALL => self.lpis.move_all(cpu_number(w2), cpu_number(w3)),
            // SYNC: everything is done when a command is. Others do not exist.
            _ => {}
        }
    }

    /// A message arrives, or INT says that one did.
    pub(super) fn translate(&self, device: u64, event: u64) {
        if !self.is_enabled() {
            return;
        }
        if let Some(target) = self.target(device, event) {
            self.lpis.set(target.cpu, target.lpi);
        }
    }

    fn map_device(&self, device: u64, entry: u64) {
        if device >> NUMBER_BITS != 0 || entry & 0x1f >= u64::from(NUMBER_BITS) {
            return;
        }
        if let Some(at) = self.entry_at(Table::Devices, device) {
            self.store(at, if entry & VALID != 0 { entry } else { 0 });
        }
    }

    fn map_collection(&self, icid: u64, valid: u64, cpu: u64) {
        if valid != 0 && cpu >= self.lpis.cpus() as u64 {
            return;
        }
        if let Some(at) = self.entry_at(Table::Collections, icid) {
            self.store(at, if valid != 0 { VALID | cpu } else { 0 });
        }
    }

    fn map_event(&self, device: u64, event: u64, icid: u64, lpi: u64) {
        if !(u64::from(FIRST_LPI)..1 << ID_BITS).contains(&lpi) {
            return;
        }
        if let Some(at) = self.event_entry(device, event) {
            self.store(at, VALID | icid << 32 | lpi);
        }
    }

    fn move_event(&self, device: u64, event: u64, icid: u64) {
        let (Some(from), Some(to)) = (self.target(device, event), self.collection(icid)) else { return };
        self.store(from.entry, VALID | icid << 32 | u64::from(from.lpi));
        self.lpis.move_one(from.cpu, to, from.lpi);
    }

    /// Where an event's entry is.
    fn event_entry(&self, device: u64, event: u64) -> Option<Gpa> {
        if device >> NUMBER_BITS != 0 {
            return None;
        }
        let entry = self.load(self.entry_at(Table::Devices, device)?)?;
        let exists = entry & VALID != 0 && event >> ((entry & 0x1f) + 1) == 0;
        exists.then(|| Gpa(entry & ITT_MASK).wrapping_add(event * ENTRY_LEN))
    }

    /// The CPU of a collection.
    fn collection(&self, icid: u64) -> Option<usize> {
        let entry = self.load(self.entry_at(Table::Collections, icid)?)?;
        (entry & VALID != 0).then_some((entry & 0xffff) as usize)
    }

    fn target(&self, device: u64, event: u64) -> Option<Target> {
        let entry = self.event_entry(device, event)?;
        let value = self.load(entry)?;
        let cpu = (value & VALID != 0).then(|| self.collection(value >> 32 & 0xffff))??;
        Some(Target { entry, lpi: value as u32, cpu })
    }
}

/// The CPU that a command's RDbase field names.
fn cpu_number(word: u64) -> usize {
    (word >> 16 & 0xffff) as usize
}
