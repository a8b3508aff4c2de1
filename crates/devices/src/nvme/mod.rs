//! An NVM Express controller with one namespace (NVMe 1.4, PCI): registers, enabling, doorbells.
//!
//! vCPUs only write doorbells; threads of the controller take commands from the queues by turns, carry them out and
//! post the answers. Locks are taken in the order device, queues, settings, interrupt.

mod admin;
mod io;
mod prp;
mod queues;
mod spec;
#[cfg(test)]
mod tests;

use crate::{
    backend::BlockBackend,
    crew::{Crew, Shared},
    pci::{Bar, BarKind, ConfigSpace, ConfigState, Identity, Intx, MsiSink, Msix, MsixState, PciFunction},
};
use admin::{Answer, FEATURE_DEFAULTS};
use isomer_core::{Device, GuestMemory, StateError};
use queues::{MAX_ENTRIES, MAX_IO_QUEUES, Queues, Ring, Taken};
use serde::{Deserialize, Serialize};
use spec::{COMMAND_BYTES, COMPLETION_BYTES, Status};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Bytes of a logical block.
const BLOCK_BYTES: u64 = 512;
/// Most bytes one command moves, in pages as a power of two.
const MAX_TRANSFER_SHIFT: u8 = 7;
/// The same in bytes: 512 KiB.
const MAX_TRANSFER_BYTES: u64 = prp::PAGE << MAX_TRANSFER_SHIFT;
/// Threads that carry out commands.
const THREADS: usize = 4;
/// Version 1.4.0.
const VERSION: u32 = 0x0001_0400;
/// The vendor and device numbers of QEMU's controller, so that drivers treat them alike.
const VENDOR: u16 = 0x1b36;
const DEVICE: u16 = 0x0010;
/// Mass storage, non-volatile memory, NVM Express.
const CLASS: u32 = 0x01_08_02;

/// The BAR with the registers, and the one with MSI-X.
const BAR: u8 = 0;
const BAR_BYTES: u64 = 0x4000;
const MSIX_BAR: u8 = 4;

/// Registers (3.1), by offset.
mod reg {
    pub(super) const CAP: u64 = 0x00;
    pub(super) const VS: u64 = 0x08;
    pub(super) const INTMS: u64 = 0x0c;
    pub(super) const INTMC: u64 = 0x10;
    pub(super) const CC: u64 = 0x14;
    pub(super) const CSTS: u64 = 0x1c;
    pub(super) const AQA: u64 = 0x24;
    pub(super) const ASQ: u64 = 0x28;
    pub(super) const ACQ: u64 = 0x30;
    pub(super) const DOORBELLS: u64 = 0x1000;
}

/// Contiguous queues, ten seconds to get ready, the NVM command set, pages of 4 KiB.
const CAPABILITIES: u64 = (MAX_ENTRIES as u64 - 1) | 1 << 16 | 20 << 24 | 1 << 37;

/// Controller configuration: enabled; what has to be in it then (pages of 4 KiB, NVM commands).
const CC_ENABLE: u32 = 1;
const CC_SHAPE: u32 = 0x7f0;
const CC_SHUTDOWN: u32 = 3 << 14;
/// Bits software can set.
const CC_WRITABLE: u32 = 0x00ff_fff1;
/// Controller status.
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 2;
const CSTS_SHUTDOWN_DONE: u32 = 2 << 2;

/// How a controller presents its disk.
#[derive(Clone, Debug, Default)]
pub struct NvmeOptions {
    /// Its serial number; the first 20 bytes count.
    pub serial: String,
    /// Its number among the machine's, so that no two disks are taken for one.
    pub number: u8,
}

/// What the driver has set, and what it has asked to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    features: [u32; 12],
    event_requests: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { features: FEATURE_DEFAULTS, event_requests: 0 }
    }
}

/// What threads and vCPUs share.
struct Controller {
    disk: Arc<dyn BlockBackend>,
    serial: String,
    uuid: [u8; 16],
    memory: GuestMemory,
    queues: Mutex<Queues>,
    settings: Mutex<Settings>,
    msix: Option<Arc<Msix>>,
    intx: Intx,
    /// The function may reach guest memory.
    bus_master: AtomicBool,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({}, {:?})", self.serial, self.disk)
    }
}

impl Controller {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blocks(&self) -> u64 {
        self.disk.sectors()
    }

    fn vectors(&self) -> u16 {
        self.msix.as_ref().map_or(1, |msix| msix.vectors())
    }

    /// Carries out commands until there are none or the device wants something else.
    fn work(&self, shared: &Shared) {
        while !shared.is_interrupted() && self.bus_master.load(Ordering::Acquire) {
            let (taken, more) = {
                let mut queues = self.queues();
                let Some(taken) = queues.take(&self.memory) else { return };
                (taken, queues.has_work())
            };
            if more {
                shared.kick();
            }
            let answer = match taken.queue {
                0 => admin::run(self, &taken),
                _ => Answer::Now(io::run(self, &taken.command), 0),
            };
            match answer {
                Answer::Now(status, result) => self.answer(&taken, status, result),
                Answer::Held => self.queues().hold(0),
                Answer::Later => self.when_closed(&taken),
            }
        }
    }

    /// Deletion of a queue whose commands others have in hand: they end without help.
    fn when_closed(&self, taken: &Taken) {
        loop {
            std::thread::sleep(std::time::Duration::from_micros(200));
            match admin::run(self, taken) {
                Answer::Now(status, result) => return self.answer(taken, status, result),
                Answer::Held | Answer::Later => {}
            }
        }
    }

    fn answer(&self, taken: &Taken, status: Status, result: u32) {
        let mut queues = self.queues();
        if let Some(vector) = queues.complete(&self.memory, taken, status, result) {
            queues.interrupt(vector, self.msix.as_ref(), &self.intx);
        }
    }
}

/// The controller.
#[derive(Debug)]
pub struct Nvme {
    controller: Arc<Controller>,
    config: ConfigSpace,
    registers: Registers,
    /// Threads, while the controller is enabled.
    crew: Option<Crew>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    cc: u32,
    csts: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
}

/// What a guest can observe.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct NvmeState {
    registers: Registers,
    queues: Queues,
    settings: Settings,
    config: ConfigState,
    msix: Option<MsixState>,
    blocks: u64,
    read_only: bool,
}

impl Nvme {
    /// A controller for `disk`, which reads and writes `memory`. With `msi` it has MSI-X; without, only INTA#.
    pub fn new(
        disk: Arc<dyn BlockBackend>,
        options: &NvmeOptions,
        memory: GuestMemory,
        msi: Option<Arc<dyn MsiSink>>,
    ) -> Self {
        let msix = msi.map(|sink| Arc::new(Msix::new(MAX_IO_QUEUES + 1, sink)));
        let mut config = ConfigSpace::new(&Identity {
            vendor: VENDOR,
            device: DEVICE,
            revision: 2,
            class: CLASS,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            interrupt_pin: 1,
        })
        .with_bar(Bar { index: BAR, kind: BarKind::Memory64, len: BAR_BYTES });
        if let Some(msix) = &msix {
            config = config.with_msix(MSIX_BAR, msix.clone());
        }
        // A UUID of the custom kind (RFC 9562, 5.8).
        let mut uuid = [0; 16];
        options.serial.bytes().zip(&mut uuid[..15]).for_each(|(byte, place)| *place = byte);
        uuid[15] = options.number;
        (uuid[6], uuid[8]) = (uuid[6] & 0x0f | 0x80, uuid[8] & 0x3f | 0x80);
        let controller = Controller {
            disk,
            serial: options.serial.clone(),
            uuid,
            memory,
            queues: Mutex::new(Queues::none()),
            settings: Mutex::default(),
            msix,
            intx: config.intx().clone(),
            bus_master: AtomicBool::new(false),
        };
        Self { controller: Arc::new(controller), config, registers: Registers::default(), crew: None }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let half = |value: u64, base: u64| if offset == base { value as u32 } else { (value >> 32) as u32 };
        let masked = || u32::from(self.controller.queues().masked);
        match offset & !3 {
            reg::CAP | 0x04 => half(CAPABILITIES, reg::CAP),
            reg::VS => VERSION,
            reg::INTMS | reg::INTMC => masked(),
            reg::CC => self.registers.cc,
            reg::CSTS => self.registers.csts,
            reg::AQA => self.registers.aqa,
            reg::ASQ | 0x2c => half(self.registers.asq, reg::ASQ),
            reg::ACQ | 0x34 => half(self.registers.acq, reg::ACQ),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let merge = |old: u64, base: u64| match offset == base {
            true => old & !0xffff_ffff | u64::from(value),
            false => old & 0xffff_ffff | u64::from(value) << 32,
        };
        match offset {
            reg::INTMS | reg::INTMC if value & 1 != 0 => {
                let mut queues = self.controller.queues();
                queues.masked = offset == reg::INTMS;
                queues.drive(&self.controller.intx);
            }
            reg::CC => self.configure(value & CC_WRITABLE),
            reg::AQA => self.registers.aqa = value & 0x0fff_0fff,
            reg::ASQ | 0x2c => self.registers.asq = merge(self.registers.asq, reg::ASQ) & !0xfff,
            reg::ACQ | 0x34 => self.registers.acq = merge(self.registers.acq, reg::ACQ) & !0xfff,
            reg::DOORBELLS.. => self.ring(offset - reg::DOORBELLS, value),
            _ => {}
        }
    }

    fn ring(&mut self, at: u64, value: u32) {
        let id = (at / 8) as u16;
        if !at.is_multiple_of(4) || id > MAX_IO_QUEUES || self.registers.csts & CSTS_READY == 0 {
            return;
        }
        let mut queues = self.controller.queues();
        let completion = at % 8 == 4;
        queues.ring(id, completion, value);
        if completion {
            queues.drive(&self.controller.intx);
        }
        drop(queues);
        // Room for answers is work, too.
        if let Some(crew) = &self.crew {
            crew.kick();
        }
    }

    fn configure(&mut self, value: u32) {
        let (was, is) = (self.registers.cc & CC_ENABLE != 0, value & CC_ENABLE != 0);
        self.registers.cc = value;
        match (was, is) {
            (false, true) => self.enable(),
            (true, false) => self.disable(),
            _ => {}
        }
        if value & CC_SHUTDOWN != 0 && self.registers.csts & CSTS_SHUTDOWN_DONE == 0 {
            if let Err(error) = self.controller.disk.flush() {
                isomer_core::guest_warn!("NVMe shutdown: {error}");
            }
            self.registers.csts |= CSTS_SHUTDOWN_DONE;
        }
    }

    fn enable(&mut self) {
        let enabled = self.try_enable();
        self.registers.csts = if enabled.is_some() { CSTS_READY } else { CSTS_FATAL };
    }

    fn try_enable(&mut self) -> Option<()> {
        let Registers { cc, aqa, asq, acq, .. } = self.registers;
        if cc & CC_SHAPE != 0 {
            return None;
        }
        let memory = &self.controller.memory;
        let completion = Ring::new(memory, acq, (aqa >> 16) + 1, COMPLETION_BYTES).ok()?;
        let submission = Ring::new(memory, asq, (aqa & 0xfff) + 1, COMMAND_BYTES).ok()?;
        {
            let mut queues = self.controller.queues();
            let masked = queues.masked;
            *queues = Queues::none();
            queues.masked = masked;
            queues.add_completion(0, completion, 0, true).ok()?;
            queues.add_submission(0, submission, 0).ok()?;
        }
        *self.controller.settings() = Settings::default();
        self.start()
    }

    fn start(&mut self) -> Option<()> {
        let body = |_| {
            let controller = self.controller.clone();
            move |shared: &Shared| controller.work(shared)
        };
        match Crew::start("nvme", (0..THREADS).map(body)) {
            Ok(crew) => {
                self.crew = Some(crew);
                Some(())
            }
            Err(error) => {
                tracing::error!("no threads for an NVMe controller: {error}");
                None
            }
        }
    }

    /// Controller reset (7.3.2): what is in hand is finished, queues are gone.
    fn disable(&mut self) {
        self.crew = None;
        let mut queues = self.controller.queues();
        *queues = Queues::none();
        queues.drive(&self.controller.intx);
        drop(queues);
        *self.controller.settings() = Settings::default();
        self.registers.csts = 0;
    }

    fn follow_bus_master(&self) {
        self.controller.bus_master.store(self.config.is_bus_master(), Ordering::Release);
        if let Some(crew) = &self.crew {
            crew.kick();
        }
    }

    /// Could this controller have saved `state`?
    fn check(&self, state: &NvmeState) -> Result<(), String> {
        let disk = &self.controller.disk;
        let ready = state.registers.csts & CSTS_READY != 0;
        let msix_fits = match (&self.controller.msix, &state.msix) {
            (Some(msix), Some(table)) => msix.accepts(table),
            (None, None) => true,
            _ => false,
        };
        if (state.blocks, state.read_only) != (self.controller.blocks(), disk.read_only()) {
            Err(format!("its disk had {} blocks, this one has {}", state.blocks, self.controller.blocks()))
        } else if !msix_fits {
            Err("MSI-X vectors of another device".into())
        } else if !self.config.accepts(&state.config) {
            Err("it changes what is fixed in configuration space".into())
        } else if !state.queues.is_plausible(&self.controller.memory, self.controller.vectors()) {
            Err("queues that cannot be".into())
        } else if ready && state.registers.cc & CC_ENABLE == 0 {
            Err("it is ready without being enabled".into())
        } else {
            Ok(())
        }
    }
}

impl Device for Nvme {
    const NAME: &'static str = "nvme";
    const VERSION: u32 = 1;
    type State = NvmeState;

    fn read(&mut self, region: usize, offset: u64, size: usize) -> u64 {
        if region == usize::from(MSIX_BAR) {
            return self.controller.msix.as_ref().map_or(0, |msix| msix.read(offset, size));
        }
        if region != usize::from(BAR) || offset >= reg::DOORBELLS {
            return 0;
        }
        let low = u64::from(self.read_register(offset));
        match size {
            8 if offset.is_multiple_of(8) => low | u64::from(self.read_register(offset + 4)) << 32,
            4 if offset.is_multiple_of(4) => low,
            1 | 2 => low >> (8 * (offset % 4)) & ((1 << (8 * size)) - 1),
            _ => 0,
        }
    }

    fn write(&mut self, region: usize, offset: u64, size: usize, value: u64) {
        if region == usize::from(MSIX_BAR) {
            if let Some(msix) = &self.controller.msix {
                msix.write(offset, size, value);
            }
            return;
        }
        if region != usize::from(BAR) || offset >= BAR_BYTES || !offset.is_multiple_of(4) {
            return;
        }
        match size {
            4 => self.write_register(offset, value as u32),
            8 if offset.is_multiple_of(8) => {
                self.write_register(offset, value as u32);
                self.write_register(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.disable();
        self.registers = Registers::default();
        self.config.reset();
        let mut queues = self.controller.queues();
        queues.masked = false;
        queues.drive(&self.controller.intx);
        drop(queues);
        self.follow_bus_master();
    }

    fn save(&self) -> NvmeState {
        NvmeState {
            registers: self.registers.clone(),
            queues: self.controller.queues().clone(),
            settings: self.controller.settings().clone(),
            config: self.config.save(),
            msix: self.controller.msix.as_ref().map(|msix| msix.save()),
            blocks: self.controller.blocks(),
            read_only: self.controller.disk.read_only(),
        }
    }

    fn restore(&mut self, state: NvmeState) -> Result<(), StateError> {
        self.check(&state).map_err(|why| StateError::Damaged { device: Self::NAME, why })?;
        self.disable();
        if let (Some(msix), Some(table)) = (&self.controller.msix, state.msix) {
            msix.restore(table);
        }
        self.config.restore(&state.config);
        *self.controller.settings() = state.settings;
        self.registers = state.registers;
        let mut queues = self.controller.queues();
        *queues = state.queues;
        queues.drive(&self.controller.intx);
        drop(queues);
        self.controller.bus_master.store(self.config.is_bus_master(), Ordering::Release);
        if self.registers.csts & CSTS_READY != 0 && self.start().is_none() {
            self.registers.csts |= CSTS_FATAL;
        }
        // Until the machine goes on.
        self.quiesce();
        Ok(())
    }

    fn quiesce(&mut self) {
        if let Some(crew) = &self.crew {
            crew.ask_to_park();
            crew.wait_parked();
        }
    }

    fn resume(&mut self) {
        if let Some(crew) = &self.crew {
            crew.unpark();
            crew.kick();
        }
    }
}

impl PciFunction for Nvme {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, offset: u16, size: usize, value: u32) {
        self.config.write(offset, size, value);
        self.follow_bus_master();
    }
}
