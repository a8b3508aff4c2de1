//! Locality-specific peripheral interrupts of one redistributor (IHI 0069H, 5.1 and 5.2): which are pending, and how
//! they are configured. The tables are in guest memory; what is pending is cached here with its configuration.

use super::{Core, FIRST_LPI, Highest, ID_BITS, Shared};
use crate::gic::{PRIORITY_MASK, lines::Best};
use isomer_core::{Gpa, GuestMemory};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An LPI's configuration byte: priority in bits 7:2, enable in bit 0.
const ENABLED: u8 = 1;
/// One past the last LPI.
const END: u32 = 1 << ID_BITS;

/// LPIs that there are by `GICR_PROPBASER.IDbits`: one past the last.
fn end(propbaser: u64) -> u32 {
    let bits = (propbaser & 0x1f) as u32 + 1;
    if bits >= ID_BITS { END } else { 1 << bits }
}

/// Address of the configuration table.
fn config_table(propbaser: u64) -> Gpa {
    Gpa(propbaser & 0xf_ffff_ffff_f000)
}

/// Address of the pending table.
fn pending_table(pendbaser: u64) -> Gpa {
    Gpa(pendbaser & 0xf_ffff_ffff_0000)
}

/// Pending LPIs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lpis {
    /// INTID to configuration byte, as it was when the LPI became pending or was last invalidated.
    pending: BTreeMap<u32, u8>,
    /// The enabled ones, `(priority, INTID)`.
    #[serde(skip)]
    ready: BTreeSet<Best>,
}

fn ready(intid: u32, config: u8) -> Option<Best> {
    (config & ENABLED != 0).then_some((config & PRIORITY_MASK, intid))
}

impl Lpis {
    /// What memory holds: configurations, and the pending bits unless they are known to be zeros. Tables that are not
    /// RAM read as zeros.
    pub(super) fn load(memory: &GuestMemory, propbaser: u64, pendbaser: Option<u64>) -> Self {
        let mut lpis = Self::default();
        let count = end(propbaser).saturating_sub(FIRST_LPI) as usize;
        let mut bits = vec![0; count / 8];
        let Some(pendbaser) = pendbaser else { return lpis };
        let first = pending_table(pendbaser).wrapping_add(u64::from(FIRST_LPI / 8));
        if memory.read(first, &mut bits).is_err() {
            return lpis;
        }
        let mut configs = vec![0; count];
        // Where it cannot be read it stays zeros: nothing is enabled.
        let _ = memory.read(config_table(propbaser), &mut configs);
        for (byte, _) in bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            for bit in (0..8).filter(|bit| bits[byte] >> bit & 1 != 0) {
                let at = 8 * byte + bit;
                lpis.insert(FIRST_LPI + at as u32, configs[at]);
            }
        }
        lpis
    }

    /// Writes the pending bits to memory, where that is RAM.
    pub(super) fn store(&self, memory: &GuestMemory, propbaser: u64, pendbaser: u64) {
        let mut bits = vec![0u8; (end(propbaser).saturating_sub(FIRST_LPI) / 8) as usize];
        for intid in self.pending.keys() {
            let at = (intid - FIRST_LPI) as usize;
            if let Some(byte) = bits.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
        }
        let first = pending_table(pendbaser).wrapping_add(u64::from(FIRST_LPI / 8));
        if memory.write(first, &bits).is_err() {
            isomer_core::guest_warn!(at = %first, "GICv3: an LPI pending table is not in RAM");
        }
    }

    fn insert(&mut self, intid: u32, config: u8) {
        self.remove(intid);
        self.pending.insert(intid, config);
        self.ready.extend(ready(intid, config));
    }

    /// Tells the configuration it had if it was pending.
    pub(super) fn remove(&mut self, intid: u32) -> Option<u8> {
        let config = self.pending.remove(&intid)?;
        if let Some(ready) = ready(intid, config) {
            self.ready.remove(&ready);
        }
        Some(config)
    }

    /// The enabled one to be handled first.
    pub(super) fn best(&self) -> Option<Best> {
        self.ready.first().copied()
    }

    /// Makes what follows from the saved part.
    pub(super) fn index(&mut self) {
        self.ready = self.pending.iter().filter_map(|(intid, config)| ready(*intid, *config)).collect();
    }

    pub(super) fn is_possible(&self, enabled: bool) -> bool {
        (enabled || self.pending.is_empty())
            && self.pending.keys().all(|intid| (FIRST_LPI..END).contains(intid))
    }

    /// Takes over all of another's; moves the fewer of the two.
    fn absorb(&mut self, mut other: Self) {
        if other.pending.len() > self.pending.len() {
            std::mem::swap(self, &mut other);
        }
        for (intid, config) in other.pending {
            self.insert(intid, config);
        }
    }
}

impl Core {
    /// An LPI's configuration now; zero if the table is not RAM.
    fn lpi_config(&self, cpu: usize, intid: u32) -> u8 {
        let table = config_table(self.state.redistributors[cpu].propbaser);
        let mut config = [0];
        let read = self.memory.read(table.wrapping_add(u64::from(intid - FIRST_LPI)), &mut config);
        if read.is_ok() { config[0] } else { 0 }
    }

    /// Is this an LPI that a redistributor can have pending?
    fn has_lpi(&self, cpu: usize, intid: u32) -> bool {
        let redistributor = self.state.redistributors.get(cpu);
        redistributor.is_some_and(|r| r.lpis_enabled() && (FIRST_LPI..end(r.propbaser)).contains(&intid))
    }

    /// An acknowledged LPI is pending no more; it is never active.
    pub(super) fn acknowledge_lpi(&mut self, cpu: usize, highest: &Highest) {
        self.state.redistributors[cpu].lpis.remove(highest.intid);
    }
}

/// What the translation service asks of redistributors, which it names by their CPUs' numbers. CPUs and LPIs that
/// do not exist are ignored.
#[derive(Clone)]
pub(super) struct LpiPort(Arc<Shared>);

impl LpiPort {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn cpus(&self) -> usize {
        self.0.core().cpus.len()
    }

    fn change(&self, change: impl FnOnce(&mut Core)) {
        let mut core = self.0.core();
        change(&mut core);
        core.update();
    }

    /// Makes an LPI pending.
    pub(super) fn set(&self, cpu: usize, intid: u32) {
        self.change(|core| {
            if core.has_lpi(cpu, intid) {
                let config = core.lpi_config(cpu, intid);
                core.state.redistributors[cpu].lpis.insert(intid, config);
            }
        });
    }

    /// Makes an LPI pending no more.
    pub(super) fn clear(&self, cpu: usize, intid: u32) {
        self.change(|core| {
            if core.has_lpi(cpu, intid) {
                core.state.redistributors[cpu].lpis.remove(intid);
            }
        });
    }

    /// Reads an LPI's configuration again.
    pub(super) fn invalidate(&self, cpu: usize, intid: u32) {
        self.change(|core| {
            if core.has_lpi(cpu, intid) && core.state.redistributors[cpu].lpis.remove(intid).is_some() {
                let config = core.lpi_config(cpu, intid);
                core.state.redistributors[cpu].lpis.insert(intid, config);
            }
        });
    }

    /// Reads all LPIs' configurations again.
    pub(super) fn invalidate_all(&self, cpu: usize) {
        self.change(|core| {
            let Some(redistributor) = core.state.redistributors.get_mut(cpu) else { return };
            let mut lpis = std::mem::take(&mut redistributor.lpis);
            for (intid, config) in &mut lpis.pending {
                *config = core.lpi_config(cpu, *intid);
            }
            lpis.index();
            core.state.redistributors[cpu].lpis = lpis;
        });
    }

    /// Moves an LPI, if it is pending, to another CPU.
    pub(super) fn move_one(&self, from: usize, to: usize, intid: u32) {
        self.change(|core| {
            if core.has_lpi(from, intid)
                && core.has_lpi(to, intid)
                && let Some(config) = core.state.redistributors[from].lpis.remove(intid)
            {
                core.state.redistributors[to].lpis.insert(intid, config);
            }
        });
    }

    /// Moves all pending LPIs to another CPU.
    pub(super) fn move_all(&self, from: usize, to: usize) {
        self.change(|core| {
            let redistributors = &mut core.state.redistributors;
            let uses_lpis = |cpu: usize| redistributors.get(cpu).is_some_and(|r| r.lpis_enabled());
            if from != to && uses_lpis(from) && uses_lpis(to) {
                let moved = std::mem::take(&mut redistributors[from].lpis);
                redistributors[to].lpis.absorb(moved);
            }
        });
    }
}
