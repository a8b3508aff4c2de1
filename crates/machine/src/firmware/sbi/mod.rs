//! Built-in SBI 2.0 (RISC-V Supervisor Binary Interface Specification 2.0): what a kernel finds below it when the
//! machine is its own firmware. One file an extension; [`EXTENSIONS`] is the table of them.
//!
//! Calls run on the calling hart's thread, between two blocks. What concerns other harts is posted to their mailboxes;
//! remote fences hold the caller until every mailbox was emptied, so they are complete when the call returns.

mod base;
mod boot;
mod console;
mod hsm;
mod ipi;
mod legacy;
mod pmu;
mod rfence;
mod srst;
mod time;

pub use boot::boot_state;
pub use console::Console;

use isomer_core::{Gpa, GuestMemory};
use isomer_devices::{backend::char::CharOutput, test_finisher::PowerEvent};
use isomer_engine::{Firmware, FirmwareCx, FirmwareResult, Group, Peer};
use isomer_ir::guest::HelperEnv;
use isomer_riscv64::{Cpu, Riscv64};
use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

/// Integer registers of the calling convention (3, "Binary Encoding").
const A0: usize = 10;
const A1: usize = 11;
const A6: usize = 16;
const A7: usize = 17;
/// Bytes in `ecall`.
const ECALL_LEN: u64 = 4;

/// Standard errors (3, "Standard SBI Errors").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
enum SbiError {
    Failed = -1,
    NotSupported = -2,
    InvalidParam = -3,
    InvalidAddress = -5,
    AlreadyAvailable = -6,
    AlreadyStarted = -7,
    AlreadyStopped = -8,
    NoSharedMemory = -9,
}

/// What a call that did not fail leads to.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// Return this value.
    Value(u64),
    /// Return 0 and then do what the engine is told. `Continue` makes no sense here.
    Then(FirmwareResult),
    /// Registers and pc are set already: nothing is returned.
    Gone(FirmwareResult),
}

type Answer = Result<Done, SbiError>;

/// An extension: a row of the table.
struct Extension {
    /// EID.
    id: u64,
    /// Does the calling convention of the legacy extensions apply: a0 is the result, a1 is left alone?
    legacy: bool,
    call: fn(&mut Call<'_>) -> Answer,
}

const fn extension(id: u64, call: fn(&mut Call<'_>) -> Answer) -> Extension {
    Extension { id, legacy: false, call }
}

/// All extensions; the legacy ones are one each.
static EXTENSIONS: &[Extension] = &[
    extension(0x10, base::call),
    extension(0x5449_4d45, time::call),
    extension(0x0073_5049, ipi::call),
    extension(0x5246_4e43, rfence::call),
    extension(0x0048_534d, hsm::call),
    extension(0x5352_5354, srst::call),
    extension(0x4442_434e, console::call),
    extension(0x0050_4d55, pmu::call),
    Extension { id: 0, legacy: true, call: time::set_timer },
    Extension { id: 1, legacy: true, call: legacy::console_putchar },
    Extension { id: 2, legacy: true, call: legacy::console_getchar },
    Extension { id: 3, legacy: true, call: legacy::clear_ipi },
    Extension { id: 4, legacy: true, call: legacy::send_ipi },
    Extension { id: 5, legacy: true, call: legacy::remote_fence_i },
    Extension { id: 6, legacy: true, call: legacy::remote_sfence_vma },
    Extension { id: 7, legacy: true, call: legacy::remote_sfence_vma_asid },
    Extension { id: 8, legacy: true, call: legacy::shutdown },
];

/// Called with what a guest asks of the whole machine, on the asking hart's thread.
pub type OnPower = Box<dyn Fn(PowerEvent) + Send + Sync>;

/// What the harts' firmware shares.
struct Shared {
    memory: GuestMemory,
    console: Console,
    on_power: OnPower,
    /// A hart each: an IPI is on its way there. Keeps a guest that sends without end from filling a mailbox.
    ipi_posted: Vec<AtomicBool>,
}

/// The SBI of one machine.
#[derive(Clone)]
pub struct Sbi(Arc<Shared>);

impl fmt::Debug for Sbi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sbi({} harts)", self.0.ipi_posted.len())
    }
}

impl Sbi {
    /// An SBI for `harts` harts, numbered as the vCPUs are. `output` is the debug console.
    pub fn new(memory: GuestMemory, harts: usize, output: Box<dyn CharOutput>, on_power: OnPower) -> Self {
        let ipi_posted = (0..harts).map(|_| AtomicBool::new(false)).collect();
        Self(Arc::new(Shared { memory, console: Console::new(output), on_power, ipi_posted }))
    }

    /// The firmware of one hart.
    pub fn hart(&self) -> HartFirmware {
        HartFirmware { shared: self.0.clone(), pmu: pmu::State::default() }
    }

    /// The debug console, for whoever brings it input.
    pub fn console(&self) -> Console {
        self.0.console.clone()
    }
}

/// The SBI as one hart has it.
pub struct HartFirmware {
    shared: Arc<Shared>,
    pmu: pmu::State,
}

impl fmt::Debug for HartFirmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HartFirmware").field("pmu", &self.pmu).finish_non_exhaustive()
    }
}

/// One call: the caller's registers and everything an extension may need.
struct Call<'a> {
    /// FID.
    function: u64,
    /// a0 to a5.
    args: [u64; 6],
    guest: &'a Riscv64,
    cpu: &'a mut Cpu,
    env: &'a mut dyn HelperEnv<Riscv64>,
    group: &'a Group<Riscv64>,
    /// The calling hart.
    hart: usize,
    shared: &'a Arc<Shared>,
    pmu: &'a mut pmu::State,
}

impl Firmware<Riscv64> for HartFirmware {
    fn call(&mut self, cx: FirmwareCx<'_, Riscv64>) -> FirmwareResult {
        let x = &cx.cpu.x;
        let extension = EXTENSIONS.iter().find(|extension| extension.id == x[A7]);
        let legacy = extension.is_some_and(|extension| extension.legacy);
        let mut call = Call {
            function: x[A6],
            args: [x[A0], x[A0 + 1], x[A0 + 2], x[A0 + 3], x[A0 + 4], x[A0 + 5]],
            guest: cx.guest,
            cpu: cx.cpu,
            env: cx.env,
            group: cx.group,
            hart: cx.index,
            shared: &self.shared,
            pmu: &mut self.pmu,
        };
        let answer = extension.map_or(Err(SbiError::NotSupported), |extension| (extension.call)(&mut call));
        let (error, value, then) = match answer {
            Ok(Done::Value(value)) => (0, value, FirmwareResult::Continue),
            Ok(Done::Then(then)) => (0, 0, then),
            Ok(Done::Gone(then)) => return then,
            Err(error) => (error as i64 as u64, 0, FirmwareResult::Continue),
        };
        if legacy {
            call.cpu.x[A0] = if error == 0 { value } else { error };
        } else {
            call.cpu.x[A0] = error;
            call.cpu.x[A1] = value;
        }
        call.cpu.header.pc = call.cpu.header.pc.wrapping_add(ECALL_LEN);
        then
    }
}

impl Call<'_> {
    /// Harts there are.
    fn hart_count(&self) -> usize {
        self.group.peers().len()
    }

    fn peer(&self, hart: usize) -> &Peer<Riscv64> {
        &self.group.peers()[hart]
    }

    /// The hart called `id`.
    fn hart(&self, id: u64) -> Result<usize, SbiError> {
        usize::try_from(id).ok().filter(|hart| *hart < self.hart_count()).ok_or(SbiError::InvalidParam)
    }

    /// The harts of a hart mask (3, "Hart list parameter"): bits counted from `base`, which -1 makes all harts.
    fn harts(&self, mask: u64, base: u64) -> Result<Vec<usize>, SbiError> {
        if base == u64::MAX {
            return Ok((0..self.hart_count()).collect());
        }
        self.hart(base)?;
        let named = (0..64).filter(|bit| mask >> bit & 1 != 0);
        named.map(|bit| self.hart(base.wrapping_add(bit))).collect()
    }

    /// Is this an address a hart can start at?
    fn check_start(&self, address: u64) -> Result<(), SbiError> {
        let executable = address.is_multiple_of(2) && self.shared.memory.region(Gpa(address), 2).is_some();
        if executable { Ok(()) } else { Err(SbiError::InvalidAddress) }
    }
}

#[cfg(test)]
mod tests;
