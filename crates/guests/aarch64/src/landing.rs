//! Where an indirect branch may land: the slow half of branch target identification (Arm ARM, D8.5.1, "AArch64.BranchTargetCheck").

use crate::{Aarch64, Mode, Trap, trap};
use isomer_core::Gva;
use isomer_ir::{Access, HelperCx, guest::TlbFlush};

/// `check_landing(btype, refused)`: the running block's first instruction is none that a branch of type `btype` may
/// reach, if bit `btype` of `refused` is set and its page is guarded.
pub(crate) fn check(cx: &mut HelperCx<'_, Aarch64>, [btype, refused, ..]: [u64; 4]) -> Result<u64, Trap> {
    let refuses = |btype: u64| refused >> (btype & 3) & 1 != 0;
    if !refuses(btype) || !is_guarded(cx, cx.cpu.header.pc)? {
        return Ok(0);
    }
    // A `br` in an unguarded page lands where `bti c` is, too.
    let source = cx.cpu.branch_source;
    if btype == 3 && !refuses(1) && !is_guarded(cx, source).unwrap_or(false) {
        return Ok(0);
    }
    Err(Trap::new(trap::syndrome(trap::ec::BTI, btype as u32 & 3)))
}

/// Is the page of this code guarded? Only a walk says, so its cached translation is dropped first.
fn is_guarded(cx: &mut HelperCx<'_, Aarch64>, pc: u64) -> Result<bool, Trap> {
    let mmu = Mode(cx.cpu.header.mode).mmu();
    cx.env.flush_tlb(TlbFlush { gva: Some(Gva(pc)), ..TlbFlush::default() });
    cx.cpu.guarded.set(false);
    let walked = cx.env.translate(cx.guest, cx.cpu, Gva(pc), Access::Fetch, mmu);
    let guarded = cx.cpu.guarded.replace(true);
    walked.map(|_| guarded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use isomer_core::Gpa;
    use isomer_ir::{MmuIndex, guest::HelperEnv};

    const GUARDED: u64 = 0x1000;
    const PLAIN: u64 = 0x2000;

    /// Two pages, of which one is guarded; cached translations until they are flushed.
    struct Pages {
        cached: Option<u64>,
    }

    impl HelperEnv<Aarch64> for Pages {
        fn now_ns(&self) -> u64 {
            0
        }
        fn lines(&self) -> u64 {
            0
        }
        fn entropy(&mut self) -> u64 {
            0
        }
        fn load(&mut self, _: &Aarch64, _: &mut Cpu, _: Gva, _: usize, _: MmuIndex) -> Result<u64, Trap> {
            Err(Trap::undefined())
        }
        fn store(
            &mut self,
            _: &Aarch64,
            _: &mut Cpu,
            _: Gva,
            _: usize,
            _: MmuIndex,
            _: u64,
        ) -> Result<(), Trap> {
            Err(Trap::undefined())
        }
        fn translate(
            &mut self,
            _: &Aarch64,
            cpu: &mut Cpu,
            gva: Gva,
            access: Access,
            _: MmuIndex,
        ) -> Result<Gpa, Trap> {
            assert_eq!(access, Access::Fetch);
            let page = gva.page_base().0;
            if self.cached != Some(page) && page == GUARDED {
                cpu.guarded.set(true);
            }
            Ok(Gpa(gva.0))
        }
        fn flush_tlb(&mut self, what: TlbFlush) {
            if self.cached == what.gva.map(|gva| gva.page_base().0) {
                self.cached = None;
            }
        }
        fn set_address_space(&mut self, _: u64) {}
        fn sync_code(&mut self) {}
        fn reconsider(&mut self) {}
        fn wait_for_interrupt(&mut self) {}
    }

    /// Lands on page `at` by a branch of `btype` from page `from`.
    fn land(at: u64, from: u64, btype: u64, refused: u64) -> Result<u64, Trap> {
        let guest = Aarch64::max();
        let mut cpu = guest.reset(0, at);
        cpu.guarded.set(true);
        cpu.branch_source = from;
        let result = check(
            &mut HelperCx { guest: &guest, cpu: &mut cpu, env: &mut Pages { cached: Some(at) } },
            [btype, refused, 0, 0],
        );
        assert!(cpu.guarded.get(), "once seen, guarded pages stay in use");
        result
    }

    #[test]
    fn guarded_pages_refuse_what_is_no_landing_pad() {
        const ANY: u64 = 0b1110;
        const BTI_C: u64 = 0b1000;
        let fault = |btype| Err(Trap::new(trap::syndrome(trap::ec::BTI, btype)));
        assert_eq!(land(GUARDED, GUARDED, 0, ANY), Ok(0), "no indirect branch");
        assert_eq!(land(GUARDED, GUARDED, 2, ANY), fault(2));
        assert_eq!(land(PLAIN, GUARDED, 2, ANY), Ok(0));
        assert_eq!(land(GUARDED, GUARDED, 2, BTI_C), Ok(0));
        assert_eq!(land(GUARDED, GUARDED, 3, BTI_C), fault(3));
        assert_eq!(land(GUARDED, PLAIN, 3, BTI_C), Ok(0), "a br in an unguarded page");
        assert_eq!(land(GUARDED, PLAIN, 3, ANY), fault(3));
    }
}
