//! PSCI as an aarch64 CPU calls it: registers in, registers out.

use super::{Done, Machine, call};
use isomer_aarch64::{Aarch64, Cpu};
use isomer_core::{Gpa, GuestMemory};
use isomer_devices::test_finisher::PowerEvent;
use isomer_engine::{Firmware, FirmwareCx, FirmwareResult, Group, Request};
use isomer_ir::guest::HelperEnv;
use std::{fmt, sync::Arc};

/// Bytes in `hvc` and `smc`.
const CALL_LEN: u64 = 4;

/// Called with what a guest asks of the whole machine, on the asking CPU's thread.
pub type OnPower = Box<dyn Fn(PowerEvent) + Send + Sync>;

/// What the CPUs' firmware shares.
struct Shared {
    memory: GuestMemory,
    on_power: OnPower,
}

/// The PSCI of one machine. Clones are the same one; each CPU has its own.
#[derive(Clone)]
pub struct Psci(Arc<Shared>);

impl fmt::Debug for Psci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psci")
    }
}

/// The state in which a CPU starts at `entry` (PSCI 6.4; Linux Documentation/arch/arm64/booting.rst): as after reset,
/// at the highest exception level there is, with `x0`.
pub fn boot_state(guest: &Aarch64, index: u32, entry: Gpa, x0: u64) -> Cpu {
    let mut cpu = guest.reset(index, entry.0);
    cpu.x[0] = x0;
    cpu
}

impl Psci {
    /// A PSCI for a machine with this memory.
    pub fn new(memory: GuestMemory, on_power: OnPower) -> Self {
        Self(Arc::new(Shared { memory, on_power }))
    }
}

/// A call under way.
struct Caller<'a> {
    guest: &'a Aarch64,
    env: &'a mut dyn HelperEnv<Aarch64>,
    group: &'a Group<Aarch64>,
    shared: &'a Shared,
}

impl Machine for Caller<'_> {
    fn cpus(&self) -> usize {
        self.group.peers().len()
    }

    fn affinity(&self, cpu: usize) -> u64 {
        self.guest.mpidr(cpu as u32)
    }

    fn is_on(&self, cpu: usize) -> bool {
        self.group.peers()[cpu].is_powered()
    }

    fn start(&mut self, cpu: usize, entry: Gpa, context: u64) -> bool {
        let peer = &self.group.peers()[cpu];
        if !peer.claim_power_on() {
            return false;
        }
        peer.post(Request::PowerOn(Box::new(move |guest: &Aarch64, state: &mut Cpu| {
            let (insns, told) = (state.header.insns, state.told.get());
            *state = boot_state(guest, cpu as u32, entry, context);
            // The engine's count of work done goes on, and what the interrupt controller was told is still so.
            state.header.insns = insns;
            state.told.set(told);
        })));
        true
    }

    fn is_code(&self, entry: Gpa) -> bool {
        self.shared.memory.region(entry, CALL_LEN).is_some()
    }

    fn power(&mut self, event: PowerEvent) {
        (self.shared.on_power)(event);
    }

    fn entropy(&mut self) -> u64 {
        self.env.entropy()
    }
}

impl Firmware<Aarch64> for Psci {
    fn call(&mut self, cx: FirmwareCx<'_, Aarch64>) -> FirmwareResult {
        let FirmwareCx { guest, cpu, env, group, index } = cx;
        let x = [cpu.x[0], cpu.x[1], cpu.x[2], cpu.x[3]];
        let mut caller = Caller { guest, env, group, shared: &self.0 };
        let done = call(&mut caller, index, x);
        let (values, result) = match done {
            Done::Return(values) => (values, FirmwareResult::Continue),
            Done::Wait => ([Some(0), None, None, None], FirmwareResult::Wait),
            Done::Off => return FirmwareResult::PowerOff,
            Done::Stop => return FirmwareResult::Stop,
        };
        for (register, value) in cpu.x.iter_mut().zip(values) {
            *register = value.unwrap_or(*register);
        }
        cpu.header.pc = cpu.header.pc.wrapping_add(CALL_LEN);
        result
    }
}
