//! Any file given as initrd is copied whole or refused, wherever it is to go.
#![no_main]

use isomer_core::{Gpa, GuestMemory};
use isomer_fuzz::{input::Input, seeds};
use isomer_machine::loader::{Occupied, Span, check_overlaps, load_initrd, place_fdt, place_initrd};
use libfuzzer_sys::fuzz_target;

const RAM: u64 = 0x8000_0000;
const RAM_BYTES: u64 = 4 << 20;

fuzz_target!(
    init: seeds::plant([("cpio", [&[0; 3][..], &cpio()].concat())]),
    |data: &[u8]| {
        let mut input = Input::new(data);
        let kernel_len = input.number();
        let at = Gpa(RAM + (u64::from(input.u16()) << 8));
        let bytes = input.rest();
        let memory = GuestMemory::new(&[(Gpa(RAM), RAM_BYTES)]).expect("the host has 4 MiB");
        if let Ok(span) = load_initrd(bytes, &memory, at) {
            let mut back = vec![0; bytes.len()];
            memory.read(span.start, &mut back).expect("the initrd is in RAM");
            assert!(back == bytes && span.start == at && span.len() == bytes.len() as u64);
        }
        places(kernel_len, bytes.len() as u64);
    }
);

/// Whatever the kernel's size, what is placed is in RAM and apart.
fn places(kernel_len: u64, initrd_len: u64) {
    let ram = Span { start: Gpa(RAM), end: Gpa(RAM + (64 << 20)) };
    let Some(kernel) = Span::new(ram.start, kernel_len) else { return };
    let mut taken = vec![Occupied { name: "kernel", span: kernel }];
    for initrd_len in [initrd_len, initrd_len << 12, kernel_len] {
        let Ok(at) = place_initrd(ram, &taken, kernel.start, initrd_len) else { continue };
        let initrd = Span::new(at, initrd_len).expect("it does not wrap");
        assert!(ram.contains(&initrd));
        taken.push(Occupied { name: "initrd", span: initrd });
        check_overlaps(&taken).expect("the initrd is apart");
        let fdt = place_fdt(ram, &taken, 1 << 16).expect("room is left for a device tree");
        let fdt = Occupied { name: "device tree", span: Span::new(fdt, 1 << 16).expect("it does not wrap") };
        check_overlaps(&[&taken[..], &[fdt]].concat()).expect("the device tree is apart");
        taken.pop();
    }
}

/// An archive of one file and the trailer.
fn cpio() -> Vec<u8> {
    let entry = |name: &str, content: &str| {
        let fields = [1, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        let mut entry = format!("070701{header}{name}\0").into_bytes();
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend(content.bytes());
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    };
    [entry("init", "#!/bin/sh"), entry("TRAILER!!!", "")].concat()
}
