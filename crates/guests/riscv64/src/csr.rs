//! Control and status registers: one table with each one's number, guard, reader and writer (volume II, chapter 2).

use crate::{
    Cpu, Extensions, Privilege, Riscv64, Trap, counters,
    pmp::cfg,
    regs::{PMP_ENTRIES, envcfg, mstatus},
    trap::{self, TIMEBASE_HZ, irq},
};
use isomer_core::clock::ns_to_ticks;
use isomer_ir::{HelperCx, guest::TlbFlush};
use std::sync::LazyLock;

/// One access. The header's instruction count is exact while a helper runs.
pub(crate) struct Access<'a, 'b> {
    cx: &'a mut HelperCx<'b, Riscv64>,
    number: u16,
}

impl Access<'_, '_> {
    fn has(&self, ext: Extensions) -> bool {
        self.cx.guest.ext.contains(ext)
    }
    /// Works on the counters as of the instructions before this one and `more` (1: this one too).
    fn with_counters<R>(&mut self, more: u64, work: impl FnOnce(&Riscv64, &mut Cpu, u64) -> R) -> R {
        let (at, pending) = (self.cx.cpu.header.insns + more, self.cx.cpu.mip);
        let result = work(self.cx.guest, self.cx.cpu, at);
        // One overflowed, or after a write it may sooner than the engine was told.
        if self.cx.cpu.mip != pending || more != 0 && self.cx.cpu.hpm_active != 0 {
            self.cx.env.reconsider();
        }
        result
    }
    fn flush_tlb(&mut self) {
        self.cx.env.flush_tlb(TlbFlush::default());
    }
    /// How far the register's number is from `first`, for arrays of registers.
    fn offset(&self, first: u16) -> usize {
        usize::from(self.number - first)
    }
}

type Read = fn(&mut Access) -> u64;
type Write = fn(&mut Access, u64);
type Guard = fn(&Access) -> bool;

/// A register, or several with consecutive numbers and the same meaning.
struct Csr {
    name: &'static str,
    first: u16,
    count: u16,
    needs: Extensions,
    guard: Guard,
    read: Read,
    write: Write,
}

const fn csr(first: u16, name: &'static str, read: Read, write: Write) -> Csr {
    Csr { name, first, count: 1, needs: Extensions::empty(), guard: |_| true, read, write }
}

impl Csr {
    const fn count(self, count: u16) -> Self {
        Self { count, ..self }
    }
    const fn needs(self, needs: Extensions) -> Self {
        Self { needs, ..self }
    }
    const fn guard(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }
}

/// Writes to it change nothing (read-only zero or constant, WARL).
const IGNORE: Write = |_, _| ();
const ZERO: Read = |_| 0;

/// Reader and writer of a plain field, writable where `$mask` is set.
macro_rules! field {
    ($first:literal $name:ident $mask:expr) => {
        csr(
            $first,
            stringify!($name),
            |a| a.cx.cpu.$name,
            |a, v| {
                let mask: u64 = $mask;
                a.cx.cpu.$name = a.cx.cpu.$name & !mask | v & mask;
            },
        )
    };
}

const MSTATUS_WRITABLE: u64 = mstatus::SIE
    | mstatus::MIE
    | mstatus::SPIE
    | mstatus::MPIE
    | mstatus::SPP
    | mstatus::MPP
    | mstatus::FS
    | mstatus::MPRV
    | mstatus::SUM
    | mstatus::MXR
    | mstatus::TVM
    | mstatus::TW
    | mstatus::TSR;
pub(crate) const SSTATUS_WRITABLE: u64 =
    mstatus::SIE | mstatus::SPIE | mstatus::SPP | mstatus::FS | mstatus::SUM | mstatus::MXR;
/// UXL says that U-mode has 64 bits.
pub(crate) const UXL_64: u64 = 2 << 32;
const SSTATUS_VISIBLE: u64 = SSTATUS_WRITABLE | mstatus::VS | mstatus::XS | mstatus::UXL | mstatus::SD;
/// Exceptions that can be delegated: all but calls from M-mode and the reserved ones.
const MEDELEG: u64 = 0xb3ff;
const SSEED: u64 = 1 << 9;
const USEED: u64 = 1 << 8;
/// `mstateen0` and `sstateen0`: access to the next level's own, and to `senvcfg`.
const STATEEN_SE: u64 = 1 << 63;
const STATEEN_ENVCFG: u64 = 1 << 62;
/// `mcounteren`'s bit of `time`, and of `stimecmp` with it.
const TM: u64 = 1 << 1;

fn read_mstatus(a: &mut Access) -> u64 {
    let status = a.cx.cpu.mstatus & MSTATUS_WRITABLE;
    let dirty = if status & mstatus::FS == mstatus::FS { mstatus::SD } else { 0 };
    status | dirty | UXL_64 | 2 << 34
}

fn write_mstatus(a: &mut Access, value: u64, mask: u64) {
    let old = a.cx.cpu.mstatus;
    let mut new = old & !mask | value & mask;
    if new & mstatus::MPP == 2 << mstatus::MPP_SHIFT {
        new = new & !mstatus::MPP | old & mstatus::MPP;
    }
    let mode = a.cx.cpu.header.mode;
    a.cx.cpu.mstatus = new;
    a.cx.cpu.update_mode();
    let enabled = new & !old & (mstatus::SIE | mstatus::MIE) != 0;
    if a.cx.cpu.header.mode != mode || enabled && a.cx.env.interrupts_waiting() {
        a.cx.env.reconsider();
    }
    if (old ^ new) & mstatus::MXR != 0 {
        a.flush_tlb();
    }
}

/// Keeps the old CBIE where the reserved value 2 is written.
fn write_envcfg(old: u64, value: u64, mask: u64) -> u64 {
    let mask = if value & envcfg::CBIE == 2 << 4 { mask & !envcfg::CBIE } else { mask };
    old & !mask | value & mask
}

fn user_envcfg_mask(a: &Access) -> u64 {
    let when = |ext, bits| if a.has(ext) { bits } else { 0 };
    envcfg::FIOM
        | when(Extensions::ZICBOM, envcfg::CBIE | envcfg::CBCFE)
        | when(Extensions::ZICBOZ, envcfg::CBZE)
}

fn write_menvcfg(a: &mut Access, value: u64) {
    let when = |ext, bits| if a.has(ext) { bits } else { 0 };
    let mask = user_envcfg_mask(a)
        | when(Extensions::SSTC, envcfg::STCE)
        | when(Extensions::SVPBMT, envcfg::PBMTE)
        | when(Extensions::SVADU, envcfg::ADUE);
    a.cx.cpu.menvcfg = write_envcfg(a.cx.cpu.menvcfg, value, mask);
    a.cx.cpu.update_mode();
    a.flush_tlb();
}

fn write_satp(a: &mut Access, value: u64) {
    let supported = match value >> 60 {
        0 => true,
        8 => a.has(Extensions::SV39),
        9 => a.has(Extensions::SV48),
        10 => a.has(Extensions::SV57),
        _ => false,
    };
    // A write with an unsupported mode has no effect at all (volume II, 12.1.11).
    if supported {
        // Addresses without translation count as global. The change takes effect without a fence (volume II, 12.1.11).
        if (a.cx.cpu.satp ^ value) >> 60 != 0 {
            a.flush_tlb();
        }
        a.cx.cpu.satp = value;
        a.cx.env.set_address_space(address_space(value));
    }
}

/// The engine's name for an address space: `satp`'s mode (from bit 16) and ASID (15:0).
pub const fn address_space(satp: u64) -> u64 {
    satp >> 44
}

fn mip(a: &mut Access) -> u64 {
    a.with_counters(0, counters::settle);
    trap::mip(a.cx.guest, a.cx.cpu, a.cx.env.lines(), a.cx.env.now_ns())
}

fn write_mip(a: &mut Access, value: u64, mask: u64) {
    a.cx.cpu.mip = a.cx.cpu.mip & !mask | value & mask;
    a.cx.env.reconsider();
}

fn write_mie(a: &mut Access, value: u64, mask: u64) {
    a.cx.cpu.mie = a.cx.cpu.mie & !mask | value & mask;
    a.cx.env.reconsider();
}

const ALL_IRQS: u64 = irq::LINES | irq::STI | irq::LCOFI;

fn implemented_irqs(a: &Access) -> u64 {
    if a.has(Extensions::SSCOFPMF) { ALL_IRQS } else { ALL_IRQS & !irq::LCOFI }
}

/// Direct or vectored; the reserved modes become direct.
fn vector(value: u64) -> u64 {
    if value & 3 == 1 { value } else { value & !3 }
}

/// Counter `number & 31`: `cycle`, `instret`, and the programmable ones under either of their names.
fn read_counter(a: &mut Access) -> u64 {
    let n = usize::from(a.number & 31);
    a.with_counters(0, |guest, cpu, at| counters::read(guest, cpu, n, at))
}

/// The next instruction reads what is written: the writing one does not count (volume I, 7.1).
fn write_counter(a: &mut Access, value: u64) {
    let n = usize::from(a.number & 31);
    a.with_counters(1, |guest, cpu, at| counters::write(guest, cpu, n, value, at));
}

fn write_mcountinhibit(a: &mut Access, value: u64) {
    a.with_counters(1, |guest, cpu, at| counters::inhibit(guest, cpu, value, at));
}

fn read_mhpmevent(a: &mut Access) -> u64 {
    let n = usize::from(a.number & 31);
    a.with_counters(0, counters::settle);
    a.cx.cpu.mhpmevent[n]
}

fn write_mhpmevent(a: &mut Access, value: u64) {
    let n = usize::from(a.number & 31);
    a.with_counters(1, |guest, cpu, at| counters::set_event(guest, cpu, n, value, at));
}

/// What S-mode may see of it, `mcounteren` says.
fn read_scountovf(a: &mut Access) -> u64 {
    a.with_counters(0, counters::settle);
    let machine = a.cx.cpu.privilege == Privilege::Machine;
    counters::overflows(a.cx.cpu) & if machine { u64::MAX } else { a.cx.cpu.mcounteren }
}

/// May this privilege read the counter at bit `number - 0xc00`?
fn counter_enabled(a: &Access) -> bool {
    let bit = 1u64 << (a.number & 31);
    match a.cx.cpu.privilege {
        Privilege::Machine => true,
        Privilege::Supervisor => a.cx.cpu.mcounteren & bit != 0,
        Privilege::User => a.cx.cpu.mcounteren & a.cx.cpu.scounteren & bit != 0,
    }
}

fn fp_enabled(a: &Access) -> bool {
    a.cx.cpu.mstatus & mstatus::FS != 0
}

fn write_fcsr(a: &mut Access, flags: Option<u64>, frm: Option<u64>) {
    let cpu = &mut a.cx.cpu;
    if let Some(flags) = flags {
        cpu.header.fp_flags = flags as u8 & 0x1f;
    }
    if let Some(frm) = frm {
        cpu.frm = frm as u8 & 7;
    }
    cpu.mstatus |= mstatus::FS;
    cpu.update_mode();
}

fn pmp_locked(cpu: &Cpu, n: usize) -> bool {
    cpu.pmpcfg[n] & cfg::L != 0
}

fn read_pmpcfg(a: &mut Access) -> u64 {
    let first = a.offset(0x3a0) * 4;
    (0..8).map(|i| u64::from(a.cx.cpu.pmpcfg[first + i]) << (8 * i)).sum()
}

fn write_pmpcfg(a: &mut Access, value: u64) {
    let first = a.offset(0x3a0) * 4;
    for (n, byte) in (first..).zip(value.to_le_bytes()) {
        if n >= a.cx.guest.pmp_entries() || pmp_locked(a.cx.cpu, n) {
            continue;
        }
        // W without R is reserved.
        let byte = if byte & (cfg::R | cfg::W) == cfg::W { byte & !cfg::W } else { byte };
        a.cx.cpu.pmpcfg[n] = byte & (cfg::L | cfg::A | cfg::R | cfg::W | cfg::X);
    }
    a.flush_tlb();
}

fn write_pmpaddr(a: &mut Access, value: u64) {
    let n = a.offset(0x3b0);
    let cpu = &mut *a.cx.cpu;
    let next_is_top_of_range =
        n + 1 < PMP_ENTRIES && pmp_locked(cpu, n + 1) && cpu.pmpcfg[n + 1] & cfg::A == 1 << 3;
    if n < a.cx.guest.pmp_entries() && !pmp_locked(cpu, n) && !next_is_top_of_range {
        cpu.pmpaddr[n] = value & ((1 << 54) - 1);
        a.flush_tlb();
    }
}

fn seed_allowed(a: &Access) -> bool {
    match a.cx.cpu.privilege {
        Privilege::Machine => true,
        Privilege::Supervisor => a.cx.cpu.mseccfg & SSEED != 0,
        Privilege::User => a.cx.cpu.mseccfg & USEED != 0,
    }
}

/// State-enable bit `bit` of `mstateen0` binds all but M-mode, where the extension exists.
fn state_enabled(a: &Access, n: usize, bit: u64) -> bool {
    !a.has(Extensions::SMSTATEEN)
        || a.cx.cpu.privilege == Privilege::Machine
        || a.cx.cpu.mstateen[n] & bit != 0
}

/// All registers.
static TABLE: &[Csr] = &[
    // --- floating point
    csr(0x001, "fflags", |a| u64::from(a.cx.cpu.header.fp_flags & 0x1f), |a, v| write_fcsr(a, Some(v), None))
        .needs(Extensions::F)
        .guard(fp_enabled),
    csr(0x002, "frm", |a| u64::from(a.cx.cpu.frm), |a, v| write_fcsr(a, None, Some(v)))
        .needs(Extensions::F)
        .guard(fp_enabled),
    csr(
        0x003,
        "fcsr",
        |a| u64::from(a.cx.cpu.header.fp_flags & 0x1f) | u64::from(a.cx.cpu.frm) << 5,
        |a, v| write_fcsr(a, Some(v), Some(v >> 5)),
    )
    .needs(Extensions::F)
    .guard(fp_enabled),
    // --- entropy: status ES16 and 16 bits
    csr(0x015, "seed", |a| 2 << 30 | a.cx.env.entropy() & 0xffff, IGNORE)
        .needs(Extensions::ZKR)
        .guard(seed_allowed),
    // --- unprivileged counters
    csr(0xc00, "cycle", read_counter, IGNORE).needs(Extensions::ZICNTR).guard(counter_enabled),
    csr(0xc01, "time", |a| ns_to_ticks(a.cx.env.now_ns(), TIMEBASE_HZ), IGNORE)
        .needs(Extensions::ZICNTR)
        .guard(counter_enabled),
    csr(0xc02, "instret", read_counter, IGNORE).needs(Extensions::ZICNTR).guard(counter_enabled),
    csr(0xc03, "hpmcounter3", read_counter, IGNORE).count(29).needs(Extensions::ZIHPM).guard(counter_enabled),
    // --- supervisor
    csr(
        0x100,
        "sstatus",
        |a| read_mstatus(a) & SSTATUS_VISIBLE,
        |a, v| write_mstatus(a, v, SSTATUS_WRITABLE),
    ),
    csr(
        0x104,
        "sie",
        |a| a.cx.cpu.mie & a.cx.cpu.mideleg,
        |a, v| {
            let mask = a.cx.cpu.mideleg;
            write_mie(a, v, mask);
        },
    ),
    csr(0x105, "stvec", |a| a.cx.cpu.stvec, |a, v| a.cx.cpu.stvec = vector(v)),
    field!(0x106 scounteren 0xffff_ffff),
    csr(
        0x10a,
        "senvcfg",
        |a| a.cx.cpu.senvcfg,
        |a, v| {
            a.cx.cpu.senvcfg = write_envcfg(a.cx.cpu.senvcfg, v, user_envcfg_mask(a));
            a.cx.cpu.update_mode();
        },
    )
    .guard(|a| state_enabled(a, 0, STATEEN_ENVCFG)),
    csr(0x10c, "sstateen0", ZERO, IGNORE)
        .count(4)
        .needs(Extensions::SMSTATEEN)
        .guard(|a| state_enabled(a, a.offset(0x10c), STATEEN_SE)),
    field!(0x140 sscratch u64::MAX),
    field!(0x141 sepc !1),
    field!(0x142 scause u64::MAX),
    field!(0x143 stval u64::MAX),
    csr(
        0x144,
        "sip",
        |a| mip(a) & a.cx.cpu.mideleg,
        |a, v| {
            let mask = a.cx.cpu.mideleg & (irq::SSI | irq::LCOFI);
            write_mip(a, v, mask);
        },
    ),
    csr(
        0x14d,
        "stimecmp",
        |a| a.cx.cpu.stimecmp,
        |a, v| {
            a.cx.cpu.stimecmp = v;
            a.cx.env.reconsider();
        },
    )
    .needs(Extensions::SSTC)
    .guard(|a| {
        let cpu = &*a.cx.cpu;
        cpu.privilege == Privilege::Machine || cpu.menvcfg & envcfg::STCE != 0 && cpu.mcounteren & TM != 0
    }),
    csr(0x180, "satp", |a| a.cx.cpu.satp, write_satp)
        .guard(|a| a.cx.cpu.privilege == Privilege::Machine || a.cx.cpu.mstatus & mstatus::TVM == 0),
    csr(0xda0, "scountovf", read_scountovf, IGNORE).needs(Extensions::SSCOFPMF),
    // --- machine information
    csr(0xf11, "mvendorid", ZERO, IGNORE),
    csr(0xf12, "marchid", ZERO, IGNORE),
    csr(0xf13, "mimpid", ZERO, IGNORE),
    csr(0xf14, "mhartid", |a| a.cx.cpu.hartid, IGNORE),
    csr(0xf15, "mconfigptr", ZERO, IGNORE),
    // --- machine trap setup and handling
    csr(0x300, "mstatus", read_mstatus, |a, v| write_mstatus(a, v, MSTATUS_WRITABLE)),
    csr(0x301, "misa", |a| a.cx.cpu.misa, IGNORE),
    field!(0x302 medeleg MEDELEG),
    csr(
        0x303,
        "mideleg",
        |a| a.cx.cpu.mideleg,
        |a, v| {
            a.cx.cpu.mideleg = v & irq::SUPERVISOR & implemented_irqs(a);
        },
    ),
    csr(
        0x304,
        "mie",
        |a| a.cx.cpu.mie,
        |a, v| {
            let mask = implemented_irqs(a);
            write_mie(a, v, mask);
        },
    ),
    csr(0x305, "mtvec", |a| a.cx.cpu.mtvec, |a, v| a.cx.cpu.mtvec = vector(v)),
    field!(0x306 mcounteren 0xffff_ffff),
    csr(0x30a, "menvcfg", |a| a.cx.cpu.menvcfg, write_menvcfg),
    csr(
        0x30c,
        "mstateen0",
        |a| a.cx.cpu.mstateen[a.offset(0x30c)],
        |a, v| {
            let n = a.offset(0x30c);
            a.cx.cpu.mstateen[n] = v & if n == 0 { STATEEN_SE | STATEEN_ENVCFG } else { STATEEN_SE };
        },
    )
    .count(4)
    .needs(Extensions::SMSTATEEN),
    csr(0x320, "mcountinhibit", |a| a.cx.cpu.mcountinhibit, write_mcountinhibit),
    csr(0x323, "mhpmevent3", read_mhpmevent, write_mhpmevent).count(29),
    field!(0x340 mscratch u64::MAX),
    field!(0x341 mepc !1),
    field!(0x342 mcause u64::MAX),
    field!(0x343 mtval u64::MAX),
    csr(0x344, "mip", mip, |a, v| {
        let timer =
            if a.has(Extensions::SSTC) && a.cx.cpu.menvcfg & envcfg::STCE != 0 { 0 } else { irq::STI };
        let mask = (irq::SSI | irq::SEI | irq::LCOFI | timer) & implemented_irqs(a);
        write_mip(a, v, mask);
    }),
    // --- physical memory protection; odd configuration registers do not exist on RV64
    csr(0x3a0, "pmpcfg0", read_pmpcfg, write_pmpcfg).count(16).guard(|a| a.number % 2 == 0),
    csr(0x3b0, "pmpaddr0", |a| a.cx.cpu.pmpaddr[a.offset(0x3b0)], write_pmpaddr).count(64),
    csr(
        0x747,
        "mseccfg",
        |a| a.cx.cpu.mseccfg,
        |a, v| {
            a.cx.cpu.mseccfg = if a.has(Extensions::ZKR) { v & (SSEED | USEED) } else { 0 };
        },
    ),
    // --- debug triggers: tdata1 of type 0 says that there is none (Debug Specification, 5.7)
    csr(0x7a0, "tselect", ZERO, IGNORE),
    csr(0x7a1, "tdata1", ZERO, IGNORE).count(3),
    csr(0x7a4, "tinfo", |_| 1, IGNORE),
    // --- machine counters
    csr(0xb00, "mcycle", read_counter, write_counter),
    csr(0xb02, "minstret", read_counter, write_counter),
    csr(0xb03, "mhpmcounter3", read_counter, write_counter).count(29),
];

/// Index of each number in [`TABLE`].
static INDEX: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut index = vec![u8::MAX; 4096].into_boxed_slice();
    for (entry, csr) in TABLE.iter().enumerate() {
        (csr.first..csr.first + csr.count).for_each(|number| index[usize::from(number)] = entry as u8);
    }
    index
});

fn find(number: u16) -> Option<&'static Csr> {
    TABLE.get(usize::from(INDEX[usize::from(number & 0xfff)]))
}

/// A register's name for people; arrays count on from their first.
pub(crate) fn name(number: u16) -> Option<String> {
    let csr = find(number)?;
    if csr.count == 1 {
        return Some(csr.name.to_owned());
    }
    let stem = csr.name.trim_end_matches(|c: char| c.is_ascii_digit());
    let base: u16 = csr.name[stem.len()..].parse().unwrap_or(0);
    Some(format!("{stem}{}", base + number - csr.first))
}

/// What to do with the value written.
#[derive(Clone, Copy)]
pub(crate) enum Update {
    /// Read only.
    None,
    /// Write it.
    Replace(u64),
    /// Set its bits.
    Set(u64),
    /// Clear its bits.
    Clear(u64),
}

/// A CSR instruction: reads if `read`, then updates. Gives the old value (0 when not read).
pub(crate) fn access(
    cx: &mut HelperCx<'_, Riscv64>,
    insn: u64,
    read: bool,
    update: Update,
) -> Result<u64, Trap> {
    let number = (insn >> 20) as u16 & 0xfff;
    let illegal = Trap::illegal(insn);
    let writes = !matches!(update, Update::None);
    let csr = find(number).ok_or(illegal)?;
    let allowed = cx.cpu.privilege as u16 >= number >> 8 & 3 && !(writes && number >> 10 == 3);
    // Reading the entropy source without a write is reserved (volume I, Zkr).
    if !allowed || !cx.guest.ext.contains(csr.needs) || (number == 0x015 && !writes) {
        return Err(illegal);
    }
    let mut a = Access { cx, number };
    if !(csr.guard)(&a) {
        return Err(illegal);
    }
    let modifies = matches!(update, Update::Set(_) | Update::Clear(_));
    let mut old = if read || modifies { (csr.read)(&mut a) } else { 0 };
    // Read-modify-write of `mip` sees software's SEIP, not the line (volume II, 3.1.9).
    let base = if number == 0x344 && modifies { old & !irq::SEI | a.cx.cpu.mip & irq::SEI } else { old };
    match update {
        Update::None => {}
        Update::Replace(value) => (csr.write)(&mut a, value),
        Update::Set(bits) => (csr.write)(&mut a, base | bits),
        Update::Clear(bits) => (csr.write)(&mut a, base & !bits),
    }
    if !read {
        old = 0;
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_overlap() {
        let mut seen = std::collections::HashSet::new();
        for csr in TABLE {
            for number in csr.first..csr.first + csr.count {
                assert!(seen.insert(number), "{number:#x} twice");
            }
        }
        assert!(TABLE.len() < usize::from(u8::MAX));
    }

    #[test]
    fn names_count_on() {
        assert_eq!(name(0x305).as_deref(), Some("mtvec"));
        assert_eq!(name(0x3b5).as_deref(), Some("pmpaddr5"));
        assert_eq!(name(0xb1f).as_deref(), Some("mhpmcounter31"));
        assert_eq!(name(0x7ff), None);
    }
}
