//! System register state: what is stored, not what a read gives; masks and views are the table's business.

/// Bits of HCR_EL2 that are implemented (the manual, D24.2.49).
pub mod hcr {
    /// Stage 2 translation of the EL1&0 regime.
    pub const VM: u64 = 1;
    /// Set/way invalidation becomes clean and invalidate.
    pub const SWIO: u64 = 1 << 1;
    /// Protected table walk: walks that hit Device memory fault.
    pub const PTW: u64 = 1 << 2;
    /// Physical FIQs go to EL2.
    pub const FMO: u64 = 1 << 3;
    /// Physical IRQs go to EL2.
    pub const IMO: u64 = 1 << 4;
    /// Physical SErrors go to EL2.
    pub const AMO: u64 = 1 << 5;
    /// A virtual FIQ is pending.
    pub const VF: u64 = 1 << 6;
    /// A virtual IRQ is pending.
    pub const VI: u64 = 1 << 7;
    /// A virtual SError is pending.
    pub const VSE: u64 = 1 << 8;
    /// Broadcast TLB maintenance.
    pub const FB: u64 = 1 << 9;
    /// Barrier upgrade.
    pub const BSU: u64 = 3 << 10;
    /// Default cacheability: stage 1 off means Normal memory.
    pub const DC: u64 = 1 << 12;
    /// Trap `wfi`.
    pub const TWI: u64 = 1 << 13;
    /// Trap `wfe`.
    pub const TWE: u64 = 1 << 14;
    /// Trap ID group 1.
    pub const TID1: u64 = 1 << 16;
    /// Trap ID group 2: cache identification.
    pub const TID2: u64 = 1 << 17;
    /// Trap ID group 3: feature registers.
    pub const TID3: u64 = 1 << 18;
    /// Trap `smc`.
    pub const TSC: u64 = 1 << 19;
    /// Trap implementation defined registers.
    pub const TIDCP: u64 = 1 << 20;
    /// Trap ACTLR_EL1.
    pub const TACR: u64 = 1 << 21;
    /// Trap cache maintenance by set and way.
    pub const TSW: u64 = 1 << 22;
    /// Trap cache maintenance to the point of coherency.
    pub const TPCP: u64 = 1 << 23;
    /// Trap cache maintenance to the point of unification.
    pub const TPU: u64 = 1 << 24;
    /// Trap TLB maintenance.
    pub const TTLB: u64 = 1 << 25;
    /// Trap writes of virtual memory controls.
    pub const TVM: u64 = 1 << 26;
    /// Trap general exceptions: EL0's go to EL2.
    pub const TGE: u64 = 1 << 27;
    /// Trap `dc zva`.
    pub const TDZ: u64 = 1 << 28;
    /// `hvc` is undefined.
    pub const HCD: u64 = 1 << 29;
    /// Trap reads of virtual memory controls.
    pub const TRVM: u64 = 1 << 30;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// Stage 2 makes data accesses uncacheable.
    pub const CD: u64 = 1 << 32;
    /// The same for fetches.
    pub const ID: u64 = 1 << 33;
    /// EL2 is a host (FEAT_VHE).
    pub const E2H: u64 = 1 << 34;
    /// Trap limited ordering region registers.
    pub const TLOR: u64 = 1 << 35;
    /// Trap error records.
    pub const TERR: u64 = 1 << 36;
    /// External aborts go to EL2.
    pub const TEA: u64 = 1 << 37;
    /// PAuth key registers do not trap.
    pub const APK: u64 = 1 << 40;
    /// PAuth instructions do not trap.
    pub const API: u64 = 1 << 41;
    /// Trap cache identification (FEAT_EVT).
    pub const TID4: u64 = 1 << 49;
    /// Trap `ic ialluis` (FEAT_EVT).
    pub const TICAB: u64 = 1 << 50;
    /// Trap maintenance to the point of unification (FEAT_EVT).
    pub const TOCU: u64 = 1 << 52;
    /// Trap inner shareable TLB maintenance (FEAT_EVT).
    pub const TTLBIS: u64 = 1 << 54;
    /// Trap outer shareable TLB maintenance (FEAT_EVT).
    pub const TTLBOS: u64 = 1 << 55;

    /// What has no effect on a host (E2H and TGE are 1).
    pub const NOT_IN_HOST: u64 = VM
        | FMO
        | IMO
        | AMO
        | BSU
        | DC
        | TWI
        | TWE
        | TID2
        | TPCP
        | TPU
        | TDZ
        | CD
        | ID
        | TID4
        | TICAB
        | TOCU
        | TTLBIS
        | TTLBOS;
    /// What has no effect while TGE is 1.
    pub const NOT_WITH_TGE: u64 =
        SWIO | PTW | VF | VI | VSE | FB | TID1 | TID3 | TSC | TACR | TSW | TTLB | TVM | HCD | TRVM | TLOR;
}

/// Bits of SCTLR_ELx (the manual, D24.2.175).
pub mod sctlr {
    /// MMU on.
    pub const M: u64 = 1;
    /// Alignment checks.
    pub const A: u64 = 1 << 1;
    /// Data caches on.
    pub const C: u64 = 1 << 2;
    /// Stack alignment check at this level.
    pub const SA: u64 = 1 << 3;
    /// Stack alignment check at EL0.
    pub const SA0: u64 = 1 << 4;
    /// Misaligned ordered accesses are fine.
    pub const NAA: u64 = 1 << 6;
    /// EL0 may change DAIF.
    pub const UMA: u64 = 1 << 9;
    /// EL0 may use the prediction restriction instructions.
    pub const ENRCTX: u64 = 1 << 10;
    /// Exception exit is a context synchronisation event.
    pub const EOS: u64 = 1 << 11;
    /// Instruction caches on.
    pub const I: u64 = 1 << 12;
    /// Data key B.
    pub const ENDB: u64 = 1 << 13;
    /// EL0 may use `dc zva`.
    pub const DZE: u64 = 1 << 14;
    /// EL0 may read CTR_EL0.
    pub const UCT: u64 = 1 << 15;
    /// EL0's `wfi` does not trap.
    pub const NTWI: u64 = 1 << 16;
    /// EL0's `wfe` does not trap.
    pub const NTWE: u64 = 1 << 18;
    /// Writable memory is not executable.
    pub const WXN: u64 = 1 << 19;
    /// Exception entry is a context synchronisation event.
    pub const EIS: u64 = 1 << 22;
    /// PSTATE.PAN is unchanged by exception entry.
    pub const SPAN: u64 = 1 << 23;
    /// EL0 data accesses are big-endian.
    pub const E0E: u64 = 1 << 24;
    /// Data accesses of this level are big-endian.
    pub const EE: u64 = 1 << 25;
    /// EL0 may maintain caches.
    pub const UCI: u64 = 1 << 26;
    /// Data key A.
    pub const ENDA: u64 = 1 << 27;
    /// Instruction key B.
    pub const ENIB: u64 = 1 << 30;
    /// Instruction key A.
    pub const ENIA: u64 = 1 << 31;
    /// BTI: `paciasp` is no landing pad for BTYPE 3 at EL0.
    pub const BT0: u64 = 1 << 35;
    /// The same at this level.
    pub const BT1: u64 = 1 << 36;
    /// PSTATE.SSBS after exception entry.
    pub const DSSBS: u64 = 1 << 44;
    /// PAN counts execute-only memory as user memory.
    pub const EPAN: u64 = 1 << 57;
    /// Bits that are 1 in every SCTLR_ELx of Armv8.0: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS.
    pub const RES1: u64 = 1 << 29 | 1 << 28 | SPAN | EIS | 1 << 20 | EOS;
}

/// One generic timer (the manual, D12.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    /// CNT*_CTL: ENABLE and IMASK; ISTATUS is computed.
    pub ctl: u64,
    /// CNT*_CVAL.
    pub cval: u64,
}

/// Performance monitors (the manual, D13).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pmu {
    /// PMCR_EL0: E, DP, LC, LP; the rest is fixed or write-only.
    pub pmcr: u64,
    /// PMCNTENSET_EL0.
    pub enabled: u64,
    /// PMINTENSET_EL1.
    pub interrupt: u64,
    /// PMOVSSET_EL0.
    pub overflow: u64,
    /// PMSELR_EL0.
    pub select: u64,
    /// PMUSERENR_EL0.
    pub user: u64,
    /// PMCCNTR_EL0, as of `settled`.
    pub cycles: u64,
    /// PMCCFILTR_EL0.
    pub cycle_filter: u64,
    /// PMEVCNTR<n>_EL0, as of `settled`.
    pub counter: [u64; 6],
    /// PMEVTYPER<n>_EL0.
    pub event: [u64; 6],
    /// The header's instruction count up to which the counters have counted.
    pub settled: u64,
}

/// Self-hosted debug (the manual, D2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Debug {
    /// MDSCR_EL1.
    pub mdscr: u64,
    /// MDCCINT_EL1.
    pub mdccint: u64,
    /// OSLSR_EL1.OSLK.
    pub os_locked: bool,
    /// OSDLR_EL1.DLK.
    pub double_locked: bool,
    /// DBGCLAIMSET_EL1.
    pub claim: u64,
    /// DBGBVR<n>_EL1.
    pub bvr: [u64; 6],
    /// DBGBCR<n>_EL1.
    pub bcr: [u64; 6],
    /// DBGWVR<n>_EL1.
    pub wvr: [u64; 4],
    /// DBGWCR<n>_EL1.
    pub wcr: [u64; 4],
}

/// The system registers of one PE. Arrays of four are banked by exception level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sys {
    /// SCTLR_ELx.
    pub sctlr: [u64; 4],
    /// ACTLR_ELx.
    pub actlr: [u64; 4],
    /// TTBR0_ELx.
    pub ttbr0: [u64; 4],
    /// TTBR1_ELx.
    pub ttbr1: [u64; 4],
    /// TCR_ELx.
    pub tcr: [u64; 4],
    /// MAIR_ELx.
    pub mair: [u64; 4],
    /// AMAIR_ELx.
    pub amair: [u64; 4],
    /// VBAR_ELx.
    pub vbar: [u64; 4],
    /// CONTEXTIDR_ELx.
    pub contextidr: [u64; 4],
    /// AFSR0_ELx.
    pub afsr0: [u64; 4],
    /// AFSR1_ELx.
    pub afsr1: [u64; 4],
    /// ESR_ELx.
    pub esr: [u64; 4],
    /// FAR_ELx.
    pub far: [u64; 4],
    /// ELR_ELx.
    pub elr: [u64; 4],
    /// SPSR_ELx.
    pub spsr: [u64; 4],
    /// CPACR_EL1.
    pub cpacr: u64,
    /// CPTR_EL2.
    pub cptr: u64,
    /// HCR_EL2.
    pub hcr: u64,
    /// HSTR_EL2.
    pub hstr: u64,
    /// HACR_EL2.
    pub hacr: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
    /// MDCR_EL2.
    pub mdcr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VPIDR_EL2.
    pub vpidr: u64,
    /// VMPIDR_EL2.
    pub vmpidr: u64,
    /// PAR_EL1.
    pub par: u64,
    /// CSSELR_EL1.
    pub csselr: u64,
    /// TPIDR_EL3's place is unused; SCXTNUM_EL0, EL1 and EL2 by level.
    pub scxtnum: [u64; 4],
    /// APIAKey_EL1, low half first.
    pub apia: [u64; 2],
    /// APIBKey_EL1.
    pub apib: [u64; 2],
    /// APDAKey_EL1.
    pub apda: [u64; 2],
    /// APDBKey_EL1.
    pub apdb: [u64; 2],
    /// APGAKey_EL1.
    pub apga: [u64; 2],
    /// CNTFRQ_EL0: what firmware says the rate is.
    pub cntfrq: u64,
    /// CNTKCTL_EL1.
    pub cntkctl: u64,
    /// CNTHCTL_EL2.
    pub cnthctl: u64,
    /// CNTVOFF_EL2.
    pub cntvoff: u64,
    /// The timers, by [`crate::timer::TimerId`].
    pub timers: [Timer; 4],
    /// DISR_EL1: a deferred SError (FEAT_RAS).
    pub disr: u64,
    /// VDISR_EL2.
    pub vdisr: u64,
    /// VSESR_EL2.
    pub vsesr: u64,
    /// LORSA_EL1, LOREA_EL1, LORN_EL1, LORC_EL1.
    pub lor: [u64; 4],
    /// Performance monitors.
    pub pmu: Pmu,
    /// Debug.
    pub debug: Debug,
    /// EL2 exists.
    pub has_el2: bool,
}

impl Sys {
    /// HCR_EL2 as it takes effect: 0 without EL2, and less of it while TGE is 1.
    pub fn hcr(&self) -> u64 {
        if !self.has_el2 {
            return 0;
        }
        let mut bits = self.hcr;
        if bits & hcr::TGE != 0 {
            bits &= !hcr::NOT_WITH_TGE;
            if bits & hcr::E2H != 0 {
                bits &= !hcr::NOT_IN_HOST;
            } else {
                bits |= hcr::FMO | hcr::IMO | hcr::AMO;
            }
        }
        bits
    }

    /// Is EL2 a host (HCR_EL2.E2H)?
    pub fn e2h(&self) -> bool {
        self.has_el2 && self.hcr & hcr::E2H != 0
    }

    /// Do EL0's exceptions go to EL2 (HCR_EL2.TGE)?
    pub fn tge(&self) -> bool {
        self.has_el2 && self.hcr & hcr::TGE != 0
    }

    /// Is EL0 in the EL2&0 regime?
    pub fn in_host(&self) -> bool {
        self.e2h() && self.tge()
    }

    /// The level whose SCTLR, TCR and keys' switches rule `el`.
    pub fn regime_el(&self, el: u8) -> usize {
        match el {
            0 if self.in_host() => 2,
            0 => 1,
            el => usize::from(el & 3),
        }
    }
}
