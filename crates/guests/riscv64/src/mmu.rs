//! Address translation (volume II, chapter 10).

use crate::{Cpu, Riscv64, Trap};
use isomer_core::{Gpa, Gva};
use isomer_ir::{Access, MmuIndex, Page, guest::PhysMemory};

/// Translates one access; see [`isomer_ir::Guest::walk`].
pub(crate) fn walk(
    _guest: &Riscv64,
    _cpu: &Cpu,
    _memory: &dyn PhysMemory,
    gva: Gva,
    _access: Access,
    _mmu: MmuIndex,
) -> Result<Page, Trap> {
    let gpa = Gpa(gva.page_base().0);
    Ok(Page { gpa, shift: 12, load: true, store: true, fetch: true, global: true })
}
