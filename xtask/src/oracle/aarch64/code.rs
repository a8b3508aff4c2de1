//! An assembler for what the harness and the generator need by themselves (the manual, C4.1 and C6.2).

use anyhow::{Result, bail};

/// Registers that the harness uses by name.
pub(super) mod reg {
    pub(in super::super) const X0: u8 = 0;
    pub(in super::super) const X1: u8 = 1;
    pub(in super::super) const X2: u8 = 2;
    pub(in super::super) const X3: u8 = 3;
    pub(in super::super) const X8: u8 = 8;
    pub(in super::super) const X9: u8 = 9;
    pub(in super::super) const X10: u8 = 10;
    pub(in super::super) const X11: u8 = 11;
    pub(in super::super) const X19: u8 = 19;
    pub(in super::super) const X20: u8 = 20;
    pub(in super::super) const X30: u8 = 30;
    /// As the manual's instruction has it: SP or XZR.
    pub(in super::super) const R31: u8 = 31;
}

/// System registers: op1, CRn, CRm, op2 as `mrs` and `msr` hold them.
pub(super) mod sysreg {
    const fn of(op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
        1 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
    }
    pub(in super::super) const SCTLR_EL1: u32 = of(0, 1, 0, 0);
    pub(in super::super) const CPACR_EL1: u32 = of(0, 1, 0, 2);
    pub(in super::super) const TTBR0_EL1: u32 = of(0, 2, 0, 0);
    pub(in super::super) const TCR_EL1: u32 = of(0, 2, 0, 2);
    pub(in super::super) const SPSR_EL1: u32 = of(0, 4, 0, 0);
    pub(in super::super) const ELR_EL1: u32 = of(0, 4, 0, 1);
    pub(in super::super) const ESR_EL1: u32 = of(0, 5, 2, 0);
    pub(in super::super) const FAR_EL1: u32 = of(0, 6, 0, 0);
    pub(in super::super) const MAIR_EL1: u32 = of(0, 10, 2, 0);
    pub(in super::super) const VBAR_EL1: u32 = of(0, 12, 0, 0);
    pub(in super::super) const TPIDR_EL1: u32 = of(0, 13, 0, 4);
    pub(in super::super) const NZCV: u32 = of(3, 4, 2, 0);
    pub(in super::super) const FPCR: u32 = of(3, 4, 4, 0);
    pub(in super::super) const FPSR: u32 = of(3, 4, 4, 1);
    pub(in super::super) const PMCR_EL0: u32 = of(3, 9, 12, 0);
    pub(in super::super) const PMCNTENSET_EL0: u32 = of(3, 9, 12, 1);
    pub(in super::super) const PMCCNTR_EL0: u32 = of(3, 9, 13, 0);
}

/// Conditions of `b.cond`.
pub(super) const NE: u32 = 1;

const fn three(base: u32, d: u8, n: u8, m: u32) -> u32 {
    base | m << 16 | (n as u32) << 5 | d as u32
}

/// `movz xD, #imm, lsl #(16 * half)`.
pub(super) const fn movz(d: u8, imm: u16, half: u32) -> u32 {
    0xd280_0000 | half << 21 | (imm as u32) << 5 | d as u32
}
/// `movn xD, #imm`.
pub(super) const fn movn(d: u8, imm: u16) -> u32 {
    0x9280_0000 | (imm as u32) << 5 | d as u32
}
const fn movk(d: u8, imm: u16, half: u32) -> u32 {
    0xf280_0000 | half << 21 | (imm as u32) << 5 | d as u32
}
/// `add xD, xN, #imm`, or `sub` where it is negative; 31 is SP. `imm` is less than 4096 either way.
pub(super) const fn add(d: u8, n: u8, imm: i64) -> u32 {
    let base = if imm < 0 { 0xd100_0000 } else { 0x9100_0000 };
    base | (imm.unsigned_abs() as u32 & 0xfff) << 10 | (n as u32) << 5 | d as u32
}
pub(super) const fn sub_register(d: u8, n: u8, m: u8) -> u32 {
    three(0xcb00_0000, d, n, m as u32)
}
pub(super) const fn add_register(d: u8, n: u8, m: u8) -> u32 {
    three(0x8b00_0000, d, n, m as u32)
}
pub(super) const fn compare(n: u8, m: u8) -> u32 {
    three(0xeb00_001f, 0, n, m as u32)
}
const fn compare_imm(n: u8, imm: u32) -> u32 {
    0xf100_001f | imm << 10 | (n as u32) << 5
}
/// `ldr xT, [xN, #offset]`, the offset a multiple of 8.
pub(super) const fn ldr(t: u8, n: u8, offset: i64) -> u32 {
    0xf940_0000 | (offset as u32 / 8) << 10 | (n as u32) << 5 | t as u32
}
pub(super) const fn str(t: u8, n: u8, offset: i64) -> u32 {
    0xf900_0000 | (offset as u32 / 8) << 10 | (n as u32) << 5 | t as u32
}
/// `ldr qT, [xN, #offset]`, the offset a multiple of 16.
pub(super) const fn ldr_q(t: u8, n: u8, offset: i64) -> u32 {
    0x3dc0_0000 | (offset as u32 / 16) << 10 | (n as u32) << 5 | t as u32
}
pub(super) const fn str_q(t: u8, n: u8, offset: i64) -> u32 {
    0x3d80_0000 | (offset as u32 / 16) << 10 | (n as u32) << 5 | t as u32
}
pub(super) const fn mrs(t: u8, register: u32) -> u32 {
    0xd530_0000 | register | t as u32
}
pub(super) const fn msr(register: u32, t: u8) -> u32 {
    0xd510_0000 | register | t as u32
}
/// `b`, or `bl` where it links, over `distance` bytes.
pub(super) const fn branch(distance: i64, links: bool) -> u32 {
    (if links { 0x9400_0000 } else { 0x1400_0000 }) | (distance >> 2) as u32 & 0x03ff_ffff
}
pub(super) const fn branch_if(condition: u32, distance: i64) -> u32 {
    0x5400_0000 | ((distance >> 2) as u32 & 0x7_ffff) << 5 | condition
}
/// `cbnz xT`.
pub(super) const fn branch_nonzero(t: u8, distance: i64) -> u32 {
    0xb500_0000 | ((distance >> 2) as u32 & 0x7_ffff) << 5 | t as u32
}
/// `tbnz xT, #63`.
const fn branch_negative(t: u8, distance: i64) -> u32 {
    0xb7f8_0000 | ((distance >> 2) as u32 & 0x3fff) << 5 | t as u32
}
pub(super) const fn br(n: u8) -> u32 {
    0xd61f_0000 | (n as u32) << 5
}
pub(super) const fn blr(n: u8) -> u32 {
    0xd63f_0000 | (n as u32) << 5
}
pub(super) const fn ret(n: u8) -> u32 {
    0xd65f_0000 | (n as u32) << 5
}
/// `adr xD, .+distance`.
pub(super) const fn adr(d: u8, distance: i64) -> u32 {
    0x1000_0000 | (distance as u32 & 3) << 29 | ((distance >> 2) as u32 & 0x7_ffff) << 5 | d as u32
}
pub(super) const SVC: u32 = 0xd400_0001;
pub(super) const ERET: u32 = 0xd69f_03e0;
pub(super) const ISB: u32 = 0xd503_3fdf;
pub(super) const CLREX: u32 = 0xd503_3f5f;
pub(super) const TLBI_VMALLE1: u32 = 0xd508_871f;
pub(super) const DSB_SY: u32 = 0xd503_3f9f;
/// `cset x0, ne`.
const CSET_X0_NE: u32 = 0x9a9f_07e0;

/// Code at a known address.
#[derive(Debug)]
pub(super) struct Code {
    base: u64,
    pub(super) bytes: Vec<u8>,
}

impl Code {
    pub(super) fn new(base: u64) -> Self {
        Self { base, bytes: Vec::new() }
    }

    /// The address of what comes next.
    pub(super) fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Appends instructions.
    pub(super) fn add<const N: usize>(&mut self, insns: [u32; N]) {
        self.bytes.extend(insns.into_iter().flat_map(u32::to_le_bytes));
    }

    /// Goes on at `address`, with nothing in between.
    pub(super) fn pad_to(&mut self, address: u64) {
        self.bytes.resize((address - self.base) as usize, 0);
    }

    /// Puts a number into a register.
    pub(super) fn number(&mut self, d: u8, value: u64) {
        self.add([movz(d, value as u16, 0)]);
        for half in 1..4 {
            let part = (value >> (16 * half)) as u16;
            if part != 0 {
                self.add([movk(d, part, half)]);
            }
        }
    }

    /// The page of an address, at most 4 GiB away.
    pub(super) fn page(&mut self, d: u8, address: u64) {
        let pages = (address >> 12).wrapping_sub(self.here() >> 12) as u32;
        self.add([0x9000_0000 | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5 | u32::from(d)]);
    }

    /// `b address`.
    pub(super) fn jump(&mut self, address: u64) -> Result<()> {
        let distance = address.wrapping_sub(self.here()).cast_signed();
        if !(-(128 << 20)..128 << 20).contains(&distance) {
            bail!("too much code: {distance} bytes to {address:#x}");
        }
        self.add([branch(distance, false)]);
        Ok(())
    }

    /// A system call.
    pub(super) fn call(&mut self, number: i64) {
        self.number(reg::X8, number as u64);
        self.add([SVC]);
    }

    /// Writes what lies between `start` and `end` to standard output and exits, with 1 if that failed.
    pub(super) fn write_and_exit(&mut self, start: u64, end: u64, write: i64, exit: i64) {
        use reg::{X0, X1, X2, X19, X20};
        self.number(X19, start);
        self.number(X20, end);
        let again = self.here();
        self.number(X0, 1);
        self.add([add(X1, X19, 0), sub_register(X2, X20, X19)]);
        self.call(write);
        self.add([branch_negative(X0, 16), add_register(X19, X19, X0), compare(X19, X20)]);
        let back = again.wrapping_sub(self.here()).cast_signed();
        self.add([branch_if(NE, back), compare(X19, X20), CSET_X0_NE]);
        self.call(exit);
    }

    /// Skips `insns` instructions unless `n` is `value`.
    pub(super) fn unless_equal(&mut self, n: u8, value: u32, insns: i64) {
        self.add([compare_imm(n, value), branch_if(NE, 4 * (insns + 1))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_aarch64::Aarch64;
    use isomer_ir::Guest;

    #[test]
    fn instructions_are_what_they_are_called() {
        let guest = Aarch64::max();
        for (insn, text) in [
            (movz(3, 7, 2), "movz x3, #0x7, lsl #32"),
            (add(31, 5, -40), "sub sp, x5, #0x28"),
            (ldr(2, 9, 1032), "ldr x2, [x9, #1032]"),
            (str_q(4, 9, 528), "str q4, [x9, #528]"),
            (mrs(1, sysreg::FPSR), "mrs x1, fpsr"),
            (msr(sysreg::ELR_EL1, 1), "msr elr_el1, x1"),
            (compare(19, 20), "cmp x19, x20"),
            (CSET_X0_NE, "cset x0, ne"),
            (ret(30), "ret"),
        ] {
            let (found, _) = guest.disassemble(&insn.to_le_bytes(), 0);
            let same = |text: &str| text.replace("movz", "mov").replace("0x28", "40").replace("0x7", "7");
            let mnemonic = |text: &str| text.split(' ').next().unwrap_or_default().replace("movz", "mov");
            assert_eq!(mnemonic(&found), mnemonic(text), "{found}");
            if !text.starts_with("movz") {
                assert_eq!(same(&found), same(text));
            }
        }
    }

    #[test]
    fn addresses_are_relative_to_the_code() -> Result<()> {
        let mut code = Code::new(0x8000_1000);
        code.page(9, 0x8000_0ff8);
        code.jump(0x8000_1000)?;
        assert_eq!(code.bytes[..4], 0xf0ff_ffe9u32.to_le_bytes());
        assert_eq!(code.bytes[4..], 0x17ff_ffffu32.to_le_bytes());
        assert!(code.jump(0x9000_0000).is_err());
        Ok(())
    }
}
