//! aarch64 for the comparison.

mod access;
mod class;
mod code;
mod generate;
mod harness;
mod known;

use self::{class::Class, generate::Generator};
use super::{
    image::{Harness, Image},
    random::Random,
    record::{Kind, Layout, Register, Word, signal},
    subject::{Generate, Sequence, Subject},
};
use anyhow::{Context, Result};
use isomer_aarch64::{Aarch64, Cpu, ec, encoding::Encoding};
use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};

/// A CPU model, without what cannot be compared.
pub(crate) struct Arm {
    guest: Arc<Aarch64>,
}

impl Arm {
    /// The CPU model of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn new(cpu: &str) -> Result<Self> {
        let mut guest = Aarch64::by_name(cpu).with_context(|| format!("no CPU model {cpu}"))?;
        guest.features.remove(known::LEFT_OUT);
        Ok(Self { guest: Arc::new(guest) })
    }
}

/// FPCR: modes that both sides have. Most programs run with none.
fn fpcr(random: &mut Random) -> u64 {
    if random.percent(60) { 0 } else { random.bits() & 0x07c8_0000 }
}

/// FPSR.
fn fpsr(random: &mut Random) -> u64 {
    if random.percent(80) { 0 } else { random.bits() & 0x0800_009f }
}

fn nzcv(random: &mut Random) -> u64 {
    random.bits() & 0xf000_0000
}

fn layout() -> &'static Layout {
    static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
        let register = |name: String, at, kind| Register { name, at, kind };
        let x = (0..31u8).map(|n| register(format!("x{n}"), Word::x(n), Kind::Integer));
        let sp = [register("sp".into(), Word::x(31), Kind::Integer)];
        let low = (0..32u8).map(|n| register(format!("d{n}"), Word::f(n), Kind::Float));
        let high = (0..32u8).map(|n| register(format!("dh{n}"), Word::f(n) + 8, Kind::Float));
        let status = [
            register("fpcr".into(), harness::FPCR, Kind::Status(fpcr)),
            register("fpsr".into(), harness::FPSR, Kind::Status(fpsr)),
            register("nzcv".into(), harness::NZCV, Kind::Status(nzcv)),
        ];
        Layout(x.chain(sp).chain(low).chain(high).chain(status).collect())
    });
    &LAYOUT
}

impl Subject for Arm {
    type Guest = Aarch64;

    const QEMU: &'static str = "qemu-aarch64-static";
    const ELF: (u16, u32) = (183, 0);

    fn guest(&self) -> &Arc<Aarch64> {
        &self.guest
    }

    fn qemu_cpu(&self) -> String {
        match self.guest.name {
            "max" => "max,sve=off,sme=off,pauth=off".into(),
            name => name.into(),
        }
    }

    fn generator(&self, random: Random) -> Box<dyn Generate + '_> {
        Box::new(Generator::new(&self.guest, random))
    }

    fn layout(&self) -> &Layout {
        layout()
    }

    fn harness(&self, base: u64, records: Range<u64>) -> Result<Harness> {
        harness::make(base, records)
    }

    fn place(&self, at: u64, sequence: &Sequence, epilogue: u64) -> Result<Vec<u8>> {
        harness::place(at, sequence, epilogue)
    }

    fn bare_cpu(&self, image: &Image) -> Cpu {
        self.guest.reset(0, image.harness.bare_entry)
    }

    /// For `ESR_EL1` (Linux, arch/arm64/kernel/entry-common.c and mm/fault.c).
    fn signal_of(&self, cause: u64) -> u64 {
        const ALIGNMENT: u32 = 0x21;
        let (class, status) = ((cause >> 26) as u32 & 0x3f, cause as u32 & 0x3f);
        match class {
            ec::UNKNOWN | ec::SYSREG | ec::BTI | ec::ILLEGAL_STATE | ec::FPAC => signal::ILL,
            ec::BRK => signal::TRAP,
            ec::PC_ALIGN | ec::SP_ALIGN => signal::BUS,
            ec::DATA_ABORT if status == ALIGNMENT => signal::BUS,
            _ => signal::SEGV,
        }
    }

    fn classes(&self, sequence: &Sequence) -> Vec<&'static str> {
        let code: Vec<u8> = sequence.bytes().collect();
        let words = code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        words
            .map(|insn| Encoding::of(&self.guest, insn).map_or("undefined", |row| Class::of(row).name()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syndromes_are_signals() -> Result<()> {
        let arm = Arm::new("max")?;
        let signals = [0x0200_0000, 0xf200_0000, 0x9200_0021, 0x9200_0007].map(|esr| arm.signal_of(esr));
        assert_eq!(signals, [signal::ILL, signal::TRAP, signal::BUS, signal::SEGV]);
        Ok(())
    }
}
