//! CPU models: which features a PE has.

use bitflags::bitflags;

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
        /// FEAT_PAuth with QARMA5 (FEAT_PACQARMA5).
        const PAUTH = 1 << 23;
        /// FEAT_PACQARMA3 in QARMA5's place.
        const PACQARMA3 = 1 << 24;
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

/// The aarch64 guest: a CPU model.
#[derive(Debug, Clone)]
pub struct Aarch64 {
    /// The model's name.
    pub name: &'static str,
    /// What it implements.
    pub features: Features,
}

impl Aarch64 {
    /// Everything there is.
    pub fn max() -> Self {
        Self { name: "max", features: Features::all() }
    }

    /// Are all of these features there?
    pub fn has(&self, features: Features) -> bool {
        self.features.contains(features)
    }
}
