//! CPU models: which extensions a hart has.

use crate::Cpu;
use bitflags::bitflags;

bitflags! {
    /// Extensions of RV64I, by the manual's names.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Extensions: u128 {
        /// Base integer instructions.
        const I = 1;
        /// Multiplication and division.
        const M = 1 << 1;
        /// Atomics.
        const A = 1 << 2;
        /// Single precision.
        const F = 1 << 3;
        /// Double precision.
        const D = 1 << 4;
        /// Compressed instructions.
        const C = 1 << 5;
        /// Supervisor mode.
        const S = 1 << 6;
        /// User mode.
        const U = 1 << 7;
        /// CSR instructions.
        const ZICSR = 1 << 8;
        /// `fence.i`.
        const ZIFENCEI = 1 << 9;
        /// `cycle`, `time`, `instret`.
        const ZICNTR = 1 << 10;
        /// Performance counters.
        const ZIHPM = 1 << 11;
        /// Address generation.
        const ZBA = 1 << 12;
        /// Basic bit manipulation.
        const ZBB = 1 << 13;
        /// Carry-less multiplication.
        const ZBC = 1 << 14;
        /// Single-bit instructions.
        const ZBS = 1 << 15;
        /// Bit manipulation for cryptography.
        const ZBKB = 1 << 16;
        /// Carry-less multiplication for cryptography.
        const ZBKC = 1 << 17;
        /// Crossbar permutations.
        const ZBKX = 1 << 18;
        /// Integer conditional operations.
        const ZICOND = 1 << 19;
        /// Additional floating-point instructions.
        const ZFA = 1 << 20;
        /// Half precision.
        const ZFH = 1 << 21;
        /// Half precision conversions only; part of Zfh.
        const ZFHMIN = 1 << 22;
        /// Cache-block management.
        const ZICBOM = 1 << 23;
        /// Cache-block prefetch hints.
        const ZICBOP = 1 << 24;
        /// Cache-block zero.
        const ZICBOZ = 1 << 25;
        /// Wait on reservation set.
        const ZAWRS = 1 << 26;
        /// Compare-and-swap.
        const ZACAS = 1 << 27;
        /// Additional compressed instructions.
        const ZCB = 1 << 28;
        /// Compressed may-be-operations.
        const ZCMOP = 1 << 29;
        /// May-be-operations.
        const ZIMOP = 1 << 30;
        /// AES decryption.
        const ZKND = 1 << 31;
        /// AES encryption.
        const ZKNE = 1 << 32;
        /// SHA-2.
        const ZKNH = 1 << 33;
        /// SM4.
        const ZKSED = 1 << 34;
        /// SM3.
        const ZKSH = 1 << 35;
        /// Entropy source.
        const ZKR = 1 << 36;
        /// Pause hint.
        const ZIHINTPAUSE = 1 << 37;
        /// Non-temporal locality hints.
        const ZIHINTNTL = 1 << 38;
        /// Page-based 39-bit virtual memory.
        const SV39 = 1 << 39;
        /// 48-bit.
        const SV48 = 1 << 40;
        /// 57-bit.
        const SV57 = 1 << 41;
        /// Fine-grained TLB invalidation.
        const SVINVAL = 1 << 42;
        /// Naturally aligned power-of-two translations.
        const SVNAPOT = 1 << 43;
        /// Page-based memory types.
        const SVPBMT = 1 << 44;
        /// Page faults for clear A and D bits.
        const SVADE = 1 << 45;
        /// Hardware A and D updates, switchable.
        const SVADU = 1 << 46;
        /// Supervisor timer compare.
        const SSTC = 1 << 47;
        /// Counter overflow and mode filtering.
        const SSCOFPMF = 1 << 48;
        /// State enable.
        const SMSTATEEN = 1 << 49;
    }
}

/// The riscv64 guest: a CPU model.
#[derive(Clone, Debug)]
pub struct Riscv64 {
    /// What the model implements.
    pub ext: Extensions,
    /// The model's name.
    pub name: &'static str,
}

/// Extension names as the device tree spells them (`riscv,isa-extensions`), in canonical order.
const NAMES: &[(Extensions, &str)] = &[
    (Extensions::I, "i"),
    (Extensions::M, "m"),
    (Extensions::A, "a"),
    (Extensions::F, "f"),
    (Extensions::D, "d"),
    (Extensions::C, "c"),
    (Extensions::ZICBOM, "zicbom"),
    (Extensions::ZICBOP, "zicbop"),
    (Extensions::ZICBOZ, "zicboz"),
    (Extensions::ZICNTR, "zicntr"),
    (Extensions::ZICOND, "zicond"),
    (Extensions::ZICSR, "zicsr"),
    (Extensions::ZIFENCEI, "zifencei"),
    (Extensions::ZIHINTNTL, "zihintntl"),
    (Extensions::ZIHINTPAUSE, "zihintpause"),
    (Extensions::ZIHPM, "zihpm"),
    (Extensions::ZIMOP, "zimop"),
    (Extensions::ZACAS, "zacas"),
    (Extensions::ZAWRS, "zawrs"),
    (Extensions::ZFA, "zfa"),
    (Extensions::ZFH, "zfh"),
    (Extensions::ZFHMIN, "zfhmin"),
    (Extensions::ZCB, "zcb"),
    (Extensions::ZCMOP, "zcmop"),
    (Extensions::ZBA, "zba"),
    (Extensions::ZBB, "zbb"),
    (Extensions::ZBC, "zbc"),
    (Extensions::ZBKB, "zbkb"),
    (Extensions::ZBKC, "zbkc"),
    (Extensions::ZBKX, "zbkx"),
    (Extensions::ZBS, "zbs"),
    (Extensions::ZKND, "zknd"),
    (Extensions::ZKNE, "zkne"),
    (Extensions::ZKNH, "zknh"),
    (Extensions::ZKR, "zkr"),
    (Extensions::ZKSED, "zksed"),
    (Extensions::ZKSH, "zksh"),
    (Extensions::SMSTATEEN, "smstateen"),
    (Extensions::SSCOFPMF, "sscofpmf"),
    (Extensions::SSTC, "sstc"),
    (Extensions::SVADE, "svade"),
    (Extensions::SVADU, "svadu"),
    (Extensions::SVINVAL, "svinval"),
    (Extensions::SVNAPOT, "svnapot"),
    (Extensions::SVPBMT, "svpbmt"),
];

impl Riscv64 {
    /// RV64GC with the bit manipulation and timer extensions every recent core has.
    pub fn rv64() -> Self {
        let ext = Self::gc()
            | Extensions::ZBA
            | Extensions::ZBB
            | Extensions::ZBS
            | Extensions::ZIHPM
            | Extensions::ZIHINTPAUSE
            | Extensions::SV48
            | Extensions::SSTC
            | Extensions::SVADU;
        Self { ext, name: "rv64" }
    }

    /// The mandatory extensions of the RVA22S64 profile.
    pub fn rva22() -> Self {
        let ext = Self::gc()
            | Extensions::ZBA
            | Extensions::ZBB
            | Extensions::ZBS
            | Extensions::ZIHPM
            | Extensions::ZIHINTPAUSE
            | Extensions::ZICBOM
            | Extensions::ZICBOP
            | Extensions::ZICBOZ
            | Extensions::ZFHMIN
            | Extensions::SVPBMT
            | Extensions::SVINVAL
            | Extensions::SVADE;
        Self { ext, name: "rva22" }
    }

    /// Everything there is.
    pub fn max() -> Self {
        Self { ext: Extensions::all(), name: "max" }
    }

    fn gc() -> Extensions {
        Extensions::I
            | Extensions::M
            | Extensions::A
            | Extensions::F
            | Extensions::D
            | Extensions::C
            | Extensions::S
            | Extensions::U
            | Extensions::ZICSR
            | Extensions::ZIFENCEI
            | Extensions::ZICNTR
            | Extensions::SV39
    }

    /// The models users can name.
    pub const MODELS: &'static [&'static str] = &["rv64", "rva22", "max"];

    /// The model called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "rv64" => Some(Self::rv64()),
            "rva22" => Some(Self::rva22()),
            "max" => Some(Self::max()),
            _ => None,
        }
    }

    /// PMP entries that exist.
    pub const fn pmp_entries(&self) -> usize {
        16
    }

    /// `riscv,isa-extensions`.
    pub fn isa_extensions(&self) -> Vec<&'static str> {
        NAMES.iter().filter(|(ext, _)| self.ext.contains(*ext)).map(|(_, name)| *name).collect()
    }

    /// `riscv,isa`: "rv64imafdc_zicbom_...".
    pub fn isa_string(&self) -> String {
        let (single, multi): (Vec<_>, Vec<_>) =
            self.isa_extensions().into_iter().partition(|name| name.len() == 1);
        format!("rv64{}_{}", single.concat(), multi.join("_"))
    }

    /// `mmu-type`: the widest translation mode.
    pub fn mmu_type(&self) -> &'static str {
        if self.ext.contains(Extensions::SV57) {
            "riscv,sv57"
        } else if self.ext.contains(Extensions::SV48) {
            "riscv,sv48"
        } else {
            "riscv,sv39"
        }
    }

    /// A hart as reset leaves it (volume II, 3.4), at `pc`.
    pub fn reset(&self, hartid: u64, pc: u64) -> Cpu {
        let letters = [
            (Extensions::A, 'A'),
            (Extensions::C, 'C'),
            (Extensions::D, 'D'),
            (Extensions::F, 'F'),
            (Extensions::I, 'I'),
            (Extensions::M, 'M'),
            (Extensions::S, 'S'),
            (Extensions::U, 'U'),
        ];
        let present = letters.into_iter().filter(|(ext, _)| self.ext.contains(*ext));
        let misa = present.fold(2 << 62, |misa, (_, letter)| misa | 1 << (letter as u8 - b'A'));
        let mut cpu = Cpu { hartid, misa, stimecmp: u64::MAX, ..Cpu::default() };
        cpu.header.pc = pc;
        cpu.update_mode();
        cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_told_apart() {
        for name in Riscv64::MODELS {
            assert_eq!(Riscv64::by_name(name).map(|model| model.name), Some(*name));
        }
        assert!(Riscv64::by_name("pentium").is_none());
        assert!(Riscv64::rva22().isa_string().starts_with("rv64imafdc_zicbom_zicbop_zicboz_zicntr_"));
        assert_eq!(Riscv64::max().reset(3, 0x1000).misa, 1 << 63 | 0x14112d);
    }

    #[test]
    fn every_named_extension_is_distinct() {
        let all = NAMES.iter().fold(Extensions::empty(), |seen, (ext, name)| {
            assert!(!seen.intersects(*ext), "{name}");
            seen | *ext
        });
        let unnamed = Extensions::all() - all;
        assert_eq!(
            unnamed,
            Extensions::S | Extensions::U | Extensions::SV39 | Extensions::SV48 | Extensions::SV57
        );
    }
}
