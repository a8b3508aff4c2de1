//! PL011 UART (PrimeCell UART (PL011) Technical Reference Manual, DDI 0183G, chapter 3).
//!
//! Characters take no time on this wire: what the guest writes to UARTDR is with the host when the write returns, and
//! once the host's bytes are in the receive FIFO the line is idle, so the receive timeout is at once. The receiver
//! never overruns from the host's side: the host keeps what does not fit, or what comes while the receiver is
//! disabled, and is told when there is room. The transmitter works whether enabled or not, because early consoles
//! count on firmware to have enabled it. DMA requests go nowhere.

use crate::{amba::identification, backend::char::CharOutput, gic::lines::words};
use isomer_core::{Device, FwNode, FwValue, IrqLine, Placement, StateError};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, fmt};

pub use crate::amba::WINDOW_LEN;

/// Part 0x011, designer Arm, revision r1p4: FIFOs of 16 characters.
const ID: u32 = 0x0014_1011;
const FIFO_DEPTH: usize = 16;

/// Register offsets in bytes.
mod reg {
    pub(super) const DR: u64 = 0x00;
    /// Receive status when read, error clear when written.
    pub(super) const RSR_ECR: u64 = 0x04;
    pub(super) const FR: u64 = 0x18;
    pub(super) const ILPR: u64 = 0x20;
    pub(super) const IBRD: u64 = 0x24;
    pub(super) const FBRD: u64 = 0x28;
    pub(super) const LCR_H: u64 = 0x2c;
    pub(super) const CR: u64 = 0x30;
    pub(super) const IFLS: u64 = 0x34;
    pub(super) const IMSC: u64 = 0x38;
    pub(super) const RIS: u64 = 0x3c;
    pub(super) const MIS: u64 = 0x40;
    pub(super) const ICR: u64 = 0x44;
    pub(super) const DMACR: u64 = 0x48;
}

/// Error bits as UARTRSR has them; UARTDR has them from bit 8 on, UARTRIS from bit 7 on.
mod error {
    pub(super) const FRAMING: u8 = 1;
    pub(super) const BREAK: u8 = 4;
    pub(super) const OVERRUN: u8 = 8;
    pub(super) const ALL: u8 = 0xf;
}

/// Flag register.
mod flag {
    pub(super) const CTS: u32 = 1;
    pub(super) const DSR: u32 = 2;
    pub(super) const DCD: u32 = 4;
    pub(super) const RX_EMPTY: u32 = 0x10;
    pub(super) const RX_FULL: u32 = 0x40;
    pub(super) const TX_EMPTY: u32 = 0x80;
    pub(super) const RI: u32 = 0x100;
    /// The other end is there and ready, always.
    pub(super) const PEER: u32 = CTS | DSR | DCD;
}

/// Interrupts.
mod irq {
    pub(super) const RI: u32 = 1;
    pub(super) const CTS: u32 = 2;
    pub(super) const DCD: u32 = 4;
    pub(super) const DSR: u32 = 8;
    pub(super) const RECEIVE: u32 = 0x10;
    pub(super) const TRANSMIT: u32 = 0x20;
    pub(super) const RECEIVE_TIMEOUT: u32 = 0x40;
    /// Framing error, the first of the four error interrupts.
    pub(super) const ERRORS_SHIFT: u32 = 7;
    pub(super) const ALL: u32 = 0x7ff;
}

mod lcr_h {
    pub(super) const BREAK: u32 = 1;
    pub(super) const FIFO_ENABLE: u32 = 0x10;
}

mod cr {
    pub(super) const UART_ENABLE: u32 = 1;
    pub(super) const LOOPBACK: u32 = 0x80;
    pub(super) const TX_ENABLE: u32 = 0x100;
    pub(super) const RX_ENABLE: u32 = 0x200;
    pub(super) const DTR: u32 = 0x400;
    pub(super) const RTS: u32 = 0x800;
    pub(super) const OUT1: u32 = 0x1000;
    pub(super) const OUT2: u32 = 0x2000;
    pub(super) const ALL: u32 = 0xff87;
}

/// The registers, as a snapshot keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pl011State {
    /// Characters received and not read, oldest first, each with its error bits.
    received: VecDeque<(u8, u8)>,
    /// Last character read, which UARTDR repeats when empty.
    last: u8,
    /// UARTRSR.
    errors: u8,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    ris: u32,
    dmacr: u32,
}

impl Pl011State {
    fn power_on() -> Self {
        Self {
            received: VecDeque::with_capacity(FIFO_DEPTH),
            last: 0,
            errors: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: cr::TX_ENABLE | cr::RX_ENABLE,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
        }
    }

    fn is_possible(&self) -> bool {
        let registers = [
            (self.ilpr, 0xff),
            (self.ibrd, 0xffff),
            (self.fbrd, 0x3f),
            (self.lcr_h, 0xff),
            (self.cr, cr::ALL),
            (self.ifls, 0x3f),
            (self.imsc, irq::ALL),
            (self.ris, irq::ALL),
            (self.dmacr, 7),
        ];
        registers.iter().all(|(value, mask)| value & !mask == 0)
            && self.errors & !error::ALL == 0
            && self.received.len() <= self.capacity()
            && self.received.iter().all(|(_, errors)| errors & !error::ALL == 0)
    }

    fn capacity(&self) -> usize {
        if self.lcr_h & lcr_h::FIFO_ENABLE != 0 { FIFO_DEPTH } else { 1 }
    }

    /// Characters that make the receive interrupt.
    fn trigger(&self) -> usize {
        let level = (self.ifls >> 3 & 7) as usize;
        if self.capacity() == 1 { 1 } else { [2, 4, 8, 12, 14].get(level).copied().unwrap_or(14) }
    }

    /// UARTFR's modem inputs: the peer, or in loopback UARTCR's outputs.
    fn modem_inputs(&self) -> u32 {
        if self.cr & cr::LOOPBACK == 0 {
            return flag::PEER;
        }
        let wires = [(cr::RTS, flag::CTS), (cr::DTR, flag::DSR), (cr::OUT1, flag::DCD), (cr::OUT2, flag::RI)];
        wires.iter().filter(|(output, _)| self.cr & output != 0).fold(0, |flags, (_, flag)| flags | flag)
    }

    fn flags(&self) -> u32 {
        let receiver = match self.received.len() {
            0 => flag::RX_EMPTY,
            len if len >= self.capacity() => flag::RX_FULL,
            _ => 0,
        };
        flag::TX_EMPTY | receiver | self.modem_inputs()
    }

    /// A character arrives at the receiver; without room it is lost.
    fn arrive(&mut self, character: u8, errors: u8) {
        let room = self.received.len() < self.capacity();
        let errors = if room { errors } else { error::OVERRUN };
        self.ris |= u32::from(errors) << irq::ERRORS_SHIFT;
        if !room {
            // The one that arrives next shows it; the last that fitted is the nearest there is.
            self.errors |= error::OVERRUN;
            return;
        }
        self.received.push_back((character, errors));
        self.ris |= irq::RECEIVE_TIMEOUT;
        if self.received.len() >= self.trigger() {
            self.ris |= irq::RECEIVE;
        }
    }

    fn take(&mut self) -> u32 {
        if let Some((character, errors)) = self.received.pop_front() {
            self.last = character;
            self.errors = self.errors & error::OVERRUN | errors;
        }
        if self.received.len() < self.trigger() {
            self.ris &= !irq::RECEIVE;
        }
        if self.received.is_empty() {
            self.ris &= !irq::RECEIVE_TIMEOUT;
        }
        u32::from(self.last) | u32::from(self.errors) << 8
    }

    /// Changes registers on which the modem inputs depend, and notes what that does to them.
    fn write_cr(&mut self, value: u32) {
        let before = self.modem_inputs();
        self.cr = value & cr::ALL;
        let changed = before ^ self.modem_inputs();
        let causes =
            [(flag::RI, irq::RI), (flag::CTS, irq::CTS), (flag::DCD, irq::DCD), (flag::DSR, irq::DSR)];
        let noted = causes.iter().filter(|(flag, _)| changed & flag != 0);
        self.ris = noted.fold(self.ris, |ris, (_, cause)| ris | cause);
    }

    fn write_lcr_h(&mut self, value: u32) {
        if (self.lcr_h ^ value) & lcr_h::FIFO_ENABLE != 0 {
            self.received.clear();
            self.ris &= !(irq::RECEIVE | irq::RECEIVE_TIMEOUT);
        }
        self.lcr_h = value & 0xff;
    }
}

/// The UART.
pub struct Pl011 {
    state: Pl011State,
    irq: IrqLine,
    /// What `irq` was last set to; `None` after reset and restore.
    driven: Option<bool>,
    output: Box<dyn CharOutput>,
    wants_input: Box<dyn Fn() + Send>,
    /// The host was refused bytes and waits to hear of room.
    host_waits: bool,
}

impl fmt::Debug for Pl011 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pl011").field("state", &self.state).field("irq", &self.irq).finish_non_exhaustive()
    }
}

impl Pl011 {
    /// A UART that transmits to `output` and drives the level-sensitive `irq`. `wants_input` is called, with the
    /// device locked, when [`Self::receive`] refused bytes earlier and there is room now: it should only wake
    /// the thread that calls `receive`.
    pub fn new(irq: IrqLine, output: Box<dyn CharOutput>, wants_input: Box<dyn Fn() + Send>) -> Self {
        Self { state: Pl011State::power_on(), irq, driven: None, output, wants_input, host_waits: false }
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
            self.state.arrive(0, error::BREAK | error::FRAMING);
        }
        self.host_waits |= !taken;
        self.update();
        taken
    }

    /// Characters the receiver takes now. In loopback it is cut off from the outside.
    fn room(&self) -> usize {
        let enabled = cr::UART_ENABLE | cr::RX_ENABLE;
        if self.state.cr & (enabled | cr::LOOPBACK) != enabled {
            return 0;
        }
        self.state.capacity() - self.state.received.len()
    }

    /// Drives the interrupt line and tells a waiting host of room.
    fn update(&mut self) {
        let level = self.state.ris & self.state.imsc != 0;
        if self.driven.replace(level) != Some(level) {
            self.irq.set(level);
        }
        if self.host_waits && self.room() > 0 {
            self.host_waits = false;
            (self.wants_input)();
        }
    }

    fn transmit(&mut self, character: u8) {
        if self.state.cr & cr::LOOPBACK != 0 {
            self.state.arrive(character, 0);
        } else if self.state.lcr_h & lcr_h::BREAK == 0 {
            // While a break is sent the wire is held low and characters are lost.
            self.output.write(&[character]);
        }
        // The FIFO is empty again.
        self.state.ris |= irq::TRANSMIT;
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        let state = &mut self.state;
        match offset {
            reg::DR => state.take(),
            reg::RSR_ECR => state.errors.into(),
            reg::FR => state.flags(),
            reg::ILPR => state.ilpr,
            reg::IBRD => state.ibrd,
            reg::FBRD => state.fbrd,
            reg::LCR_H => state.lcr_h,
            reg::CR => state.cr,
            reg::IFLS => state.ifls,
            reg::IMSC => state.imsc,
            reg::RIS => state.ris,
            reg::MIS => state.ris & state.imsc,
            reg::DMACR => state.dmacr,
            _ => identification(offset, ID).unwrap_or(0),
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let state = &mut self.state;
        match offset {
            reg::DR => self.transmit(value as u8),
            reg::RSR_ECR => state.errors = 0,
            reg::ILPR => state.ilpr = value & 0xff,
            reg::IBRD => state.ibrd = value & 0xffff,
            reg::FBRD => state.fbrd = value & 0x3f,
            reg::LCR_H => state.write_lcr_h(value),
            reg::CR => state.write_cr(value),
            reg::IFLS => state.ifls = value & 0x3f,
            reg::IMSC => state.imsc = value & irq::ALL,
            reg::ICR => state.ris &= !value,
            reg::DMACR => state.dmacr = value & 7,
            _ => {}
        }
    }
}

impl Device for Pl011 {
    const NAME: &'static str = "arm,pl011";
    const VERSION: u32 = 1;
    type State = Pl011State;

    /// An access of any size reaches the one 32-bit register that it is in.
    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        let Some((at, mask, shift)) = words(offset, size).next().filter(|_| region == 0) else { return 0 };
        let value = (self.read_register(at) & mask) >> shift;
        self.update();
        value.into()
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        let Some((at, mask, shift)) = words(offset, size).next().filter(|_| region == 0) else { return };
        self.write_register(at, (value as u32) << shift & mask);
        self.update();
    }

    fn reset(&mut self) {
        self.state = Pl011State::power_on();
        self.driven = None;
        self.update();
    }

    fn save(&self) -> Pl011State {
        self.state.clone()
    }

    fn restore(&mut self, state: Pl011State) -> Result<(), StateError> {
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

    /// The board labels its fixed clock "apb-pclk".
    fn fw_node(&self, at: &Placement) -> Option<FwNode> {
        let clock = || isomer_core::device::FwCell::Phandle("apb-pclk".into());
        let node = FwNode {
            unit_address: at.regions.first().map(|(start, _)| *start),
            ..FwNode::new("pl011", &["arm,pl011", "arm,primecell"])
        };
        let names = ["uartclk", "apb_pclk"].map(str::to_owned).to_vec();
        Some(
            node.with("clocks", FwValue::Mixed(vec![clock(), clock()]))
                .with("clock-names", FwValue::Strings(names)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::char::Discard, conformance::Options};
    use isomer_core::VcpuSignal;
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    struct Rig {
        uart: Pl011,
        irq: Arc<VcpuSignal>,
        sent: Arc<Mutex<Vec<u8>>>,
        woken: Arc<AtomicUsize>,
    }

    struct Keep(Arc<Mutex<Vec<u8>>>);
    impl CharOutput for Keep {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend(bytes);
        }
    }

    impl Rig {
        fn new() -> Self {
            let (irq, sent) = (Arc::new(VcpuSignal::default()), Arc::new(Mutex::default()));
            let woken = Arc::new(AtomicUsize::new(0));
            let wakes = woken.clone();
            let wake = move || {
                wakes.fetch_add(1, Ordering::SeqCst);
            };
            let line = IrqLine::new(irq.clone(), 0);
            let uart = Pl011::new(line, Box::new(Keep(Arc::clone(&sent))), Box::new(wake));
            let mut rig = Self { uart, irq, sent, woken };
            rig.set(reg::CR, cr::UART_ENABLE | cr::TX_ENABLE | cr::RX_ENABLE);
            rig
        }
        fn get(&mut self, offset: u64) -> u32 {
            Device::read(&mut self.uart, 0, offset, 4) as u32
        }
        fn set(&mut self, offset: u64, value: u32) {
            Device::write(&mut self.uart, 0, offset, 4, value.into());
        }
        fn irq(&self) -> bool {
            self.irq.lines() != 0
        }
    }

    device_conformance!(
        conformance,
        Pl011::new(IrqLine::unconnected(), Box::new(Discard), Box::new(|| ())),
        Options { windows: &[WINDOW_LEN], self_contained: true, ..Options::default() }
    );

    #[test]
    fn it_is_a_pl011() {
        let mut rig = Rig::new();
        let id = (0..4).fold(0, |id, n| id | rig.get(0xfe0 + 4 * n) << (8 * n));
        assert_eq!(id, ID);
        assert_eq!(rig.get(reg::FR), flag::TX_EMPTY | flag::RX_EMPTY | flag::PEER);
    }

    #[test]
    fn characters_go_out_and_ask_for_more() {
        let mut rig = Rig::new();
        rig.set(reg::IMSC, irq::TRANSMIT);
        assert!(!rig.irq());
        Device::write(&mut rig.uart, 0, reg::DR, 1, b'a'.into());
        assert!(rig.irq());
        rig.set(reg::ICR, irq::TRANSMIT);
        assert!(!rig.irq());
        rig.set(reg::DR, b'b'.into());
        assert_eq!(*rig.sent.lock().unwrap(), b"ab");
    }

    #[test]
    fn the_fifo_holds_back_what_does_not_fit() {
        let mut rig = Rig::new();
        rig.set(reg::LCR_H, lcr_h::FIFO_ENABLE);
        rig.set(reg::IMSC, irq::RECEIVE);
        assert_eq!(rig.uart.receive(b"0123456"), 7);
        assert!(!rig.irq() && rig.get(reg::RIS) & irq::RECEIVE_TIMEOUT != 0);
        assert_eq!(rig.uart.receive(b"789abcdefghi"), 9);
        assert!(rig.irq() && rig.get(reg::FR) & flag::RX_FULL != 0);
        assert_eq!(rig.woken.load(Ordering::SeqCst), 0);
        let text: Vec<u8> = (0..16).map(|_| rig.get(reg::DR) as u8).collect();
        assert_eq!(text, b"0123456789abcdef");
        assert!(!rig.irq() && rig.get(reg::RIS) & irq::RECEIVE_TIMEOUT == 0);
        assert_eq!(rig.woken.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_disabled_receiver_takes_nothing() {
        let mut rig = Rig::new();
        rig.set(reg::CR, cr::TX_ENABLE);
        assert_eq!((rig.uart.receive(b"x"), rig.uart.receive_break()), (0, false));
        rig.set(reg::CR, cr::UART_ENABLE | cr::RX_ENABLE);
        assert_eq!(rig.woken.load(Ordering::SeqCst), 1);
        assert_eq!(rig.uart.receive(b"xy"), 1);
    }

    #[test]
    fn a_break_shows_in_the_character_and_the_status() {
        let mut rig = Rig::new();
        rig.set(reg::IMSC, irq::ALL);
        assert!(rig.uart.receive_break() && rig.irq());
        assert_eq!(rig.get(reg::DR), 0x500);
        assert_eq!(rig.get(reg::RSR_ECR), 5);
        rig.set(reg::RSR_ECR, 0);
        rig.set(reg::ICR, irq::ALL);
        assert_eq!((rig.get(reg::RSR_ECR), rig.irq()), (0, false));
    }

    #[test]
    fn loopback_turns_outputs_into_inputs() {
        let mut rig = Rig::new();
        let on = cr::UART_ENABLE | cr::RX_ENABLE | cr::LOOPBACK;
        rig.set(reg::CR, on | cr::RTS | cr::OUT2);
        assert_eq!(rig.get(reg::FR) & (flag::PEER | flag::RI), flag::CTS | flag::RI);
        assert_eq!(rig.get(reg::RIS), irq::RI | irq::DCD | irq::DSR);
        rig.set(reg::DR, 0x5a);
        rig.set(reg::DR, 0x5b);
        assert_eq!(rig.get(reg::DR), 0x85a, "the second overran the first");
        assert!(rig.sent.lock().unwrap().is_empty());
    }
}
