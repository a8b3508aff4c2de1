//! [`Guest`] for riscv64: where the engine's questions go.

use crate::{Cpu, Privilege, Riscv64, Trap, cause, counters, disasm, helpers, lift, mmu, regs, trap};
use isomer_core::Gva;
use isomer_ir::{
    Access, Builder, Guest, HelperDesc, MmuIndex, Page, SlotDesc,
    guest::{Lifted, PhysMemory},
    softfloat::{NanRule, Tininess},
    types::FpModel,
};

impl Guest for Riscv64 {
    type Cpu = Cpu;
    type Trap = Trap;

    const NAME: &'static str = "riscv64";
    const SLOTS: &'static [SlotDesc] = &regs::SLOTS;
    const HELPERS: &'static [HelperDesc<Self>] = helpers::TABLE;
    const MMU_INDEXES: usize = regs::mmu::COUNT;
    const SHARED_MMUS: u64 = 1 << regs::mmu::S.0 | 1 << regs::mmu::S_SUM.0 | 1 << regs::mmu::M.0;
    const INSN_ALIGN: u32 = 2;
    const INSN_MAX: u32 = 4;

    fn model_id(&self) -> String {
        format!("{} {:x}", self.name, self.ext.bits())
    }

    fn fp_model(&self, _mode: u32) -> FpModel {
        FpModel {
            nan: NanRule::Canonical,
            tininess: Tininess::After,
            flush_inputs: false,
            flush_outputs: false,
        }
    }

    fn lift_insn(&self, mode: u32, code: &[u8], offset: u32, b: &mut Builder) -> Lifted {
        lift::lift_insn(self, mode, code, offset, b)
    }

    fn disassemble(&self, code: &[u8], pc: u64) -> (String, usize) {
        disasm::disassemble(self.ext, code, pc)
    }

    fn fetch_mmu(&self, cpu: &Cpu) -> MmuIndex {
        match cpu.privilege {
            Privilege::User => regs::mmu::U,
            Privilege::Supervisor => regs::mmu::S,
            Privilege::Machine => regs::mmu::M,
        }
    }

    fn walk(
        &self,
        cpu: &Cpu,
        memory: &dyn PhysMemory,
        gva: Gva,
        len: u32,
        access: Access,
        mmu: MmuIndex,
    ) -> Result<Page, Trap> {
        mmu::walk(self, cpu, memory, (gva, len), access, mmu)
    }

    fn misaligned(&self, gva: Gva, access: Access) -> Trap {
        let cause = match access {
            Access::Load => cause::LOAD_MISALIGNED,
            Access::Store => cause::STORE_MISALIGNED,
            Access::Fetch => cause::FETCH_MISALIGNED,
        };
        Trap { cause, tval: gva.0 }
    }

    fn bus_error(&self, gva: Gva, access: Access) -> Trap {
        let cause = match access {
            Access::Load => cause::LOAD_ACCESS,
            Access::Store => cause::STORE_ACCESS,
            Access::Fetch => cause::FETCH_ACCESS,
        };
        Trap { cause, tval: gva.0 }
    }

    fn trap(&self, code: u32, value: u64) -> Trap {
        Trap { cause: u64::from(code), tval: value }
    }

    fn take(&self, cpu: &mut Cpu, trap: Trap) {
        trap::take(self, cpu, trap);
    }

    fn pending(&self, cpu: &Cpu, lines: u64, now_ns: u64) -> Option<Trap> {
        trap::pending(self, cpu, lines, now_ns)
    }

    fn wakes(&self, cpu: &Cpu, lines: u64, now_ns: u64) -> bool {
        trap::wakes(self, cpu, lines, now_ns)
    }

    fn deadline_ns(&self, cpu: &Cpu) -> Option<u64> {
        trap::deadline_ns(self, cpu)
    }

    fn slice_done(&self, cpu: &mut Cpu) -> u64 {
        counters::settle(self, cpu, cpu.header.insns);
        counters::until_overflow(self, cpu)
    }

    fn is_firmware_call(&self, cpu: &Cpu, trap: Trap) -> bool {
        trap::is_firmware_call(self, cpu, trap)
    }

    fn describe(&self, cpu: &Cpu) -> String {
        regs::describe(cpu)
    }
}
