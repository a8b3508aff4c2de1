//! SiFive PLIC 1.0.0 (RISC-V Platform-Level Interrupt Controller Specification 1.0.0), as on the `virt` board.
//!
//! Every source has a level-sensitive gateway: it forwards one request, and the next only after completion and
//! only if the input is high then. A request once forwarded stays pending though its input falls (chapter 3).
//! Contexts are harts' privilege modes in the order given, on `virt` M then S of each hart.
//!
//! | Offset | Register (32 bits each) |
//! |---|---|
//! | `0x4 * s` | priority of source s, 0 (never) to 7 |
//! | `0x1000 + 4w` | pending bits, read-only |
//! | `0x2000 + 0x80 * c + 4w` | enable bits of context c |
//! | `0x200000 + 0x1000 * c` | threshold of context c; at +4 claim (read) and complete (write) |

use isomer_core::{
    Device, FwNode, FwValue, IrqLine, IrqSink, Placement, StateError, VcpuSignal, device::FwCell,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Interrupt sources of the `virt` board, numbered from 1 (`riscv,ndev`).
pub const SOURCES: usize = 95;
/// Bytes in the register window.
pub const WINDOW_LEN: u64 = 0x60_0000;
/// Most contexts the register window has room for.
pub const MAX_CONTEXTS: usize = ((WINDOW_LEN - CONTEXT) / CONTEXT_STRIDE) as usize;

const PRIORITY_MAX: u32 = 7;
const WORDS: usize = SOURCES / 32 + 1;
const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

/// `mip` bit of a machine-mode external interrupt.
const MEI: u32 = 11;
/// `mip` bit of a supervisor-mode external interrupt.
const SEI: u32 = 9;

/// A bit a source; bit 0 belongs to the source that does not exist.
type Sources = [u32; WORDS];

/// Who gets interrupts of one context.
#[derive(Clone, Debug)]
pub struct Context {
    /// Hart number, as in the `cpuN-intc` label of its firmware node.
    pub hart: u32,
    /// The hart's interrupt input: 11 for M-mode, 9 for S-mode.
    pub line: u32,
    /// The wire there.
    pub output: IrqLine,
}

impl Context {
    /// M-mode and S-mode contexts of `harts`, in the order of the `virt` board.
    pub fn m_and_s(harts: &[Arc<VcpuSignal>]) -> Vec<Self> {
        let contexts = (0..).zip(harts).flat_map(|(hart, signal)| {
            [MEI, SEI].map(|line| Self { hart, line, output: IrqLine::new(signal.clone(), line) })
        });
        contexts.collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ContextState {
    enabled: Sources,
    threshold: u32,
}

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlicState {
    /// Priorities of sources 1 and up.
    priority: Vec<u32>,
    /// Inputs.
    level: Sources,
    pending: Sources,
    /// Claimed and not completed: the gateway is shut.
    in_service: Sources,
    contexts: Vec<ContextState>,
}

impl PlicState {
    fn power_on(contexts: usize) -> Self {
        Self {
            priority: vec![0; SOURCES],
            level: [0; WORDS],
            pending: [0; WORDS],
            in_service: [0; WORDS],
            contexts: vec![ContextState::default(); contexts],
        }
    }

    fn is_possible(&self, contexts: usize) -> bool {
        let exist = |set: &Sources| set.iter().zip(existing()).all(|(word, exist)| word & !exist == 0);
        self.priority.len() == SOURCES
            && self.priority.iter().all(|p| *p <= PRIORITY_MAX)
            && self.contexts.len() == contexts
            && self.contexts.iter().all(|c| exist(&c.enabled) && c.threshold <= PRIORITY_MAX)
            && [&self.level, &self.pending, &self.in_service].into_iter().all(exist)
    }

    fn priority(&self, source: usize) -> u32 {
        source.checked_sub(1).and_then(|i| self.priority.get(i)).copied().unwrap_or(0)
    }

    /// Gateways: inputs that are high become pending unless their last request is under way.
    fn forward(&mut self) {
        for word in 0..WORDS {
            self.pending[word] |= self.level[word] & !self.in_service[word];
        }
    }

    /// The pending source of highest priority that `context` has enabled, and that priority; the lowest number
    /// wins a tie. Priority 0 never interrupts.
    fn best(&self, context: &ContextState) -> Option<(usize, u32)> {
        let mut best = None;
        for word in 0..WORDS {
            let mut candidates = self.pending[word] & context.enabled[word];
            while candidates != 0 {
                let source = word * 32 + candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let priority = self.priority(source);
                if priority > best.map_or(0, |(_, priority)| priority) {
                    best = Some((source, priority));
                }
            }
        }
        best
    }

    fn claim(&mut self, context: usize) -> u32 {
        let Some((source, _)) = self.contexts.get(context).and_then(|c| self.best(c)) else { return 0 };
        let (word, bit) = word_and_bit(source);
        self.pending[word] &= !bit;
        self.in_service[word] |= bit;
        source as u32
    }

    /// Ignored unless the context has the source enabled, as the specification says; which context claimed it
    /// does not matter.
    fn complete(&mut self, context: usize, source: u32) {
        let Ok(source @ 1..=SOURCES) = usize::try_from(source) else { return };
        let (word, bit) = word_and_bit(source);
        if self.contexts.get(context).is_some_and(|c| c.enabled[word] & bit != 0) {
            self.in_service[word] &= !bit;
            self.forward();
        }
    }
}

/// The sources that exist.
fn existing() -> Sources {
    std::array::from_fn(|word| {
        let bits = (0..32).filter(|bit| (1..=SOURCES).contains(&(word * 32 + bit)));
        bits.fold(0, |word, bit| word | (1 << bit))
    })
}

fn word_and_bit(source: usize) -> (usize, u32) {
    (source / 32, 1 << (source % 32))
}

#[derive(Debug)]
struct Core {
    state: PlicState,
    contexts: Vec<Context>,
    /// What each output was last set to; `None` after reset and restore.
    driven: Vec<Option<bool>>,
}

impl Core {
    fn update(&mut self) {
        for (index, context) in self.contexts.iter().enumerate() {
            let registers = &self.state.contexts[index];
            let level = self.state.best(registers).is_some_and(|(_, p)| p > registers.threshold);
            if self.driven[index].replace(level) != Some(level) {
                context.output.set(level);
            }
        }
    }

    fn take_over(&mut self, state: PlicState) {
        self.state = state;
        self.driven.fill(None);
        self.update();
    }

    fn read(&mut self, offset: u64) -> u32 {
        match register(offset) {
            Register::Priority(source) => self.state.priority(source),
            Register::Pending(word) => self.state.pending[word],
            Register::Enable(context, word) => {
                self.state.contexts.get(context).map_or(0, |c| c.enabled[word])
            }
            Register::Threshold(context) => self.state.contexts.get(context).map_or(0, |c| c.threshold),
            Register::Claim(context) => {
                let source = self.state.claim(context);
                self.update();
                source
            }
            Register::None => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        let state = &mut self.state;
        match register(offset) {
            Register::Priority(source) => {
                if let Some(priority) = source.checked_sub(1).and_then(|i| state.priority.get_mut(i)) {
                    *priority = value & PRIORITY_MAX;
                }
            }
            Register::Enable(context, word) => {
                if let Some(context) = state.contexts.get_mut(context) {
                    context.enabled[word] = value & existing()[word];
                }
            }
            Register::Threshold(context) => {
                if let Some(context) = state.contexts.get_mut(context) {
                    context.threshold = value & PRIORITY_MAX;
                }
            }
            Register::Claim(context) => state.complete(context, value),
            Register::Pending(_) | Register::None => return,
        }
        self.update();
    }
}

/// What an offset names; indices may exceed what exists except for `word`.
enum Register {
    Priority(usize),
    Pending(usize),
    Enable(usize, usize),
    Threshold(usize),
    Claim(usize),
    None,
}

fn register(offset: u64) -> Register {
    let word = |offset: u64| Some((offset / 4) as usize).filter(|word| *word < WORDS);
    match offset {
        0..PENDING => Register::Priority((offset / 4) as usize),
        PENDING..ENABLE => word(offset - PENDING).map_or(Register::None, Register::Pending),
        ENABLE..CONTEXT => {
            let context = ((offset - ENABLE) / ENABLE_STRIDE) as usize;
            let word = word((offset - ENABLE) % ENABLE_STRIDE);
            word.map_or(Register::None, |word| Register::Enable(context, word))
        }
        CONTEXT..WINDOW_LEN => {
            let context = ((offset - CONTEXT) / CONTEXT_STRIDE) as usize;
            match (offset - CONTEXT) % CONTEXT_STRIDE {
                0 => Register::Threshold(context),
                4 => Register::Claim(context),
                _ => Register::None,
            }
        }
        _ => Register::None,
    }
}

/// The PLIC's inputs.
#[derive(Debug)]
struct Inputs(Mutex<Core>);

impl Inputs {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IrqSink for Inputs {
    fn set_level(&self, line: u32, level: bool) {
        let Ok(source @ 1..=SOURCES) = usize::try_from(line) else { return };
        let (word, bit) = word_and_bit(source);
        let mut core = self.core();
        if (core.state.level[word] & bit != 0) == level {
            return;
        }
        core.state.level[word] ^= bit;
        if level {
            core.state.forward();
            core.update();
        }
    }
}

/// The interrupt controller.
#[derive(Debug)]
pub struct Plic {
    inputs: Arc<Inputs>,
}

impl Plic {
    /// A PLIC for `contexts`; those beyond [`MAX_CONTEXTS`] cannot be addressed and are dropped.
    pub fn new(mut contexts: Vec<Context>) -> Self {
        contexts.truncate(MAX_CONTEXTS);
        let state = PlicState::power_on(contexts.len());
        let driven = vec![None; contexts.len()];
        Self { inputs: Arc::new(Inputs(Mutex::new(Core { state, contexts, driven }))) }
    }

    /// The inputs, for [`IrqLine::new`] with the source number.
    pub fn sink(&self) -> Arc<dyn IrqSink> {
        self.inputs.clone()
    }

    /// The wire to `source`, 1 to [`SOURCES`].
    pub fn input(&self, source: u32) -> IrqLine {
        IrqLine::new(self.sink(), source)
    }
}

impl Device for Plic {
    const NAME: &'static str = "sifive,plic-1.0.0";
    const VERSION: u32 = 1;
    type State = PlicState;

    /// Registers take aligned accesses of 4 bytes; 8 bytes reach two, the lower first.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region != 0 || size < 4 || !offset.is_multiple_of(size as u64) {
            return 0;
        }
        let mut core = self.inputs.core();
        let low = u64::from(core.read(offset));
        if size == 8 { low | (u64::from(core.read(offset + 4)) << 32) } else { low }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region != 0 || size < 4 || !offset.is_multiple_of(size as u64) {
            return;
        }
        let mut core = self.inputs.core();
        core.write(offset, value as u32);
        if size == 8 {
            core.write(offset + 4, (value >> 32) as u32);
        }
    }

    /// Inputs count as low: the devices' own resets lower them, in whichever order a machine resets.
    fn reset(&mut self) {
        let mut core = self.inputs.core();
        let state = PlicState::power_on(core.contexts.len());
        core.take_over(state);
    }

    fn save(&self) -> PlicState {
        self.inputs.core().state.clone()
    }

    fn restore(&mut self, state: PlicState) -> Result<(), StateError> {
        let mut core = self.inputs.core();
        if !state.is_possible(core.contexts.len()) {
            let why = format!("impossible register values, or not {} contexts", core.contexts.len());
            return Err(StateError::Damaged { device: Self::NAME, why });
        }
        core.take_over(state);
        Ok(())
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let core = self.inputs.core();
        let outputs = core.contexts.iter().flat_map(|context| {
            [FwCell::Phandle(format!("cpu{}-intc", context.hart)), FwCell::Cell(context.line)]
        });
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("plic", &["sifive,plic-1.0.0", "riscv,plic0"])
        };
        Some(
            node.with("interrupt-controller", FwValue::Flag)
                .with("#interrupt-cells", FwValue::Cells(vec![1]))
                .with("#address-cells", FwValue::Cells(vec![0]))
                .with("interrupts-extended", FwValue::Mixed(outputs.collect()))
                .with("riscv,ndev", FwValue::Cells(vec![SOURCES as u32])),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;

    struct Rig {
        plic: Plic,
        harts: Vec<Arc<VcpuSignal>>,
    }

    impl Rig {
        fn new(harts: usize) -> Self {
            let harts: Vec<_> = (0..harts).map(|_| Arc::new(VcpuSignal::default())).collect();
            Self { plic: Plic::new(Context::m_and_s(&harts)), harts }
        }
        fn get(&mut self, offset: u64) -> u32 {
            Device::read(&mut self.plic, 0, offset, 4) as u32
        }
        fn set(&mut self, offset: u64, value: u32) {
            Device::write(&mut self.plic, 0, offset, 4, value.into());
        }
        fn input(&self, source: u32, level: bool) {
            self.plic.input(source).set(level);
        }
        /// Source enabled for `context` at `priority`.
        fn arm(&mut self, context: u64, source: u32, priority: u32) {
            self.set(u64::from(source) * 4, priority);
            let word = ENABLE + context * ENABLE_STRIDE + u64::from(source / 32 * 4);
            let enabled = self.get(word) | 1 << (source % 32);
            self.set(word, enabled);
        }
        fn claim(&mut self, context: u64) -> u32 {
            self.get(CONTEXT + context * CONTEXT_STRIDE + 4)
        }
        fn complete(&mut self, context: u64, source: u32) {
            self.set(CONTEXT + context * CONTEXT_STRIDE + 4, source);
        }
        fn lines(&self) -> Vec<u64> {
            self.harts.iter().map(|hart| hart.lines()).collect()
        }
    }

    device_conformance!(
        conformance,
        Rig::new(2).plic,
        Options { windows: &[WINDOW_LEN], self_contained: true, ..Options::default() }
    );
    #[test]
    fn contexts_are_m_then_s_of_each_hart() {
        let mut rig = Rig::new(2);
        rig.arm(3, 10, 1);
        rig.input(10, true);
        assert_eq!(rig.lines(), [0, 1 << SEI]);
        rig.arm(0, 10, 1);
        assert_eq!(rig.lines(), [1 << MEI, 1 << SEI]);
        assert_eq!(rig.claim(3), 10);
        assert_eq!(rig.lines(), [0, 0]);
        assert_eq!(rig.claim(0), 0, "claimed by another");
    }

    #[test]
    fn a_level_input_asks_again_after_completion() {
        let mut rig = Rig::new(1);
        rig.arm(1, 10, 1);
        rig.input(10, true);
        assert_eq!(rig.claim(1), 10);
        rig.input(10, false);
        rig.input(10, true);
        assert_eq!((rig.lines()[0], rig.get(PENDING)), (0, 0), "the gateway is shut while in service");
        rig.complete(1, 10);
        assert_eq!(rig.lines()[0], 1 << SEI);
        assert_eq!(rig.claim(1), 10);
        rig.input(10, false);
        rig.complete(1, 10);
        assert_eq!((rig.lines()[0], rig.claim(1)), (0, 0));
    }

    #[test]
    fn a_request_outlives_its_input() {
        let mut rig = Rig::new(1);
        rig.arm(1, 33, 2);
        rig.plic.input(33).pulse();
        assert_eq!(rig.get(PENDING + 4), 2);
        assert_eq!(rig.lines()[0], 1 << SEI);
        assert_eq!(rig.claim(1), 33);
        rig.complete(1, 33);
        assert_eq!(rig.claim(1), 0);
    }

    #[test]
    fn priority_orders_and_the_lowest_number_breaks_ties() {
        let mut rig = Rig::new(1);
        for (source, priority) in [(95, 7), (8, 3), (7, 3), (40, 5), (6, 0)] {
            rig.arm(1, source, priority);
            rig.input(source, true);
        }
        let order: Vec<u32> = (0..5).map(|_| rig.claim(1)).collect();
        assert_eq!(order, [95, 40, 7, 8, 0]);
    }

    #[test]
    fn the_threshold_masks_the_line_but_not_the_claim() {
        let mut rig = Rig::new(1);
        rig.arm(1, 5, 3);
        rig.input(5, true);
        rig.set(CONTEXT + CONTEXT_STRIDE, 3);
        assert_eq!(rig.lines()[0], 0);
        rig.set(CONTEXT + CONTEXT_STRIDE, 2);
        assert_eq!(rig.lines()[0], 1 << SEI);
        rig.set(CONTEXT + CONTEXT_STRIDE, 7);
        assert_eq!(rig.claim(1), 5);
    }

    #[test]
    fn completion_of_a_disabled_source_is_ignored() {
        let mut rig = Rig::new(1);
        rig.arm(1, 5, 3);
        rig.input(5, true);
        assert_eq!(rig.claim(1), 5);
        rig.set(ENABLE + ENABLE_STRIDE, 0);
        rig.complete(1, 5);
        rig.set(ENABLE + ENABLE_STRIDE, 1 << 5);
        assert_eq!(rig.lines()[0], 0);
        rig.complete(1, 5);
        assert_eq!(rig.lines()[0], 1 << SEI);
        [0, 96, u32::MAX].into_iter().for_each(|source| rig.complete(1, source));
    }

    #[test]
    fn fields_that_do_not_exist_read_as_zero() {
        let mut rig = Rig::new(1);
        rig.set(0, 7);
        rig.set(96 * 4, 7);
        rig.set(4, 0xff);
        Device::write(&mut rig.plic, 0, ENABLE, 8, u64::MAX);
        rig.set(PENDING, u32::MAX);
        rig.set(ENABLE + 2 * ENABLE_STRIDE, u32::MAX);
        rig.set(CONTEXT, u32::MAX);
        assert_eq!((rig.get(0), rig.get(96 * 4), rig.get(4)), (0, 0, 7));
        assert_eq!((rig.get(ENABLE), rig.get(PENDING), rig.get(ENABLE + 2 * ENABLE_STRIDE)), (!1, 0, 0));
        assert_eq!(rig.get(CONTEXT), 7);
        assert_eq!(Device::read(&mut rig.plic, 0, ENABLE, 8), 0xffff_ffff_ffff_fffe);
    }

    #[test]
    fn restore_drives_the_lines() {
        let mut rig = Rig::new(1);
        rig.arm(1, 5, 3);
        rig.input(5, true);
        let state = Device::save(&rig.plic);
        let mut other = Rig::new(1);
        Device::restore(&mut other.plic, state.clone()).unwrap();
        assert_eq!(other.lines()[0], 1 << SEI);
        Device::reset(&mut other.plic);
        assert_eq!(other.lines()[0], 0);
        assert!(Device::restore(&mut Rig::new(2).plic, state).is_err(), "another number of harts");
    }

    #[test]
    fn the_firmware_node_lists_every_context() {
        let node = Rig::new(2).plic.fw_node(&Placement::default()).unwrap();
        let (_, outputs) = node.properties.iter().find(|(name, _)| name == "interrupts-extended").unwrap();
        let FwValue::Mixed(cells) = outputs else { panic!("not mixed") };
        assert_eq!(cells.len(), 8);
        assert_eq!(cells[4..6], [FwCell::Phandle("cpu1-intc".into()), FwCell::Cell(11)]);
    }
}
