//! NS16550A UART (National Semiconductor PC16550D data sheet, 8): the `serial` port of most boards.
//!
//! Characters take no time on this wire: what the guest writes to THR is with the host when the write returns,
//! and once the host's bytes are in the receiver FIFO the line is idle, so a FIFO below its trigger level
//! reports the character timeout at once. Divisor and word format are kept but change nothing.
//! The receiver never overruns from the host's side: the host keeps what does not fit and is told when there is
//! room. Registers are a byte apart; an access of any size reaches the one register it starts at.

use crate::backend::char::CharOutput;
use isomer_core::{Device, FwNode, FwValue, IrqLine, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, fmt};

/// Input clock of the `virt` boards, in Hz (`clock-frequency`): 115200 baud divide by 2.
pub const CLOCK_HZ: u32 = 3_686_400;

const FIFO_DEPTH: usize = 16;
/// 115200 baud, and not zero, by which early consoles divide.
const POWER_ON_DIVISOR: u16 = (CLOCK_HZ / 16 / 115_200) as u16;

/// Register offsets in bytes.
mod reg {
    /// RBR and THR; DLL while DLAB is set.
    pub(super) const DATA: u64 = 0;
    /// IER; DLM while DLAB is set.
    pub(super) const IER: u64 = 1;
    /// IIR when read, FCR when written.
    pub(super) const IIR_FCR: u64 = 2;
    pub(super) const LCR: u64 = 3;
    pub(super) const MCR: u64 = 4;
    pub(super) const LSR: u64 = 5;
    pub(super) const MSR: u64 = 6;
    pub(super) const SCR: u64 = 7;
}

mod ier {
    pub(super) const RECEIVED_DATA: u8 = 1;
    pub(super) const THR_EMPTY: u8 = 2;
    pub(super) const LINE_STATUS: u8 = 4;
    pub(super) const MODEM_STATUS: u8 = 8;
    pub(super) const ALL: u8 = 0x0f;
}

mod iir {
    pub(super) const NONE: u8 = 1;
    pub(super) const MODEM_STATUS: u8 = 0;
    pub(super) const THR_EMPTY: u8 = 2;
    pub(super) const RECEIVED_DATA: u8 = 4;
    pub(super) const LINE_STATUS: u8 = 6;
    pub(super) const TIMEOUT: u8 = 0x0c;
    pub(super) const FIFOS_ENABLED: u8 = 0xc0;
}

mod fcr {
    pub(super) const ENABLE: u8 = 1;
    pub(super) const CLEAR_RECEIVER: u8 = 2;
    /// DMA mode select and trigger level: the bits that stay.
    pub(super) const KEPT: u8 = 0xc8;
}

mod lcr {
    pub(super) const SET_BREAK: u8 = 0x40;
    pub(super) const DLAB: u8 = 0x80;
}

mod mcr {
    pub(super) const DTR: u8 = 1;
    pub(super) const RTS: u8 = 2;
    pub(super) const OUT1: u8 = 4;
    pub(super) const OUT2: u8 = 8;
    pub(super) const LOOP: u8 = 0x10;
    pub(super) const ALL: u8 = 0x1f;
}

mod lsr {
    pub(super) const DATA_READY: u8 = 1;
    pub(super) const OVERRUN: u8 = 2;
    /// Parity error, framing error, break: what belongs to one character.
    pub(super) const OF_CHARACTER: u8 = 0x1c;
    pub(super) const FRAMING: u8 = 8;
    pub(super) const BREAK: u8 = 0x10;
    pub(super) const THR_EMPTY: u8 = 0x20;
    pub(super) const TRANSMITTER_EMPTY: u8 = 0x40;
    pub(super) const ERROR_IN_FIFO: u8 = 0x80;
}

mod msr {
    pub(super) const DELTAS: u8 = 0x0f;
    pub(super) const CTS: u8 = 0x10;
    pub(super) const DSR: u8 = 0x20;
    pub(super) const RI: u8 = 0x40;
    pub(super) const DCD: u8 = 0x80;
    /// The other end is there and ready, always.
    pub(super) const PEER: u8 = CTS | DSR | DCD;
}

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uart16550State {
    /// Characters received and not read, oldest first, each with its LSR error bits.
    received: VecDeque<(u8, u8)>,
    /// Last character read, which RBR repeats when empty.
    rbr: u8,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    msr: u8,
    scr: u8,
    divisor: u16,
    overrun: bool,
    /// THR ran empty and nobody has read that from IIR yet.
    thr_empty_pending: bool,
}

impl Uart16550State {
    fn power_on() -> Self {
        Self {
            received: VecDeque::with_capacity(FIFO_DEPTH),
            rbr: 0,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr: msr::PEER,
            scr: 0,
            divisor: POWER_ON_DIVISOR,
            overrun: false,
            thr_empty_pending: false,
        }
    }

    fn is_possible(&self) -> bool {
        self.received.len() <= self.capacity()
            && self.received.iter().all(|(_, errors)| errors & !lsr::OF_CHARACTER == 0)
            && self.ier & !ier::ALL == 0
            && self.mcr & !mcr::ALL == 0
            && self.fcr & !(fcr::KEPT | fcr::ENABLE) == 0
            && (self.fcr & fcr::ENABLE != 0 || self.fcr == 0)
            && self.msr & !msr::DELTAS == modem_inputs(self.mcr)
    }

    fn capacity(&self) -> usize {
        if self.fcr & fcr::ENABLE != 0 { FIFO_DEPTH } else { 1 }
    }

    /// Characters that make the received-data interrupt.
    fn trigger(&self) -> usize {
        if self.fcr & fcr::ENABLE != 0 { [1, 4, 8, 14][usize::from(self.fcr >> 6)] } else { 1 }
    }

    fn lsr(&self) -> u8 {
        let oldest = self.received.front().map_or(0, |(_, errors)| lsr::DATA_READY | errors);
        let any_error = self.received.iter().any(|(_, errors)| *errors != 0);
        let in_fifo = if any_error && self.fcr & fcr::ENABLE != 0 { lsr::ERROR_IN_FIFO } else { 0 };
        let overrun = if self.overrun { lsr::OVERRUN } else { 0 };
        lsr::THR_EMPTY | lsr::TRANSMITTER_EMPTY | oldest | in_fifo | overrun
    }

    /// The interrupt of highest priority that is pending and enabled (table 4 of the data sheet).
    fn interrupt(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(ier::LINE_STATUS) && self.lsr() & (lsr::OVERRUN | lsr::OF_CHARACTER) != 0 {
            iir::LINE_STATUS
        } else if enabled(ier::RECEIVED_DATA) && self.received.len() >= self.trigger() {
            iir::RECEIVED_DATA
        } else if enabled(ier::RECEIVED_DATA) && !self.received.is_empty() {
            iir::TIMEOUT
        } else if enabled(ier::THR_EMPTY) && self.thr_empty_pending {
            iir::THR_EMPTY
        } else if enabled(ier::MODEM_STATUS) && self.msr & msr::DELTAS != 0 {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    /// A character arrives at the receiver. Without room, the FIFO keeps what it has and the new one is lost;
    /// without FIFO, the new one replaces the old.
    fn arrive(&mut self, character: u8, errors: u8) {
        if self.received.len() >= self.capacity() {
            self.overrun = true;
            if self.fcr & fcr::ENABLE != 0 {
                return;
            }
            self.received.clear();
        }
        self.received.push_back((character, errors));
    }

    /// The modem inputs may have changed: notes how.
    fn update_modem_inputs(&mut self) {
        let (old, new) = (self.msr, modem_inputs(self.mcr));
        let changed = (old ^ new) & (msr::CTS | msr::DSR | msr::DCD);
        let ring_ended = old & !new & msr::RI;
        self.msr = new | (old & msr::DELTAS) | (changed >> 4) | (ring_ended >> 4);
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (self.fcr ^ value) & fcr::ENABLE != 0;
        if toggled || value & (fcr::ENABLE | fcr::CLEAR_RECEIVER) == fcr::ENABLE | fcr::CLEAR_RECEIVER {
            self.received.clear();
        }
        // The other bits are only programmed together with the enable bit.
        self.fcr = if value & fcr::ENABLE != 0 { value & (fcr::KEPT | fcr::ENABLE) } else { 0 };
    }
}

/// MSR's upper half: the peer, or in loopback MCR's outputs.
fn modem_inputs(mcr: u8) -> u8 {
    if mcr & mcr::LOOP == 0 {
        return msr::PEER;
    }
    let wires = [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)];
    wires.iter().filter(|(output, _)| mcr & output != 0).fold(0, |inputs, (_, input)| inputs | input)
}

/// The UART.
pub struct Uart16550 {
    state: Uart16550State,
    irq: IrqLine,
    /// What `irq` was last set to; `None` after reset and restore.
    driven: Option<bool>,
    output: Box<dyn CharOutput>,
    wants_input: Box<dyn Fn() + Send>,
    /// The host was refused bytes and waits to hear of room.
    host_waits: bool,
}

impl fmt::Debug for Uart16550 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uart16550")
            .field("state", &self.state)
            .field("irq", &self.irq)
            .finish_non_exhaustive()
    }
}

impl Uart16550 {
    /// A UART that transmits to `output` and drives the level-sensitive `irq`. `wants_input` is called, with the
    /// device locked, when [`Self::receive`] refused bytes earlier and there is room now: it should only wake
    /// the thread that calls `receive`.
    pub fn new(irq: IrqLine, output: Box<dyn CharOutput>, wants_input: Box<dyn Fn() + Send>) -> Self {
        Self { state: Uart16550State::power_on(), irq, driven: None, output, wants_input, host_waits: false }
    }

    /// Bytes arrive from the host. Returns how many were taken; the rest stays the caller's until `wants_input`.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        bytes[..taken].iter().for_each(|byte| self.state.arrive(*byte, 0));
        self.host_waits |= taken < bytes.len();
        self.update();
        taken
    }

    /// The host sends a break condition. Returns whether it was taken.
    pub fn receive_break(&mut self) -> bool {
        let taken = self.room() > 0;
        if taken {
            self.state.arrive(0, lsr::BREAK | lsr::FRAMING);
        }
        self.host_waits |= !taken;
        self.update();
        taken
    }

    /// Characters the receiver takes now. In loopback it is cut off from the outside.
    fn room(&self) -> usize {
        if self.state.mcr & mcr::LOOP != 0 {
            return 0;
        }
        self.state.capacity() - self.state.received.len()
    }

    /// Drives the interrupt line and tells a waiting host of room.
    fn update(&mut self) {
        let level = self.state.interrupt() != iir::NONE;
        if self.driven != Some(level) {
            self.driven = Some(level);
            self.irq.set(level);
        }
        if self.host_waits && self.room() > 0 {
            self.host_waits = false;
            (self.wants_input)();
        }
    }

    fn transmit(&mut self, character: u8) {
        let state = &mut self.state;
        if state.mcr & mcr::LOOP != 0 {
            state.arrive(character, 0);
        } else if state.lcr & lcr::SET_BREAK == 0 {
            // While break is set the wire is held low and characters are lost; loopback is ahead of that.
            self.output.write(&[character]);
        }
        self.state.thr_empty_pending = true;
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let state = &mut self.state;
        let dlab = state.lcr & lcr::DLAB != 0;
        match offset {
            reg::DATA if dlab => state.divisor as u8,
            reg::DATA => {
                state.rbr = state.received.pop_front().map_or(state.rbr, |(character, _)| character);
                state.rbr
            }
            reg::IER if dlab => (state.divisor >> 8) as u8,
            reg::IER => state.ier,
            reg::IIR_FCR => {
                let interrupt = state.interrupt();
                if interrupt == iir::THR_EMPTY {
                    state.thr_empty_pending = false;
                }
                interrupt | if state.fcr & fcr::ENABLE != 0 { iir::FIFOS_ENABLED } else { 0 }
            }
            reg::LCR => state.lcr,
            reg::MCR => state.mcr,
            reg::LSR => {
                let value = state.lsr();
                state.overrun = false;
                if let Some((_, errors)) = state.received.front_mut() {
                    *errors = 0;
                }
                value
            }
            reg::MSR => {
                let value = state.msr;
                state.msr &= !msr::DELTAS;
                value
            }
            reg::SCR => state.scr,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let state = &mut self.state;
        let dlab = state.lcr & lcr::DLAB != 0;
        match offset {
            reg::DATA if dlab => state.divisor = (state.divisor & 0xff00) | u16::from(value),
            reg::DATA => self.transmit(value),
            reg::IER if dlab => state.divisor = (state.divisor & 0x00ff) | (u16::from(value) << 8),
            reg::IER => {
                // Enabling the interrupt while THR is empty raises it: drivers start transmission that way.
                state.thr_empty_pending |= value & !state.ier & ier::THR_EMPTY != 0;
                state.ier = value & ier::ALL;
            }
            reg::IIR_FCR => state.write_fcr(value),
            reg::LCR => state.lcr = value,
            reg::MCR => {
                state.mcr = value & mcr::ALL;
                state.update_modem_inputs();
            }
            reg::SCR => state.scr = value,
            // LSR and MSR are read-only outside factory tests.
            _ => {}
        }
    }
}

impl Device for Uart16550 {
    const NAME: &'static str = "ns16550a";
    const VERSION: u32 = 1;
    type State = Uart16550State;

    fn read(&mut self, region: usize, offset: u64, _size: usize) -> u64 {
        if region != 0 {
            return 0;
        }
        let value = self.read_register(offset);
        self.update();
        u64::from(value)
    }

    fn write(&mut self, region: usize, offset: u64, _size: usize, value: u64) {
        if region == 0 {
            self.write_register(offset, value as u8);
            self.update();
        }
    }

    fn reset(&mut self) {
        self.state = Uart16550State::power_on();
        self.driven = None;
        self.update();
    }

    fn save(&self) -> Uart16550State {
        self.state.clone()
    }

    fn restore(&mut self, state: Uart16550State) -> Result<(), StateError> {
        if !state.is_possible() {
            return Err(StateError::Damaged { device: Self::NAME, why: "impossible register values".into() });
        }
        self.state = state;
        self.driven = None;
        self.update();
        Ok(())
    }

    fn quiesce(&mut self) {
        self.output.flush();
    }

    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("serial", &["ns16550a"])
        };
        Some(node.with("clock-frequency", FwValue::Cells(vec![CLOCK_HZ])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::Options;
    use isomer_core::IrqSink;
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    #[derive(Default)]
    struct Level(AtomicBool);
    impl IrqSink for Level {
        fn set_level(&self, _: u32, level: bool) {
            self.0.store(level, Ordering::SeqCst);
        }
    }

    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);
    impl CharOutput for Collected {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
    }

    struct Rig {
        uart: Uart16550,
        irq: Arc<Level>,
        sent: Collected,
        wakes: Arc<AtomicUsize>,
    }

    impl Rig {
        fn new() -> Self {
            let (irq, sent, wakes) = (Arc::new(Level::default()), Collected::default(), Arc::default());
            let counter: Arc<AtomicUsize> = Arc::clone(&wakes);
            let wake = Box::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            });
            let uart = Uart16550::new(IrqLine::new(irq.clone(), 0), Box::new(sent.clone()), wake);
            Self { uart, irq, sent, wakes }
        }
        fn get(&mut self, offset: u64) -> u8 {
            Device::read(&mut self.uart, 0, offset, 1) as u8
        }
        fn set(&mut self, offset: u64, value: u8) {
            Device::write(&mut self.uart, 0, offset, 1, value.into());
        }
        fn irq(&self) -> bool {
            self.irq.0.load(Ordering::SeqCst)
        }
    }

    device_conformance!(
        conformance,
        Rig::new().uart,
        Options { windows: &[0x100], self_contained: true, ..Options::default() }
    );

    #[test]
    fn linux_finds_a_16550a() {
        let mut rig = Rig::new();
        // 8250_port.c autoconfig(): IER keeps its low bits only, loopback wires RTS and OUT2 to CTS and DCD.
        rig.set(reg::IER, 0xff);
        assert_eq!(rig.get(reg::IER), 0x0f);
        rig.set(reg::IER, 0);
        rig.set(reg::MCR, mcr::LOOP | mcr::OUT2 | mcr::RTS);
        assert_eq!(rig.get(reg::MSR) & 0xf0, msr::DCD | msr::CTS);
        rig.set(reg::MCR, 0);
        rig.set(reg::SCR, 0xa5);
        assert_eq!(rig.get(reg::SCR), 0xa5);
        rig.set(reg::IIR_FCR, fcr::ENABLE);
        assert_eq!(rig.get(reg::IIR_FCR) >> 6, 3);
        // Divisor latches do not shine through.
        rig.set(reg::LCR, lcr::DLAB | 3);
        rig.set(reg::DATA, 2);
        rig.set(reg::IER, 1);
        assert_eq!((rig.get(reg::DATA), rig.get(reg::IER)), (2, 1));
        rig.set(reg::LCR, 3);
        assert_eq!(rig.get(reg::IER), 0);
        assert!(rig.sent.0.lock().unwrap().is_empty());
    }

    #[test]
    fn transmission_interrupts_until_iir_is_read() {
        let mut rig = Rig::new();
        rig.set(reg::DATA, b'a');
        assert!(!rig.irq());
        assert_eq!(rig.get(reg::LSR), lsr::THR_EMPTY | lsr::TRANSMITTER_EMPTY);
        rig.set(reg::IER, ier::THR_EMPTY);
        assert!(rig.irq());
        assert_eq!(rig.get(reg::IIR_FCR), iir::THR_EMPTY);
        assert!(!rig.irq());
        assert_eq!(rig.get(reg::IIR_FCR), iir::NONE);
        rig.set(reg::DATA, b'b');
        assert!(rig.irq());
        rig.set(reg::IER, 0);
        assert!(!rig.irq());
        assert_eq!(*rig.sent.0.lock().unwrap(), b"ab");
    }

    #[test]
    fn received_data_follows_the_trigger_level() {
        let mut rig = Rig::new();
        rig.set(reg::IIR_FCR, fcr::ENABLE | 0x80); // 8 characters
        rig.set(reg::IER, ier::RECEIVED_DATA);
        assert_eq!(rig.uart.receive(b"1234567"), 7);
        assert_eq!(rig.get(reg::IIR_FCR) & 0x0f, iir::TIMEOUT);
        assert_eq!(rig.uart.receive(b"8"), 1);
        assert_eq!(rig.get(reg::IIR_FCR) & 0x0f, iir::RECEIVED_DATA);
        let text: Vec<u8> = (0..8).map(|_| rig.get(reg::DATA)).collect();
        assert_eq!(text, b"12345678");
        assert!(!rig.irq());
        assert_eq!(rig.get(reg::LSR) & lsr::DATA_READY, 0);
        assert_eq!(rig.get(reg::DATA), b'8', "an empty RBR repeats");
    }

    #[test]
    fn the_host_waits_for_room() {
        let mut rig = Rig::new();
        assert_eq!(rig.uart.receive(b"xy"), 1, "without FIFO there is room for one");
        assert_eq!(rig.wakes.load(Ordering::SeqCst), 0);
        rig.set(reg::IIR_FCR, fcr::ENABLE); // clears, so there is room
        assert_eq!(rig.wakes.load(Ordering::SeqCst), 1);
        assert_eq!(rig.uart.receive(&[7; 40]), 16);
        assert_eq!(rig.get(reg::LSR) & lsr::OVERRUN, 0);
        rig.get(reg::DATA);
        rig.get(reg::DATA);
        assert_eq!(rig.wakes.load(Ordering::SeqCst), 2, "told once");
        assert_eq!(rig.uart.receive(&[7; 40]), 2);
        rig.set(reg::MCR, mcr::LOOP);
        rig.set(reg::IIR_FCR, fcr::ENABLE | fcr::CLEAR_RECEIVER);
        assert_eq!(rig.uart.receive(b"z"), 0, "loopback cuts the wire");
        rig.set(reg::MCR, 0);
        assert_eq!(rig.wakes.load(Ordering::SeqCst), 3);
        assert_eq!(rig.uart.receive(b""), 0);
    }

    #[test]
    fn loopback_returns_characters_and_overruns() {
        let mut rig = Rig::new();
        rig.set(reg::IIR_FCR, fcr::ENABLE);
        rig.set(reg::MCR, mcr::LOOP);
        rig.set(reg::IER, ier::LINE_STATUS);
        (0..16).for_each(|i| rig.set(reg::DATA, i));
        assert!(!rig.irq());
        rig.set(reg::DATA, 99);
        assert_eq!(rig.get(reg::IIR_FCR) & 0x0f, iir::LINE_STATUS);
        assert_eq!(rig.get(reg::LSR) & lsr::OVERRUN, lsr::OVERRUN);
        assert!(!rig.irq());
        let back: Vec<u8> = (0..16).map(|_| rig.get(reg::DATA)).collect();
        assert_eq!(back, (0..16).collect::<Vec<u8>>());
        assert!(rig.sent.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_break_is_a_character_with_errors() {
        let mut rig = Rig::new();
        rig.set(reg::IIR_FCR, fcr::ENABLE);
        rig.set(reg::IER, ier::LINE_STATUS);
        rig.uart.receive(b"k");
        assert!(rig.uart.receive_break());
        assert_eq!(rig.get(reg::LSR) & 0x9f, lsr::ERROR_IN_FIFO | lsr::DATA_READY, "not at the top yet");
        assert!(!rig.irq());
        assert_eq!(rig.get(reg::DATA), b'k');
        assert!(rig.irq());
        assert_eq!(rig.get(reg::LSR) & 0x9f, 0x80 | lsr::BREAK | lsr::FRAMING | lsr::DATA_READY);
        assert_eq!(rig.get(reg::LSR) & 0x9f, lsr::DATA_READY, "reading clears");
        assert_eq!(rig.get(reg::DATA), 0);
    }

    #[test]
    fn modem_changes_interrupt_until_read() {
        let mut rig = Rig::new();
        assert_eq!(rig.get(reg::MSR), msr::PEER);
        rig.set(reg::IER, ier::MODEM_STATUS);
        rig.set(reg::MCR, mcr::LOOP | mcr::OUT1);
        assert_eq!(rig.get(reg::IIR_FCR), iir::MODEM_STATUS);
        assert_eq!(rig.get(reg::MSR), msr::RI | 0x0b);
        assert!(!rig.irq());
        rig.set(reg::MCR, mcr::LOOP); // trailing edge of ring
        assert_eq!(rig.get(reg::MSR), 0x04);
    }

    #[test]
    fn impossible_states_are_refused() {
        let mut rig = Rig::new();
        let full = Uart16550State { received: vec![(0, 0); 17].into(), ..Uart16550State::power_on() };
        assert!(Device::restore(&mut rig.uart, full).is_err());
        let odd = Uart16550State { msr: msr::RI, ..Uart16550State::power_on() };
        assert!(Device::restore(&mut rig.uart, odd).is_err());
    }

    #[test]
    fn the_firmware_node_matches_the_binding() {
        let at = Placement { regions: vec![(0x1000_0000, 0x100)], irqs: vec![10] };
        let node = Rig::new().uart.fw_node(&at).unwrap();
        assert_eq!((node.name.as_str(), node.unit_address), ("serial", Some(0x1000_0000)));
        assert!(node.properties.contains(&("clock-frequency".into(), FwValue::Cells(vec![3_686_400]))));
    }
}
