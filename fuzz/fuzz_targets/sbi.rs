//! Any call of the built-in SBI, from any registers, is answered; other harts' mailboxes stay bounded.
#![no_main]

use isomer_core::{Gpa, GuestMemory, Gva};
use isomer_devices::backend::char::Discard;
use isomer_engine::{Firmware, FirmwareCx, FirmwareResult, Group};
use isomer_fuzz::{hart, input::Input};
use isomer_ir::{
    Access, Guest, MmuIndex,
    guest::{HelperEnv, TlbFlush},
};
use isomer_machine::firmware::sbi::{Sbi, boot_state};
use isomer_riscv64::{Cpu, Riscv64, Trap};
use libfuzzer_sys::fuzz_target;

/// The extensions, and a few numbers that are none.
const EXTENSIONS: [u64; 20] = [
    0x10,
    0x5449_4d45,
    0x0073_5049,
    0x5246_4e43,
    0x0048_534d,
    0x5352_5354,
    0x4442_434e,
    0x0050_4d55,
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    0x0a00_0000,
    u64::MAX,
];

/// An engine that accesses memory without translation and does nothing else.
struct Env(GuestMemory);

impl HelperEnv<Riscv64> for Env {
    fn now_ns(&self) -> u64 {
        0
    }
    fn lines(&self) -> u64 {
        0
    }
    fn entropy(&mut self) -> u64 {
        0
    }
    fn load(
        &mut self,
        guest: &Riscv64,
        _: &mut Cpu,
        gva: Gva,
        size: usize,
        _: MmuIndex,
    ) -> Result<u64, Trap> {
        let mut bytes = [0; 8];
        let read = self.0.read(Gpa(gva.0), &mut bytes[..size]);
        read.map(|()| u64::from_le_bytes(bytes)).map_err(|_| guest.bus_error(gva, Access::Load))
    }
    fn store(
        &mut self,
        guest: &Riscv64,
        _: &mut Cpu,
        gva: Gva,
        size: usize,
        _: MmuIndex,
        value: u64,
    ) -> Result<(), Trap> {
        let written = self.0.write(Gpa(gva.0), &value.to_le_bytes()[..size]);
        written.map_err(|_| guest.bus_error(gva, Access::Store))
    }
    fn translate(&mut self, _: &Riscv64, _: &mut Cpu, gva: Gva, _: Access, _: MmuIndex) -> Result<Gpa, Trap> {
        Ok(Gpa(gva.0))
    }
    fn flush_tlb(&mut self, _: TlbFlush) {}
    fn set_address_space(&mut self, _: u64) {}
    fn sync_code(&mut self) {}
    fn reconsider(&mut self) {}
    fn wait_for_interrupt(&mut self) {}
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let guest = input.pick(&[Riscv64::max, Riscv64::rva22, Riscv64::rv64])();
    let memory = hart::ram();
    let harts = 1 + input.below(4);
    let group = Group::new(harts);
    let sbi = Sbi::new(memory.clone(), harts, Box::new(Discard), Box::new(|_| ()));
    let mut firmware = sbi.hart();
    let mut env = Env(memory);
    let mut cpu = boot_state(&guest, 0, Gpa(hart::RAM), 0);
    while !input.is_empty() {
        cpu.x[17] = input.pick(&EXTENSIONS);
        cpu.x[16] = input.number();
        for argument in 10..16 {
            cpu.x[argument] = match input.u8() {
                0xff => input.u64(),
                near @ 0x80.. => hart::RAM + (u64::from(near & 0x7f) << 13),
                small => u64::from(small).wrapping_sub(4),
            };
        }
        (cpu.header.pc, cpu.stvec) = (hart::RAM + 0x1000, hart::RAM + 0x2000);
        let (extension, function) = (cpu.x[17], cpu.x[16]);
        let cx = FirmwareCx { guest: &guest, cpu: &mut cpu, env: &mut env, group: &group, index: 0 };
        let result = firmware.call(cx);
        // A hart mask that cannot be read traps in the caller.
        let went_on = [hart::RAM + 0x1004, hart::RAM + 0x2000].contains(&cpu.header.pc);
        assert!(
            went_on || result != FirmwareResult::Continue,
            "call {function:#x} of {extension:#x} ended nowhere"
        );
        assert_eq!(cpu.x[0], 0);
    }
});
