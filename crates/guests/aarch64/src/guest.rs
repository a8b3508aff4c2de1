//! [`Guest`] for aarch64: where the engine's questions go.

use crate::{
    Aarch64, Cpu, Mode, Trap, abort_syndrome, disasm, helpers, lift, mmu, mode::mmu as regime, pmu, regs,
    trap,
};
use isomer_core::Gva;
use isomer_ir::{
    Access, Builder, Guest, HelperDesc, MmuIndex, Page, SlotDesc,
    guest::{Lifted, PhysMemory},
    softfloat::{NanRule, Tininess},
    types::FpModel,
};

impl Guest for Aarch64 {
    type Cpu = Cpu;
    type Trap = Trap;

    const NAME: &'static str = "aarch64";
    const SLOTS: &'static [SlotDesc] = &regs::SLOTS;
    const HELPERS: &'static [HelperDesc<Self>] = &helpers::TABLE;
    const MMU_INDEXES: usize = regime::COUNT;
    const SHARED_MMUS: u64 = 1 << regime::E10_1.0 | 1 << regime::E10_1_PAN.0;
    const INSN_ALIGN: u32 = 4;
    const INSN_MAX: u32 = 4;

    fn model_id(&self) -> String {
        format!("{} {:x} {:?}", self.name, self.features.bits(), self.id)
    }

    fn fp_model(&self, mode: u32) -> FpModel {
        let mode = Mode(mode);
        FpModel {
            nan: if mode.default_nan() { NanRule::Canonical } else { NanRule::Arm },
            tininess: Tininess::Before,
            flush_inputs: mode.flush_to_zero(),
            flush_outputs: mode.flush_to_zero(),
        }
    }

    fn lift_insn(&self, mode: u32, code: &[u8], offset: u32, b: &mut Builder) -> Lifted {
        lift::lift_insn(self, mode, code, offset, b)
    }

    fn disassemble(&self, code: &[u8], pc: u64) -> (String, usize) {
        disasm::disassemble(self.features, code, pc)
    }

    fn fetch_mmu(&self, cpu: &Cpu) -> MmuIndex {
        Mode(cpu.header.mode).mmu()
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
        trap::misaligned(gva, access)
    }

    fn bus_error(&self, gva: Gva, access: Access) -> Trap {
        trap::external(gva, access)
    }

    fn trap(&self, code: u32, value: u64) -> Trap {
        Trap::with_far(code, value)
    }

    fn complete(&self, cpu: &Cpu, memory: &dyn PhysMemory, trap: Trap) -> Trap {
        abort_syndrome::complete(self, cpu, memory, trap)
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
        pmu::settle(cpu, cpu.header.insns);
        pmu::until_overflow(cpu)
    }

    fn is_firmware_call(&self, cpu: &Cpu, trap: Trap) -> bool {
        trap::is_firmware_call(self, cpu, &trap)
    }

    fn describe(&self, cpu: &Cpu) -> String {
        regs::describe(cpu)
    }
}
