//! Any file given as kernel or firmware is loaded inside RAM or refused.
#![no_main]

use isomer_core::{Gpa, GuestMemory};
use isomer_fuzz::{input::Input, seeds};
use isomer_machine::loader::{AARCH64, Firmware, Kernel, LoadError, Loaded, RISCV64, Span};
use libfuzzer_sys::fuzz_target;

const RAM: Gpa = Gpa(0x8000_0000);
const RAM_BYTES: u64 = 8 << 20;

fuzz_target!(
    init: seeds::plant([("elf", with_options(elf())), ("image", with_options(image())), ("raw", vec![3, 0, 0x13])]),
    |data: &[u8]| {
        let mut input = Input::new(data);
        let (options, floor) = (input.u8(), RAM.0 + (u64::from(input.u8()) << 12));
        let bytes = input.rest();
        let memory = GuestMemory::new(&[(Gpa(0x1000), 0xf000), (RAM, RAM_BYTES)]).expect("the host has 8 MiB");
        let formats = if options & 4 != 0 { &AARCH64 } else { &RISCV64 };
        let loaded = match options & 1 {
            0 => Kernel::load(formats, bytes, &memory, Gpa(floor), options & 2 != 0),
            _ => Firmware::load(formats, bytes, &memory, Gpa(floor)),
        };
        check(&loaded);
    }
);

fn check(loaded: &Result<Loaded, LoadError>) {
    match loaded {
        Ok(loaded) => {
            let ram = Span { start: RAM, end: Gpa(RAM.0 + RAM_BYTES) };
            assert!(ram.contains(&loaded.span) && !loaded.span.is_empty(), "{loaded:?}");
            assert!(loaded.span.holds(loaded.entry), "{loaded:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A kernel, at the start of RAM.
fn with_options(file: Vec<u8>) -> Vec<u8> {
    [vec![0, 0], file].concat()
}

/// An ELF file of one segment.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 0x100];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 243, 0, 1]);
    put(24, &RAM.0.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 1, 0, 64]);
    // PT_LOAD, RX: offset 0x80, both addresses, 0x80 bytes in the file and 0x1000 in memory.
    put(64, &[1, 0, 0, 0, 5]);
    for (field, value) in [0x80, RAM.0, RAM.0, 0x80, 0x1000, 0x1000].into_iter().enumerate() {
        put(72 + 8 * field, &u64::to_le_bytes(value));
    }
    file
}

/// A Linux `Image`.
fn image() -> Vec<u8> {
    let mut file = vec![0; 0x80];
    file[16..24].copy_from_slice(&0x2000u64.to_le_bytes());
    file[0x38..0x3c].copy_from_slice(b"RSC\x05");
    file
}
