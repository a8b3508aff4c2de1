//! riscv64 for the comparison.

mod assembler;
mod generate;
mod harness;
mod known;

use self::{assembler::Table, generate::Generator};
use super::{
    image::{Harness, Image},
    random::Random,
    record::{Kind, Layout, Register, Word, signal},
    subject::{Generate, Sequence, Subject},
};
use anyhow::{Context, Result};
use isomer_riscv64::{
    Cpu, Privilege, Riscv64,
    regs::{F_NAMES, X_NAMES, envcfg},
};
use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};

/// Extensions QEMU has and Isomer has not. Of those that are off by default only what `zama16b` is not: it makes
/// misaligned atomics work.
const OFF: &str = "v=false,h=false,zama16b=false,zabha=false,zfbfmin=false,zicfilp=false,zicfiss=false";
/// FS initial: the first floating-point instruction has to mark it dirty.
const FS_INITIAL: u64 = 1 << 13;
/// PMP: everything may be read, written and executed (volume II, 3.7.1).
const PMP_ALL: (u8, u64) = (0x1f, u64::MAX >> 10);

/// A model, and the table to write programs with.
pub(crate) struct Riscv {
    guest: Arc<Riscv64>,
    table: Table,
}

impl Riscv {
    /// The CPU model of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn new(cpu: &str) -> Result<Self> {
        let guest = Arc::new(Riscv64::by_name(cpu).with_context(|| format!("no CPU model {cpu}"))?);
        Ok(Self { guest, table: Table::new() })
    }
}

/// `fcsr`: rounding modes preferably valid ones.
fn fcsr(random: &mut Random) -> u64 {
    let frm = if random.percent(96) { random.below(5) } else { random.below(8) };
    let flags = if random.percent(80) { 0 } else { random.below(32) };
    frm << 5 | flags
}

/// `x0` is not stored.
fn layout() -> &'static Layout {
    static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
        let register = |name: &str, at, kind| Register { name: name.to_owned(), at, kind };
        let x = (1..32u8).map(|n| register(X_NAMES[usize::from(n)], Word::x(n), Kind::Integer));
        let f = (0..32u8).map(|n| register(F_NAMES[usize::from(n)], Word::f(n), Kind::Float));
        let fcsr = [register("fcsr", Word::Status as i64, Kind::Status(fcsr))];
        Layout(x.chain(f).chain(fcsr).collect())
    });
    &LAYOUT
}

impl Subject for Riscv {
    type Guest = Riscv64;

    const QEMU: &'static str = "qemu-riscv64-static";
    /// RISC-V; compressed code, double-precision calls.
    const ELF: (u16, u32) = (243, 5);

    fn guest(&self) -> &Arc<Riscv64> {
        &self.guest
    }

    /// QEMU's CPU with the extensions of the guest and no others.
    fn qemu_cpu(&self) -> String {
        let has = self.guest.isa_extensions();
        let all = Riscv64::max();
        let named = all.isa_extensions().into_iter().filter(|name| name.len() > 1);
        let switches: Vec<_> = named.map(|name| format!("{name}={}", has.contains(&name))).collect();
        format!("rv64,{OFF},{}", switches.join(","))
    }

    fn generator(&self, random: Random) -> Box<dyn Generate + '_> {
        Box::new(Generator::new(&self.table, &self.guest, random))
    }

    fn layout(&self) -> &Layout {
        layout()
    }

    fn harness(&self, base: u64, records: Range<u64>) -> Result<Harness> {
        harness::make(&self.table, base, records)
    }

    fn place(&self, at: u64, sequence: &Sequence, epilogue: u64) -> Result<Vec<u8>> {
        harness::place(&self.table, at, sequence, epilogue)
    }

    /// As an operating system without virtual memory would run the program.
    fn bare_cpu(&self, image: &Image) -> Cpu {
        let mut cpu = self.guest.reset(0, image.harness.bare_entry);
        (cpu.pmpcfg[0], cpu.pmpaddr[0]) = PMP_ALL;
        cpu.mtvec = image.harness.bare_trap;
        cpu.mstatus = FS_INITIAL;
        cpu.menvcfg = envcfg::CBIE | envcfg::CBCFE | envcfg::CBZE;
        cpu.senvcfg = cpu.menvcfg;
        cpu.privilege = Privilege::User;
        cpu.update_mode();
        cpu
    }

    /// For `mcause` (Linux, arch/riscv/kernel/traps.c).
    fn signal_of(&self, cause: u64) -> u64 {
        match cause {
            2 => signal::ILL,
            3 => signal::TRAP,
            0 | 4 | 6 => signal::BUS,
            _ => signal::SEGV,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_chooses_the_extensions() -> Result<()> {
        let (max, plain) = (Riscv::new("max")?.qemu_cpu(), Riscv::new("rv64")?.qemu_cpu());
        assert!(max.contains("zfh=true") && plain.contains("zfh=false"));
        assert!(plain.contains("zba=true"));
        Ok(())
    }

    #[test]
    fn causes_are_signals() -> Result<()> {
        let riscv = Riscv::new("max")?;
        assert_eq!([2, 3, 6, 13].map(|cause| riscv.signal_of(cause)), [4, 5, 7, 11]);
        Ok(())
    }
}
