//! CPU models: identification registers, the features they announce, and the state after reset.
//!
//! Registers of named cores are those of their technical reference manuals, less what is not modelled: AArch32, EL3,
//! statistical profiling, trace.

use crate::{Cpu, interrupts::CpuInterface, pmu, system::sctlr};
use bitflags::bitflags;
use std::sync::{Arc, atomic::AtomicBool};

bitflags! {
    /// Architecture features that change which instructions and system registers there are (the manual, A2).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Features: u128 {
        /// FEAT_AES: AESE and its kin.
        const AES = 1;
        /// FEAT_PMULL: 64-bit polynomial multiplication.
        const PMULL = 1 << 1;
        /// FEAT_SHA1.
        const SHA1 = 1 << 2;
        /// FEAT_SHA256.
        const SHA256 = 1 << 3;
        /// FEAT_SHA512.
        const SHA512 = 1 << 4;
        /// FEAT_SHA3.
        const SHA3 = 1 << 5;
        /// FEAT_CRC32.
        const CRC32 = 1 << 6;
        /// FEAT_LSE: atomic read-modify-write instructions.
        const LSE = 1 << 7;
        /// FEAT_LSE2: single-copy atomicity inside 16 bytes.
        const LSE2 = 1 << 8;
        /// FEAT_LRCPC: LDAPR.
        const LRCPC = 1 << 9;
        /// FEAT_LRCPC2: LDAPUR, STLUR.
        const LRCPC2 = 1 << 10;
        /// FEAT_LRCPC3: LDIAPP, STILP, and SIMD forms.
        const LRCPC3 = 1 << 11;
        /// FEAT_RDM: SQRDMLAH, SQRDMLSH.
        const RDM = 1 << 12;
        /// FEAT_DotProd.
        const DOTPROD = 1 << 13;
        /// FEAT_FP16: half-precision arithmetic.
        const FP16 = 1 << 14;
        /// FEAT_FHM: FMLAL, FMLSL.
        const FHM = 1 << 15;
        /// FEAT_BF16.
        const BF16 = 1 << 16;
        /// FEAT_I8MM.
        const I8MM = 1 << 17;
        /// FEAT_JSCVT: FJCVTZS.
        const JSCVT = 1 << 18;
        /// FEAT_FCMA: FCADD, FCMLA.
        const FCMA = 1 << 19;
        /// FEAT_FlagM: CFINV, RMIF, SETF8, SETF16.
        const FLAGM = 1 << 20;
        /// FEAT_FlagM2: AXFLAG, XAFLAG.
        const FLAGM2 = 1 << 21;
        /// FEAT_FRINTTS: FRINT32Z and its kin.
        const FRINTTS = 1 << 22;
        /// FEAT_PAuth; with QARMA5 (FEAT_PACQARMA5) unless one of the next two says otherwise.
        const PAUTH = 1 << 23;
        /// FEAT_PACQARMA3 in QARMA5's place.
        const PACQARMA3 = 1 << 24;
        /// FEAT_PACIMP in QARMA5's place: an algorithm of our own, fast in software.
        const PACIMP = 1 << 74;
        /// FEAT_PAuth2: the PAC is exclusive-ored in; authentication does not corrupt but exclusive-ors.
        const PAUTH2 = 1 << 25;
        /// FEAT_FPAC: failed authentication traps.
        const FPAC = 1 << 26;
        /// FEAT_BTI.
        const BTI = 1 << 27;
        /// FEAT_DIT.
        const DIT = 1 << 28;
        /// FEAT_SSBS and FEAT_SSBS2.
        const SSBS = 1 << 29;
        /// FEAT_SB.
        const SB = 1 << 30;
        /// FEAT_RNG.
        const RNG = 1 << 31;
        /// FEAT_DPB: DC CVAP.
        const DPB = 1 << 32;
        /// FEAT_DPB2: DC CVADP.
        const DPB2 = 1 << 33;
        /// FEAT_PAN.
        const PAN = 1 << 34;
        /// FEAT_PAN2: AT S1E1RP, S1E1WP.
        const PAN2 = 1 << 35;
        /// FEAT_PAN3: SCTLR_ELx.EPAN.
        const PAN3 = 1 << 36;
        /// FEAT_UAO.
        const UAO = 1 << 37;
        /// FEAT_VHE.
        const VHE = 1 << 38;
        /// FEAT_HPDS: hierarchical permissions can be switched off.
        const HPDS = 1 << 39;
        /// FEAT_HAFDBS: hardware sets the access flag.
        const HAF = 1 << 40;
        /// FEAT_HAFDBS: hardware sets the dirty state too.
        const HDBS = 1 << 41;
        /// 16-bit ASIDs.
        const ASID16 = 1 << 42;
        /// FEAT_VMID16.
        const VMID16 = 1 << 43;
        /// FEAT_LVA: 52-bit addresses with the 64 KiB granule.
        const LVA = 1 << 44;
        /// FEAT_LPA: 52-bit physical addresses with the 64 KiB granule.
        const LPA = 1 << 45;
        /// FEAT_LPA2: 52-bit addresses with the 4 and 16 KiB granules.
        const LPA2 = 1 << 46;
        /// The 16 KiB granule.
        const GRANULE16 = 1 << 47;
        /// FEAT_TTL: the level hint of TLBI.
        const TTL = 1 << 48;
        /// FEAT_TLBIOS: outer shareable TLBI.
        const TLBIOS = 1 << 49;
        /// FEAT_TLBIRANGE.
        const TLBIRANGE = 1 << 50;
        /// FEAT_TTCNP.
        const TTCNP = 1 << 51;
        /// FEAT_TTST: small translation tables (T0SZ up to 48).
        const TTST = 1 << 52;
        /// FEAT_XNX: stage 2 execute-never by level.
        const XNX = 1 << 53;
        /// FEAT_EVT: finer traps of TLBI and cache maintenance.
        const EVT = 1 << 54;
        /// FEAT_IDST: ID registers read at EL0 trap with class 0x18.
        const IDST = 1 << 55;
        /// FEAT_E0PD.
        const E0PD = 1 << 56;
        /// FEAT_CSV2: branch prediction is isolated.
        const CSV2 = 1 << 57;
        /// FEAT_CSV3: speculation is isolated.
        const CSV3 = 1 << 58;
        /// FEAT_SPECRES: CFP, DVP, CPP.
        const SPECRES = 1 << 59;
        /// FEAT_PMUv3.
        const PMU = 1 << 60;
        /// FEAT_PMUv3p1: 16-bit events.
        const PMU_P1 = 1 << 61;
        /// FEAT_PMUv3p5: 64-bit event counters.
        const PMU_P5 = 1 << 62;
        /// FEAT_ECV: self-synchronised counter views.
        const ECV = 1 << 63;
        /// FEAT_RAS (minimal: ESB, error records absent).
        const RAS = 1 << 64;
        /// FEAT_WFxT: WFET, WFIT.
        const WFXT = 1 << 65;
        /// FEAT_S2FWB.
        const S2FWB = 1 << 66;
        /// FEAT_BBM level 2.
        const BBM2 = 1 << 67;
        /// EL2.
        const EL2 = 1 << 68;
        /// FEAT_DoubleLock.
        const DOUBLE_LOCK = 1 << 69;
        /// FEAT_HPDS2.
        const HPDS2 = 1 << 70;
        /// FEAT_GTG: stage 2 granules are told apart in ID_AA64MMFR0.
        const GTG = 1 << 71;
        /// FEAT_CSSC: ABS, CNT, CTZ, SMAX and their kin.
        const CSSC = 1 << 72;
        /// FEAT_LOR: limited ordering regions.
        const LOR = 1 << 73;
    }
}

/// Identification registers (the manual, D24.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "fields are the registers of their names")]
pub struct IdRegisters {
    pub midr: u64,
    pub ctr: u64,
    pub clidr: u64,
    /// CCSIDR_EL1 of the level 1 data, level 1 instruction and level 2 caches.
    pub ccsidr: [u64; 3],
    pub pfr0: u64,
    pub pfr1: u64,
    pub dfr0: u64,
    pub isar0: u64,
    pub isar1: u64,
    pub isar2: u64,
    pub mmfr0: u64,
    pub mmfr1: u64,
    pub mmfr2: u64,
    /// PMCR_EL0's IMP and IDCODE, bits 31:16.
    pub pmcr: u64,
}

/// DCZID_EL0: `dc zva` clears 64 bytes.
pub(crate) const DCZID: u64 = 4;

/// PEs in a cluster, as MPIDR_EL1 numbers them: QEMU's `virt` board's choice.
const CLUSTER: u64 = 16;

/// CCSIDR_EL1 of a cache (the manual, D24.2.25, 32-bit format); `flags` are bits 31:28.
const fn ccsidr(ways: u64, bytes: u64, flags: u64) -> u64 {
    let sets = bytes / ways / 64;
    flags << 28 | (sets - 1) << 13 | (ways - 1) << 3 | 2
}

/// AArch64 without AArch32 at EL0 and EL1; EL2 is filled in, EL3 is absent.
const LEVELS: u64 = 0x0011;

const CORTEX_A57: IdRegisters = IdRegisters {
    midr: 0x411f_d070,
    ctr: 0x8444_c004,
    clidr: 0x0a20_0023,
    ccsidr: [ccsidr(2, 32 << 10, 7), ccsidr(3, 48 << 10, 2), ccsidr(16, 2 << 20, 7)],
    pfr0: LEVELS,
    pfr1: 0,
    dfr0: 0x1030_5106,
    isar0: 0x0001_1120,
    isar1: 0,
    isar2: 0,
    mmfr0: 0x0000_1124,
    mmfr1: 0,
    mmfr2: 0,
    pmcr: 0x4101_0000,
};

const CORTEX_A72: IdRegisters = IdRegisters {
    midr: 0x410f_d083,
    ccsidr: [ccsidr(2, 32 << 10, 7), ccsidr(3, 48 << 10, 2), ccsidr(16, 1 << 20, 7)],
    pmcr: 0x4102_0000,
    ..CORTEX_A57
};

const NEOVERSE_N1: IdRegisters = IdRegisters {
    midr: 0x414f_d0c1,
    ctr: 0x8444_c004,
    clidr: 0x8200_0023,
    ccsidr: [ccsidr(4, 64 << 10, 7), ccsidr(4, 64 << 10, 2), ccsidr(8, 1 << 20, 7)],
    // CSV3, CSV2, RAS, FP16.
    pfr0: 0x1100_0000_1011_0000 | LEVELS,
    pfr1: 0x20,
    dfr0: 0x1030_5408,
    isar0: 0x0000_1000_1021_1120,
    isar1: 0x0010_0001,
    isar2: 0,
    mmfr0: 0x0010_1125,
    mmfr1: 0x1021_2122,
    mmfr2: 0x1011,
    pmcr: 0x410c_0000,
};

/// Everything there is. MIDR_EL1 names no implementer, so that nobody applies errata workarounds.
const MAX: IdRegisters = IdRegisters {
    midr: 0x000f_0510,
    // DIC and IDC: data and instruction caches need no maintenance.
    ctr: 0xb444_c004,
    clidr: 0x0200_0023,
    ccsidr: CORTEX_A57.ccsidr,
    // CSV3, CSV2, DIT, RAS, FP16.
    pfr0: 0x1101_0000_1011_0000 | LEVELS,
    // SSBS2, BTI.
    pfr1: 0x21,
    // No double lock; PMUv3p5; debug of Armv8.4.
    dfr0: 0x0000_00f0_1030_5609,
    // RNG, TLBIRANGE, FlagM2, FHM, DotProd, SHA3, RDM, LSE, CRC32, SHA512, SHA1, PMULL.
    isar0: 0x1221_1001_1021_2120,
    // I8MM, BF16, SPECRES, SB, FRINTTS, GPI, LRCPC3, FCMA, JSCVT, API (PAuth2, FPACCOMBINE), DPB2.
    isar1: 0x0010_1111_1031_1502,
    // CSSC, WFxT.
    isar2: 0x0010_0000_0000_0002,
    // ECV; LPA2 at both stages; 52-bit physical addresses.
    mmfr0: 0x1000_0323_1020_1126,
    // XNX, PAN3, LOR, HPDS2, VHE, VMID16, HAFDBS.
    mmfr1: 0x1031_2122,
    // E0PD, EVT, BBM, TTL, FWB, IDST, TTST, LVA, IESB, UAO, CnP. No LSE2: pairs are two accesses.
    mmfr2: 0x1221_0110_1001_1011,
    pmcr: 0,
};

#[derive(Clone, Copy)]
enum Id {
    Pfr0,
    Pfr1,
    Dfr0,
    Isar0,
    Isar1,
    Isar2,
    Mmfr0,
    Mmfr1,
    Mmfr2,
}

/// Which field of which register announces a feature, from which value on. 15 always means absence.
#[rustfmt::skip]
const FIELDS: &[(Features, Id, u32, u64)] = &[
    (Features::AES, Id::Isar0, 4, 1), (Features::PMULL, Id::Isar0, 4, 2),
    (Features::SHA1, Id::Isar0, 8, 1), (Features::SHA256, Id::Isar0, 12, 1), (Features::SHA512, Id::Isar0, 12, 2),
    (Features::CRC32, Id::Isar0, 16, 1), (Features::LSE, Id::Isar0, 20, 2), (Features::RDM, Id::Isar0, 28, 1),
    (Features::SHA3, Id::Isar0, 32, 1), (Features::DOTPROD, Id::Isar0, 44, 1), (Features::FHM, Id::Isar0, 48, 1),
    (Features::FLAGM, Id::Isar0, 52, 1), (Features::FLAGM2, Id::Isar0, 52, 2),
    (Features::TLBIOS, Id::Isar0, 56, 1), (Features::TLBIRANGE, Id::Isar0, 56, 2), (Features::RNG, Id::Isar0, 60, 1),
    (Features::DPB, Id::Isar1, 0, 1), (Features::DPB2, Id::Isar1, 0, 2),
    (Features::PAUTH, Id::Isar1, 4, 1), (Features::PAUTH2, Id::Isar1, 4, 3), (Features::FPAC, Id::Isar1, 4, 4),
    (Features::PAUTH, Id::Isar1, 8, 1), (Features::PAUTH2, Id::Isar1, 8, 3), (Features::FPAC, Id::Isar1, 8, 4),
    (Features::PACIMP, Id::Isar1, 8, 1),
    (Features::JSCVT, Id::Isar1, 12, 1), (Features::FCMA, Id::Isar1, 16, 1),
    (Features::LRCPC, Id::Isar1, 20, 1), (Features::LRCPC2, Id::Isar1, 20, 2), (Features::LRCPC3, Id::Isar1, 20, 3),
    (Features::FRINTTS, Id::Isar1, 32, 1), (Features::SB, Id::Isar1, 36, 1), (Features::SPECRES, Id::Isar1, 40, 1),
    (Features::BF16, Id::Isar1, 44, 1), (Features::I8MM, Id::Isar1, 52, 1),
    (Features::WFXT, Id::Isar2, 0, 2), (Features::PACQARMA3, Id::Isar2, 12, 1), (Features::CSSC, Id::Isar2, 52, 1),
    (Features::EL2, Id::Pfr0, 8, 1), (Features::FP16, Id::Pfr0, 16, 1), (Features::RAS, Id::Pfr0, 28, 1),
    (Features::DIT, Id::Pfr0, 48, 1), (Features::CSV2, Id::Pfr0, 56, 1), (Features::CSV3, Id::Pfr0, 60, 1),
    (Features::BTI, Id::Pfr1, 0, 1), (Features::SSBS, Id::Pfr1, 4, 2),
    (Features::PMU, Id::Dfr0, 8, 1), (Features::PMU_P1, Id::Dfr0, 8, 4), (Features::PMU_P5, Id::Dfr0, 8, 6),
    (Features::DOUBLE_LOCK, Id::Dfr0, 36, 0),
    (Features::LPA, Id::Mmfr0, 0, 6), (Features::ASID16, Id::Mmfr0, 4, 2), (Features::GRANULE16, Id::Mmfr0, 20, 1),
    (Features::LPA2, Id::Mmfr0, 28, 1), (Features::GTG, Id::Mmfr0, 40, 1), (Features::ECV, Id::Mmfr0, 60, 1),
    (Features::HAF, Id::Mmfr1, 0, 1), (Features::HDBS, Id::Mmfr1, 0, 2), (Features::VMID16, Id::Mmfr1, 4, 2),
    (Features::VHE, Id::Mmfr1, 8, 1), (Features::HPDS, Id::Mmfr1, 12, 1), (Features::HPDS2, Id::Mmfr1, 12, 2),
    (Features::LOR, Id::Mmfr1, 16, 1), (Features::PAN, Id::Mmfr1, 20, 1), (Features::PAN2, Id::Mmfr1, 20, 2),
    (Features::PAN3, Id::Mmfr1, 20, 3), (Features::XNX, Id::Mmfr1, 28, 1),
    (Features::TTCNP, Id::Mmfr2, 0, 1), (Features::UAO, Id::Mmfr2, 4, 1), (Features::LVA, Id::Mmfr2, 16, 1),
    (Features::TTST, Id::Mmfr2, 28, 1), (Features::LSE2, Id::Mmfr2, 32, 1), (Features::IDST, Id::Mmfr2, 36, 1),
    (Features::S2FWB, Id::Mmfr2, 40, 1), (Features::TTL, Id::Mmfr2, 48, 1), (Features::BBM2, Id::Mmfr2, 52, 2),
    (Features::EVT, Id::Mmfr2, 56, 1), (Features::E0PD, Id::Mmfr2, 60, 1),
];

impl IdRegisters {
    const fn get(&self, id: Id) -> u64 {
        match id {
            Id::Pfr0 => self.pfr0,
            Id::Pfr1 => self.pfr1,
            Id::Dfr0 => self.dfr0,
            Id::Isar0 => self.isar0,
            Id::Isar1 => self.isar1,
            Id::Isar2 => self.isar2,
            Id::Mmfr0 => self.mmfr0,
            Id::Mmfr1 => self.mmfr1,
            Id::Mmfr2 => self.mmfr2,
        }
    }

    /// The features that the registers announce.
    pub fn features(&self) -> Features {
        let announced = |&&(_, id, shift, least): &&(Features, Id, u32, u64)| {
            let value = self.get(id) >> shift & 0xf;
            value != 15 && value >= least
        };
        FIELDS.iter().filter(announced).fold(Features::empty(), |all, (feature, ..)| all | *feature)
    }
}

/// How the guest calls firmware (PSCI) that the machine provides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `hvc`: there is no EL2.
    Hvc,
    /// `smc`: there is an EL2, and no EL3.
    Smc,
}

/// The aarch64 guest: a CPU model.
#[derive(Debug)]
pub struct Aarch64 {
    /// The model's name.
    pub name: &'static str,
    /// The device tree's `compatible`.
    pub compatible: &'static str,
    /// What it implements.
    pub features: Features,
    /// Its identification registers.
    pub id: IdRegisters,
    /// The rate of the system counter.
    pub counter_hz: u64,
    cpu_interface: Option<Arc<dyn CpuInterface>>,
    /// Somebody has used an address whose top byte is ignored: translations may be cached under more than one address.
    pub(crate) tags_seen: AtomicBool,
    /// Somebody has entered EL1 under stage 2: address spaces are no longer told apart by one ASID.
    pub(crate) guests_seen: AtomicBool,
}

impl Clone for Aarch64 {
    /// A model for another machine: what this one's guests did is not its business.
    fn clone(&self) -> Self {
        let copy = Self::new(self.name, self.compatible, self.id, self.counter_hz);
        Self { features: self.features, cpu_interface: self.cpu_interface.clone(), ..copy }
    }
}

impl Aarch64 {
    fn new(name: &'static str, compatible: &'static str, id: IdRegisters, counter_hz: u64) -> Self {
        Self {
            name,
            compatible,
            features: id.features(),
            id,
            counter_hz,
            cpu_interface: None,
            tags_seen: AtomicBool::new(false),
            guests_seen: AtomicBool::new(false),
        }
    }

    /// Everything there is.
    pub fn max() -> Self {
        Self::new("max", "arm,armv8", MAX, 1_000_000_000)
    }

    /// The models users can name.
    pub const MODELS: &'static [&'static str] = &["cortex-a57", "cortex-a72", "neoverse-n1", "max"];

    /// The model called `name`, without EL2.
    pub fn by_name(name: &str) -> Option<Self> {
        const HZ: u64 = 62_500_000;
        match name {
            "cortex-a57" => Some(Self::new("cortex-a57", "arm,cortex-a57", CORTEX_A57, HZ)),
            "cortex-a72" => Some(Self::new("cortex-a72", "arm,cortex-a72", CORTEX_A72, HZ)),
            "neoverse-n1" => Some(Self::new("neoverse-n1", "arm,neoverse-n1", NEOVERSE_N1, HZ)),
            "max" => Some(Self::max()),
            _ => None,
        }
    }

    /// The same model with or without EL2. With it, PEs start at EL2 and call firmware by `smc`.
    #[must_use]
    pub fn with_el2(mut self, present: bool) -> Self {
        self.id.pfr0 = self.id.pfr0 & !0xf00 | if present { 0x100 } else { 0 };
        self.features = self.id.features();
        self
    }

    /// The same model wired to an interrupt controller.
    #[must_use]
    pub fn with_cpu_interface(mut self, interface: Arc<dyn CpuInterface>) -> Self {
        let gic = if interface.has_registers() { 1 << 24 } else { 0 };
        self.id.pfr0 = self.id.pfr0 & !(0xf << 24) | gic;
        self.cpu_interface = Some(interface);
        self
    }

    /// The interrupt controller, if there is one.
    pub fn cpu_interface(&self) -> Option<&dyn CpuInterface> {
        self.cpu_interface.as_deref()
    }

    /// Are all of these features there?
    pub fn has(&self, features: Features) -> bool {
        self.features.contains(features)
    }

    /// Does the core have implementation defined registers? They read as zero, and writes do nothing.
    pub(crate) fn has_own_registers(&self) -> bool {
        self.id.midr >> 24 != 0
    }

    /// How the guest calls the machine's firmware.
    pub fn conduit(&self) -> Conduit {
        if self.has(Features::EL2) { Conduit::Smc } else { Conduit::Hvc }
    }

    /// Bits of a physical address.
    pub fn physical_bits(&self) -> u32 {
        [32, 36, 40, 42, 44, 48, 52].get((self.id.mmfr0 & 0xf) as usize).copied().unwrap_or(48)
    }

    /// The granule to use where a register asks for `granule`: those that are not implemented become 4 KiB.
    pub(crate) fn usable_granule(&self, granule: Option<u32>) -> u32 {
        match granule {
            Some(14) if !self.has(Features::GRANULE16) => 12,
            Some(granule) => granule,
            None => 12,
        }
    }

    /// MPIDR_EL1 of PE `index`.
    pub fn mpidr(&self, index: u32) -> u64 {
        let index = u64::from(index);
        1 << 31 | (index / CLUSTER) << 8 | (index % CLUSTER)
    }

    /// A PE as reset leaves it, at `pc`, at its highest exception level.
    pub fn reset(&self, index: u32, pc: u64) -> Cpu {
        let el2 = self.has(Features::EL2);
        let mut cpu = Cpu { index, el: if el2 { 2 } else { 1 }, ..Cpu::default() };
        let sys = &mut cpu.sys;
        sys.has_el2 = el2;
        sys.sctlr = [0, sctlr::RES1, sctlr::RES1, 0];
        sys.cntfrq = self.counter_hz;
        sys.cptr = 0x33ff;
        sys.hcr = 0;
        sys.mdcr = pmu::COUNTERS as u64;
        sys.vpidr = self.id.midr;
        sys.vmpidr = self.mpidr(index);
        sys.debug.os_locked = true;
        sys.pmu.pmcr = pmu::pmcr::LC;
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
        for name in Aarch64::MODELS {
            assert_eq!(Aarch64::by_name(name).map(|model| model.name), Some(*name));
        }
        assert!(Aarch64::by_name("cortex-m0").is_none());
    }

    #[test]
    fn registers_announce_what_each_core_has() {
        let has = |name: &str, features| Aarch64::by_name(name).unwrap().has(features);
        for name in ["cortex-a57", "cortex-a72"] {
            assert!(has(name, Features::AES | Features::PMULL | Features::SHA256 | Features::CRC32));
            assert!(!Aarch64::by_name(name).unwrap().features.intersects(
                Features::LSE | Features::PAN | Features::HAF | Features::CSV3 | Features::GRANULE16
            ));
        }
        assert!(has("neoverse-n1", Features::LSE | Features::DOTPROD | Features::HDBS | Features::VHE));
        assert!(has("neoverse-n1", Features::FP16 | Features::SSBS | Features::LRCPC | Features::GRANULE16));
        assert!(!has("neoverse-n1", Features::PAUTH) && !has("neoverse-n1", Features::LPA2));
    }

    #[test]
    fn max_has_every_feature_but_those_that_exclude_others() {
        let missing = Features::all() - Aarch64::max().with_el2(true).features;
        assert_eq!(missing, Features::PACQARMA3 | Features::DOUBLE_LOCK | Features::LSE2);
        let missing = Features::all() - Aarch64::max().features;
        assert!(missing.contains(Features::EL2));
    }

    #[test]
    fn every_feature_has_a_field() {
        let named = FIELDS.iter().fold(Features::empty(), |all, (feature, ..)| all | *feature);
        assert_eq!(named, Features::all());
    }

    #[test]
    fn levels_follow_el2() {
        let model = Aarch64::by_name("cortex-a72").unwrap();
        assert_eq!(
            (model.reset(0, 0).el, model.conduit(), model.id.pfr0 & 0x0f00_ffff),
            (1, Conduit::Hvc, 0x11)
        );
        let model = model.with_el2(true);
        assert_eq!(
            (model.reset(0, 0).el, model.conduit(), model.id.pfr0 & 0x0f00_ffff),
            (2, Conduit::Smc, 0x111)
        );
        assert_eq!((model.mpidr(3), model.mpidr(17)), (0x8000_0003, 0x8000_0101));
    }
}
