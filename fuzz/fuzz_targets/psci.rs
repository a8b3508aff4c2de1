//! Any call of the built-in PSCI is answered, and starts CPUs only where there is code.
#![no_main]

use isomer_core::Gpa;
use isomer_devices::test_finisher::PowerEvent;
use isomer_fuzz::input::Input;
use isomer_machine::firmware::psci::{Done, Machine, call};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Cpus([bool; 4]);

impl Machine for Cpus {
    fn cpus(&self) -> usize {
        self.0.len()
    }
    fn affinity(&self, cpu: usize) -> u64 {
        (cpu as u64 & 1) << 32 | cpu as u64 >> 1
    }
    fn is_on(&self, cpu: usize) -> bool {
        self.0[cpu]
    }
    fn start(&mut self, cpu: usize, entry: Gpa, _: u64) -> bool {
        assert!(entry.0.is_multiple_of(4) && self.is_code(entry));
        !std::mem::replace(&mut self.0[cpu], true)
    }
    fn is_code(&self, entry: Gpa) -> bool {
        entry.0 < 1 << 20
    }
    fn power(&mut self, _: PowerEvent) {}
    fn entropy(&mut self) -> u64 {
        u64::MAX
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut cpus = Cpus::default();
    while !input.is_empty() {
        let id = input.pick(&[0x8000_0000, 0x8400_0000, 0xc400_0000]) | u64::from(input.u8());
        let done = call(&mut cpus, 0, [id, input.number(), input.number(), input.number()]);
        assert!(!matches!(done, Done::Return([None, ..])));
    }
});
