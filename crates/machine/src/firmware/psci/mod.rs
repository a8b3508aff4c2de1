//! Built-in PSCI 1.1 (Arm Power State Coordination Interface, DEN 0022F) and what comes with it by the same calls: the
//! SMC calling convention's own functions (DEN 0028F, 7) and the true random number generator interface 1.0
//! (DEN 0098). It is what a kernel finds below it when the machine is its own firmware; one table,
//! [`FUNCTIONS`], says what there is.
//!
//! The functions work on a [`Machine`], so nothing here knows CPU registers.

mod power;
#[cfg(test)]
mod tests;
mod trng;
mod vcpu;

pub use vcpu::{OnPower, Psci, boot_state};

use isomer_core::Gpa;
use isomer_devices::test_finisher::PowerEvent;

/// What the firmware acts on. CPUs have their index.
pub trait Machine {
    /// How many CPUs there are.
    fn cpus(&self) -> usize;
    /// A CPU's affinity, as in `MPIDR_EL1`: Aff3 in bits 39:32, Aff2 to Aff0 in 23:0.
    fn affinity(&self, cpu: usize) -> u64;
    /// Is it on?
    fn is_on(&self, cpu: usize) -> bool;
    /// Starts a CPU that is off at `entry`, with `context` in x0. `false`: it is on, or somebody else starts it just now.
    fn start(&mut self, cpu: usize, entry: Gpa, context: u64) -> bool;
    /// Can a CPU start at this address?
    fn is_code(&self, entry: Gpa) -> bool;
    /// Asks the whole machine for this.
    fn power(&mut self, event: PowerEvent);
    /// Fresh random bits.
    fn entropy(&mut self) -> u64;
}

/// Errors, as calls return them (PSCI 5.2.2; SMCCC 7.1 and TRNG have the first two too).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i64)]
enum Error {
    NotSupported = -1,
    InvalidParameters = -2,
    AlreadyOn = -4,
    OnPending = -5,
    InvalidAddress = -9,
}

/// What a call leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// Return these in x0, x1 and on; `None` leaves a register as it is.
    Return([Option<u64>; 4]),
    /// Wait for an interrupt, then return success.
    Wait,
    /// The caller is off and does not return.
    Off,
    /// The machine ends and the caller does not return.
    Stop,
}

type Answer = Result<Done, Error>;

/// Success with a value in x0.
fn value(x0: u64) -> Answer {
    Ok(Done::Return([Some(x0), None, None, None]))
}

/// A call: its arguments and the caller.
struct Call<'a> {
    machine: &'a mut dyn Machine,
    /// x1 to x3, or w1 to w3 for 32-bit calls.
    args: [u64; 3],
    /// Is it by the 64-bit convention?
    is_64_bit: bool,
    caller: usize,
}

/// Bit 30 of a function identifier: the 64-bit calling convention.
const SMC64: u32 = 1 << 30;

/// Is a function there in its 32-bit form, or in both?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Forms {
    Only32,
    Both,
}
use Forms::{Both, Only32};

/// A row of the table: function identifier in its 32-bit form, forms, and what it does.
type Function = (u32, Forms, fn(&mut Call<'_>) -> Answer);

/// All functions.
static FUNCTIONS: &[Function] = &[
    // SMCCC
    (0x8000_0000, Only32, |_| value(SMCCC_VERSION)),
    (0x8000_0001, Only32, |call| value(architecture_feature(call.args[0] as u32))),
    (0x8000_8000, Only32, |_| value(0)),
    (0x8000_7fff, Only32, |_| value(0)),
    (0x8000_3fff, Only32, |_| value(0)),
    // PSCI
    (0x8400_0000, Only32, |_| value(PSCI_VERSION)),
    (0x8400_0001, Both, power::cpu_suspend),
    (0x8400_0002, Only32, |_| Ok(Done::Off)),
    (0x8400_0003, Both, power::cpu_on),
    (0x8400_0004, Both, power::affinity_info),
    (0x8400_0006, Only32, |_| value(MIGRATE_NOT_REQUIRED)),
    (0x8400_0008, Only32, |call| power::system(call, PowerEvent::Off)),
    (0x8400_0009, Only32, |call| power::system(call, PowerEvent::Reset)),
    (0x8400_000a, Only32, psci_features),
    (0x8400_0012, Both, power::system_reset2),
    // TRNG
    (0x8400_0050, Only32, |_| value(trng::VERSION)),
    (0x8400_0051, Only32, |call| value(if find(call.args[0] as u32).is_some() { 0 } else { MINUS_1 })),
    (0x8400_0052, Only32, |_| Ok(Done::Return(trng::UUID.map(|word| Some(word.into()))))),
    (0x8400_0053, Both, trng::random),
];

/// SMCCC 1.2.
const SMCCC_VERSION: u64 = 0x1_0002;
/// PSCI 1.1.
const PSCI_VERSION: u64 = 0x1_0001;
/// MIGRATE_INFO_TYPE: there is no trusted operating system that would have to move.
const MIGRATE_NOT_REQUIRED: u64 = 2;
const MINUS_1: u64 = u64::MAX;

/// The workarounds for CVE-2017-5715, CVE-2018-3639 and CVE-2022-23960: they can be called, and are not needed, because
/// nothing here speculates.
const WORKAROUNDS: [u32; 3] = [0x8000_8000, 0x8000_7fff, 0x8000_3fff];

/// SMCCC_ARCH_FEATURES.
fn architecture_feature(id: u32) -> u64 {
    match id {
        _ if WORKAROUNDS.contains(&id) => 1,
        0x8000_0000 | 0x8000_0001 => 0,
        _ => MINUS_1,
    }
}

/// PSCI_FEATURES: also tells that SMCCC_VERSION is there. CPU_SUSPEND takes the original format of power states.
fn psci_features(call: &mut Call<'_>) -> Answer {
    let id = call.args[0] as u32;
    let is_psci = (0x8400_0000..0x8400_0020).contains(&(id & !SMC64)) || id == 0x8000_0000;
    if is_psci && find(id).is_some() { value(0) } else { Err(Error::NotSupported) }
}

fn find(id: u32) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|(known, forms, _)| *known == id || *forms == Both && *known | SMC64 == id)
}

/// Carries out the call that `caller` makes with `x0` to `x3`. Functions that do not exist return -1.
pub fn call(machine: &mut dyn Machine, caller: usize, x: [u64; 4]) -> Done {
    let id = x[0] as u32;
    let is_64_bit = id & SMC64 != 0;
    let arg = |n: usize| if is_64_bit { x[n] } else { x[n] & 0xffff_ffff };
    let mut call = Call { machine, args: [arg(1), arg(2), arg(3)], is_64_bit, caller };
    let answer = find(id).map_or(Err(Error::NotSupported), |(_, _, run)| run(&mut call));
    answer.unwrap_or_else(|error| Done::Return([Some(error as i64 as u64), None, None, None]))
}
