//! The helper table: guest operations that are not worth IR operations of their own.
//!
//! Privileged instructions and CSR accesses live in [`crate::system`], cache-block instructions in
//! [`crate::lift_mem`], functions of their arguments alone in [`crate::pure`].

use crate::{Riscv64, lift_mem, pure, system};
use isomer_ir::{guest::Effects, guest::HelperDesc, types::HelperId};

/// Each helper's place in [`TABLE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum Helper {
    CsrRead,
    CsrWrite,
    CsrSwap,
    CsrSet,
    CsrClear,
    MarkFsDirty,
    Mret,
    Sret,
    Wfi,
    SfenceVma,
    FenceI,
    CboManage,
    Fclass,
    FcvtModWD,
    Xperm4,
    Xperm8,
    Aes64Ds,
    Aes64Dsm,
    Aes64Es,
    Aes64Esm,
    Aes64Im,
    Aes64Ks1i,
    Sm4Ed,
    Sm4Ks,
}

impl Helper {
    /// Its id in the IR.
    pub(crate) const fn id(self) -> HelperId {
        HelperId(self as u16)
    }
}

macro_rules! table {
    ($($helper:ident $name:literal $effects:ident $run:expr;)*) => {
        /// All helpers, in the order of [`Helper`].
        pub(crate) static TABLE: &[HelperDesc<Riscv64>] = &[
            $(HelperDesc { name: $name, effects: Effects::$effects, run: $run }),*
        ];
        #[cfg(test)]
        const ORDER: &[Helper] = &[$(Helper::$helper),*];
    };
}

table! {
    CsrRead "csr_read" Any system::csr_read;
    CsrWrite "csr_write" Any system::csr_write;
    CsrSwap "csr_swap" Any system::csr_swap;
    CsrSet "csr_set" Any system::csr_set;
    CsrClear "csr_clear" Any system::csr_clear;
    MarkFsDirty "mark_fs_dirty" Any system::mark_fs_dirty;
    Mret "mret" Any system::mret;
    Sret "sret" Any system::sret;
    Wfi "wfi" Any system::wfi;
    SfenceVma "sfence_vma" Any system::sfence_vma;
    FenceI "fence_i" Any system::fence_i;
    CboManage "cbo_manage" Any lift_mem::cbo_manage;
    Fclass "fclass" Pure |_, [fmt, a, ..]| Ok(pure::fclass(fmt, a));
    FcvtModWD "fcvtmod_w_d" Pure |_, [a, ..]| Ok(pure::fcvtmod_w_d(a));
    Xperm4 "xperm4" Pure |_, [a, b, ..]| Ok(pure::xperm4(a, b));
    Xperm8 "xperm8" Pure |_, [a, b, ..]| Ok(pure::xperm8(a, b));
    Aes64Ds "aes64ds" Pure |_, [a, b, ..]| Ok(pure::aes64ds(a, b));
    Aes64Dsm "aes64dsm" Pure |_, [a, b, ..]| Ok(pure::aes64dsm(a, b));
    Aes64Es "aes64es" Pure |_, [a, b, ..]| Ok(pure::aes64es(a, b));
    Aes64Esm "aes64esm" Pure |_, [a, b, ..]| Ok(pure::aes64esm(a, b));
    Aes64Im "aes64im" Pure |_, [a, ..]| Ok(pure::aes64im(a));
    Aes64Ks1i "aes64ks1i" Pure |_, [a, round, ..]| Ok(pure::aes64ks1i(a, round));
    Sm4Ed "sm4ed" Pure |_, [a, b, byte, ..]| Ok(pure::sm4ed(a, b, byte));
    Sm4Ks "sm4ks" Pure |_, [a, b, byte, ..]| Ok(pure::sm4ks(a, b, byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_table_indexes() {
        assert_eq!(ORDER.len(), TABLE.len());
        for (index, helper) in ORDER.iter().enumerate() {
            assert_eq!(*helper as usize, index, "{helper:?}");
        }
    }
}
