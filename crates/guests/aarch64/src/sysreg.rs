//! Accesses to system registers: which register an encoding names, who may, what traps (the manual, C5.1.3, D1.3.5 and
//! D8.14 for hosts). The registers themselves are rows of [`crate::sysreg_table`] and its neighbours.

use crate::{
    Aarch64, Cpu, Features, Trap, pmu, sysreg_debug, sysreg_id, sysreg_interrupts, sysreg_table,
    sysreg_timer,
    system::hcr,
    trap::{ec, syndrome},
};
use isomer_ir::{HelperCx, guest::TlbFlush};
use std::sync::LazyLock;

/// A register's number: op0, op1, CRn, CRm and op2 as in bits 20:5 of `mrs` and `msr`.
pub(crate) const fn key(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// The number in an instruction.
pub(crate) const fn key_of(insn: u64) -> u16 {
    (insn >> 5) as u16
}

pub(crate) const fn op1(key: u16) -> u16 {
    key >> 11 & 7
}
const fn with_op1(key: u16, op1: u16) -> u16 {
    key & !(7 << 11) | op1 << 11
}
const fn crn(key: u16) -> u16 {
    key >> 7 & 15
}
const fn crm(key: u16) -> u16 {
    key >> 3 & 15
}

/// One access.
pub(crate) struct Access<'a, 'b> {
    pub(crate) cx: &'a mut HelperCx<'b, Aarch64>,
    /// The register, after a host's redirections.
    pub(crate) key: u16,
    /// Its place in an array of registers.
    pub(crate) index: usize,
    /// `msr`, not `mrs`.
    pub(crate) is_write: bool,
}

impl Access<'_, '_> {
    pub(crate) fn cpu(&mut self) -> &mut Cpu {
        self.cx.cpu
    }
    pub(crate) fn el(&self) -> u8 {
        self.cx.cpu.el
    }
    pub(crate) fn has(&self, feature: Features) -> bool {
        self.cx.guest.has(feature)
    }
    pub(crate) fn now_ns(&self) -> u64 {
        self.cx.env.now_ns()
    }
    /// What the mode word is made of has changed.
    pub(crate) fn update_mode(&mut self) {
        self.cx.cpu.update_mode();
    }
    pub(crate) fn flush_tlb(&mut self) {
        self.cx.env.flush_tlb(TlbFlush::default());
    }
    /// What selects cached translations may have changed.
    pub(crate) fn select_address_space(&mut self) {
        self.cx.env.set_address_space(address_space(self.cx.cpu));
    }
    /// Tells the interrupt controller of timers and counters, and looks at interrupts before the next block.
    pub(crate) fn lines_changed(&mut self) {
        let now = self.now_ns();
        crate::interrupts::tell(self.cx.guest, self.cx.cpu, now);
        self.cx.env.reconsider();
    }
    /// Brings the performance monitors up to date.
    pub(crate) fn settle(&mut self) {
        let at = self.cx.cpu.header.insns;
        pmu::settle(self.cx.cpu, at);
    }
}

/// May it be accessed?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Yes.
    Allow,
    /// There is no such register here.
    Undefined,
    /// It traps to EL1 (EL2 under TGE).
    Trap,
    /// It traps to EL2.
    TrapToEl2,
}

impl Verdict {
    /// Undefined unless `condition`.
    pub(crate) const fn exists(condition: bool) -> Self {
        if condition { Self::Allow } else { Self::Undefined }
    }
    /// Trapped to EL1 unless `condition`.
    pub(crate) const fn enabled(condition: bool) -> Self {
        if condition { Self::Allow } else { Self::Trap }
    }
    /// Trapped to EL2 if `condition`.
    pub(crate) const fn intercepted(condition: bool) -> Self {
        if condition { Self::TrapToEl2 } else { Self::Allow }
    }
    /// This verdict if it is one, else the other.
    pub(crate) fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Allow { other() } else { self }
    }
}

pub(crate) type Read = fn(&mut Access<'_, '_>) -> u64;
pub(crate) type Write = fn(&mut Access<'_, '_>, u64);
pub(crate) type Guard = fn(&Access<'_, '_>) -> Verdict;

/// A register, or several of the same meaning.
pub(crate) struct Register {
    pub(crate) name: &'static str,
    pub(crate) key: u16,
    /// How many, and the distance of their numbers.
    pub(crate) count: u16,
    pub(crate) step: u16,
    pub(crate) needs: Features,
    /// The lowest level that may access it.
    pub(crate) level: u8,
    /// Bits of HCR_EL2 of which one makes EL1's (and EL0's) reads, and writes, trap.
    pub(crate) read_trap: u64,
    pub(crate) write_trap: u64,
    pub(crate) guard: Guard,
    pub(crate) read: Option<Read>,
    pub(crate) write: Option<Write>,
}

impl Register {
    pub(crate) const fn new(name: &'static str, key: u16, read: Option<Read>, write: Option<Write>) -> Self {
        let level = match op1(key) {
            3 => 0,
            4 | 5 => 2,
            6 | 7 => 3,
            _ => 1,
        };
        Self {
            name,
            key,
            count: 1,
            step: 1,
            needs: Features::empty(),
            level,
            read_trap: 0,
            write_trap: 0,
            guard: |_| Verdict::Allow,
            read,
            write,
        }
    }
    pub(crate) const fn array(self, count: u16, step: u16) -> Self {
        Self { count, step, ..self }
    }
    pub(crate) const fn needs(self, needs: Features) -> Self {
        Self { needs, ..self }
    }
    pub(crate) const fn traps(self, bits: u64) -> Self {
        Self { read_trap: bits, write_trap: bits, ..self }
    }
    /// Accessible from another level on than its number says; its guard decides.
    pub(crate) const fn at_level(self, level: u8) -> Self {
        Self { level, ..self }
    }
    /// HCR_EL2.TRVM and TVM: virtual memory controls.
    pub(crate) const fn memory_control(self) -> Self {
        Self { read_trap: hcr::TRVM, write_trap: hcr::TVM, ..self }
    }
    pub(crate) const fn guard(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// All its numbers.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u16> + use<> {
        let (first, step) = (self.key, self.step);
        (0..self.count).map(move |n| first + n * step)
    }
}

/// A register that is a field of the CPU: `field!("VBAR_EL1" (3, 0, 12, 0, 0) sys.vbar[1] = !0x7ff)`.
macro_rules! field {
    ($name:literal ($($number:literal),*) $($place:ident).+ $([$index:literal])? = $mask:expr) => {
        $crate::sysreg::Register::new(
            $name,
            $crate::sysreg::key($($number),*),
            Some(|a| a.cx.cpu.$($place).+ $([$index])?),
            Some(|a, value| a.cx.cpu.$($place).+ $([$index])? = value & $mask),
        )
    };
}
pub(crate) use field;

/// A register that only reads: `constant!("MIDR_EL1" (3, 0, 0, 0, 0) |a| ...)`.
macro_rules! constant {
    ($name:literal ($($number:literal),*) $read:expr) => {
        $crate::sysreg::Register::new($name, $crate::sysreg::key($($number),*), Some($read), None)
    };
}
pub(crate) use constant;

/// A register with functions of its own.
macro_rules! special {
    ($name:literal ($($number:literal),*) $read:expr, $write:expr) => {
        $crate::sysreg::Register::new($name, $crate::sysreg::key($($number),*), Some($read), Some($write))
    };
}
pub(crate) use special;

/// Every table.
pub(crate) fn all() -> impl Iterator<Item = &'static Register> {
    sysreg_table::TABLE
        .iter()
        .chain(sysreg_id::TABLE)
        .chain(sysreg_timer::TABLE)
        .chain(sysreg_debug::TABLE)
        .chain(sysreg_interrupts::TABLE)
}

/// Each number's place in [`all`] plus one; op0 is 2 or 3, so the highest bit says nothing.
static INDEX: LazyLock<(Vec<&'static Register>, Box<[u16]>)> = LazyLock::new(|| {
    let registers: Vec<_> = all().collect();
    let mut index = vec![0; 1 << 15].into_boxed_slice();
    for (place, register) in registers.iter().enumerate() {
        register.keys().for_each(|key| index[usize::from(key & 0x7fff)] = place as u16 + 1);
    }
    (registers, index)
});

pub(crate) fn find(key: u16) -> Option<&'static Register> {
    let (registers, index) = &*INDEX;
    let place = usize::from(index[usize::from(key & 0x7fff)]).checked_sub(1)?;
    registers.get(place).copied()
}

/// A register's name in lower case, as assemblers take it: unknown ones by their fields.
pub(crate) fn name(key: u16) -> String {
    let host_alias = op1(key) == 5 && (is_redirected(key) || is_timer(key));
    let looked_up = if host_alias { behind_alias(key) } else { key };
    let Some(register) = find(looked_up) else {
        return format!("s{}_{}_c{}_c{}_{}", key >> 14, op1(key), crn(key), crm(key), key & 7);
    };
    let number = (looked_up - register.key) / register.step;
    let name = register.name.to_lowercase();
    match (host_alias, name.split_once("<n>")) {
        (true, _) => {
            let stem = name.rsplit_once('_').map_or(name.as_str(), |(stem, _)| stem);
            let level = if name.ends_with("el0") { "02" } else { "12" };
            format!("{stem}_el{level}")
        }
        (false, Some((before, after))) => format!("{before}{number}{after}"),
        (false, None) => name,
    }
}

/// EL1's timers as they have names of their own at EL2.
const fn is_timer(key: u16) -> bool {
    crn(key) == 14 && matches!(crm(key), 2 | 3)
}

/// What an `_EL12` or `_EL02` name means.
const fn behind_alias(key: u16) -> u16 {
    with_op1(key, if is_timer(key) { 3 } else { 0 })
}

/// EL1 registers whose accesses by a host go to the EL2 register (the manual, D8.14, table of redirections).
const fn is_redirected(key: u16) -> bool {
    matches!(
        (crn(key), crm(key), key & 7),
        (1, 0, 0 | 2)
            | (2, 0, 0..=2)
            | (4, 0, 0 | 1)
            | (5, 1, 0 | 1)
            | (5, 2, 0)
            | (6, 0, 0)
            | (10, 2 | 3, 0)
            | (12, 0, 0)
            | (13, 0, 1)
            | (14, 1, 0)
    )
}

/// CPACR_EL1 and CPTR_EL2, whose numbers do not match.
const CPACR_EL1: u16 = key(3, 0, 1, 0, 2);
const CPTR_EL2: u16 = key(3, 4, 1, 1, 2);

/// The register that a number means at this level: a host's EL1 names are its EL2 registers.
fn redirect(cpu: &Cpu, key: u16) -> Option<u16> {
    let host = cpu.el == 2 && cpu.sys.e2h();
    match (key >> 14, op1(key)) {
        (3, 0) if host && key == CPACR_EL1 => Some(CPTR_EL2),
        (3, 0) if host && is_redirected(key) => Some(with_op1(key, 4)),
        (3, 3) if is_timer(key) && (host || cpu.el == 0 && cpu.sys.in_host()) => Some(with_op1(key, 4)),
        (3, 5) if host => Some(behind_alias(key)),
        (3, 5) => None,
        _ => Some(key),
    }
}

/// The syndrome of a trapped access.
fn trapped(insn: u64) -> Trap {
    let field = |from: u32, to: u32, width: u32| ((insn >> from) as u32 & ((1 << width) - 1)) << to;
    let iss = field(19, 20, 2)
        | field(5, 17, 3)
        | field(16, 14, 3)
        | field(12, 10, 4)
        | field(0, 5, 5)
        | field(8, 1, 4)
        | field(21, 0, 1);
    Trap::new(syndrome(ec::SYSREG, iss))
}

impl Verdict {
    /// As a result, for the access by `insn`.
    pub(crate) fn result(self, insn: u64) -> Result<(), Trap> {
        match self {
            Self::Allow => Ok(()),
            Self::Undefined => Err(Trap::undefined()),
            Self::Trap => Err(trapped(insn)),
            Self::TrapToEl2 => Err(Trap { to_el2: true, ..trapped(insn) }),
        }
    }
}

/// The space of identification registers, of which EL0's reads trap as such with FEAT_IDST.
fn is_id_space(key: u16) -> bool {
    key >> 14 == 3 && matches!(op1(key), 0 | 1 | 3) && crn(key) == 0 && crm(key) <= 7
}

/// Identification registers that are not allocated read as zero (the manual, D24.1.2).
fn is_reserved_id(key: u16) -> bool {
    key >> 14 == 3 && op1(key) == 0 && crn(key) == 0 && (1..=7).contains(&crm(key))
}

/// Registers of the implementation's own (the manual, D22.3.2): named cores have some, which do nothing here.
fn is_implementation_defined(key: u16) -> bool {
    key >> 14 == 3 && matches!(crn(key), 11 | 15)
}

/// An access to a number that no table has.
fn unknown(cx: &HelperCx<'_, Aarch64>, key: u16, is_write: bool) -> Verdict {
    let cpu = &*cx.cpu;
    let bits = cpu.sys.hcr();
    if is_reserved_id(key) && !is_write {
        return match cpu.el {
            0 if cx.guest.has(Features::IDST) => Verdict::Trap,
            0 => Verdict::Undefined,
            1 => Verdict::intercepted(bits & hcr::TID3 != 0),
            _ => Verdict::Allow,
        };
    }
    let own = is_implementation_defined(key) && cx.guest.has_own_registers() && cpu.el > 0;
    if own && cpu.el == 1 && bits & hcr::TIDCP != 0 {
        return Verdict::TrapToEl2;
    }
    Verdict::exists(own && op1(key) != 6 && (op1(key) != 4 || cpu.el == 2))
}

/// `mrs`, or `msr` of a register if `write` is given.
pub(crate) fn access(cx: &mut HelperCx<'_, Aarch64>, insn: u64, write: Option<u64>) -> Result<u64, Trap> {
    let is_write = write.is_some();
    if cx.cpu.el == 0 && op1(key_of(insn)) >= 4 {
        return Err(Trap::undefined());
    }
    let key = redirect(cx.cpu, key_of(insn)).ok_or(Trap::undefined())?;
    let Some(register) = find(key).filter(|register| cx.guest.has(register.needs)) else {
        return unknown(cx, key, is_write).result(insn).map(|()| 0);
    };
    let index = usize::from((key - register.key) / register.step);
    let mut a = Access { cx, key, index, is_write };
    verdict(&a, register).result(insn)?;
    let undefined = Trap::undefined();
    match write {
        None => Ok(register.read.ok_or(undefined)?(&mut a)),
        Some(value) => {
            register.write.ok_or(undefined)?(&mut a, value);
            Ok(0)
        }
    }
}

fn verdict(a: &Access<'_, '_>, register: &Register) -> Verdict {
    let cpu = &*a.cx.cpu;
    let there = if a.is_write { register.write.is_some() } else { register.read.is_some() };
    if !there {
        return Verdict::Undefined;
    }
    if cpu.el < register.level {
        let reads_id = is_id_space(a.key) && cpu.el == 0 && !a.is_write && a.has(Features::IDST);
        return if reads_id { Verdict::Trap } else { Verdict::Undefined };
    }
    let bits = if a.is_write { register.write_trap } else { register.read_trap };
    // EL0's own refusals come before EL2's.
    let user = if cpu.el == 0 { (register.guard)(a) } else { Verdict::Allow };
    user.or(|| Verdict::intercepted(cpu.el < 2 && cpu.sys.hcr() & bits != 0)).or(|| (register.guard)(a))
}

/// The number that names this PE's translations to the TLB: ASIDs, VMID, and which stages and regimes there are.
pub(crate) fn address_space(cpu: &Cpu) -> u64 {
    let sys = &cpu.sys;
    let asid = |el: usize| {
        let tcr = sys.tcr[el];
        let ttbr = if tcr & 1 << 22 != 0 { sys.ttbr1[el] } else { sys.ttbr0[el] };
        ttbr >> 48 & if tcr & 1 << 36 != 0 { 0xffff } else { 0xff }
    };
    if !sys.has_el2 {
        return asid(1);
    }
    let bits = sys.hcr;
    let stage2 = sys.hcr() & (hcr::VM | hcr::DC) != 0;
    let vmid = if stage2 { vmid(cpu) } else { 0 };
    let host = if bits & hcr::E2H != 0 { asid(2) } else { 0 };
    let flag = |condition: bool, n: u32| u64::from(condition) << n;
    asid(1)
        | vmid << 16
        | host << 32
        | flag(stage2, 48)
        | flag(bits & hcr::E2H != 0, 49)
        | flag(bits & hcr::TGE != 0, 50)
        | flag(bits & hcr::DC != 0, 51)
}

/// VTTBR_EL2.VMID.
fn vmid(cpu: &Cpu) -> u64 {
    cpu.sys.vttbr >> 48 & if cpu.sys.vtcr & 1 << 19 != 0 { 0xffff } else { 0xff }
}

/// The number of the address space that is like the present one with another ASID in the regime of `el`.
pub(crate) fn address_space_with(cpu: &Cpu, el: usize, asid: u64) -> u64 {
    let (shift, tcr) = (if el == 2 { 32 } else { 0 }, cpu.sys.tcr[el]);
    let asid = asid & if tcr & 1 << 36 != 0 { 0xffff } else { 0xff };
    address_space(cpu) & !(0xffff << shift) | asid << shift
}

#[cfg(test)]
#[path = "sysreg_tests.rs"]
mod tests;
