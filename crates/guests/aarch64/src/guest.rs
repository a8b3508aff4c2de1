//! [`Guest`] for aarch64: where the engine's questions go.

use crate::{Aarch64, Cpu, Mode, Trap, helpers, lift, mode::mmu as regime, regs, trap};
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
    const INSN_ALIGN: u32 = 4;
    const INSN_MAX: u32 = 4;

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

    fn disassemble(&self, _code: &[u8], _pc: u64) -> (String, usize) {
        (String::new(), 4)
    }

    fn fetch_mmu(&self, cpu: &Cpu) -> MmuIndex {
        Mode(cpu.header.mode).mmu()
    }

    fn walk(
        &self,
        _cpu: &Cpu,
        _memory: &dyn PhysMemory,
        gva: Gva,
        _len: u32,
        access: Access,
        _mmu: MmuIndex,
    ) -> Result<Page, Trap> {
        Err(self.bus_error(gva, access))
    }

    fn misaligned(&self, gva: Gva, _access: Access) -> Trap {
        Trap::with_far(trap::syndrome(trap::ec::DATA_ABORT, 0x21), gva.0)
    }

    fn bus_error(&self, gva: Gva, _access: Access) -> Trap {
        Trap::with_far(trap::syndrome(trap::ec::DATA_ABORT, 0x10), gva.0)
    }

    fn trap(&self, code: u32, value: u64) -> Trap {
        Trap::with_far(code, value)
    }

    fn take(&self, _cpu: &mut Cpu, _trap: Trap) {}

    fn pending(&self, _cpu: &Cpu, _lines: u64, _now_ns: u64) -> Option<Trap> {
        None
    }

    fn wakes(&self, _cpu: &Cpu, _lines: u64, _now_ns: u64) -> bool {
        false
    }

    fn deadline_ns(&self, _cpu: &Cpu) -> Option<u64> {
        None
    }

    fn is_firmware_call(&self, _cpu: &Cpu, trap: Trap) -> bool {
        matches!(trap.class(), trap::ec::HVC | trap::ec::SMC)
    }

    fn describe(&self, cpu: &Cpu) -> String {
        regs::describe(cpu)
    }
}
