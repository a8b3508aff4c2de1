//! Loader tests on files made here, field by field, and on mutations of them.

use super::*;
use miette::Diagnostic;
use proptest::prelude::*;
use std::io::Write as _;

const RAM: u64 = 0x8000_0000;
const RAM_LEN: u64 = 16 << 20;

fn ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(RAM), RAM_LEN)]).unwrap()
}

fn kernel(bytes: &[u8]) -> Result<(Loaded, GuestMemory), LoadError> {
    let memory = ram();
    Kernel::load(&RISCV64, bytes, &memory, Gpa(RAM), false).map(|loaded| (loaded, memory))
}

fn code(error: &LoadError) -> String {
    let help = error.help().expect("every error has a fix").to_string();
    assert!(help.len() > 10, "{help}");
    error.code().expect("every error has a code").to_string()
}

fn kernel_error(bytes: &[u8]) -> (String, String) {
    let error = kernel(bytes).unwrap_err();
    (code(&error), error.to_string())
}

/// One segment of a test file: virtual and physical address, contents, bytes in memory.
type Seg<'a> = (u64, u64, &'a [u8], u64);

/// An ELF file of type `kind` (2 executable, 3 position-independent) for riscv64.
fn elf(kind: u16, entry: u64, segments: &[Seg<'_>]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    half(&mut file, &[kind, 243, 1, 0]);
    long(&mut file, &[entry, 64, 0]);
    half(&mut file, &[0, 0, 64, 56, segments.len() as u16, 0, 0, 0]);
    let mut offset = 64 + 56 * segments.len() as u64;
    for (vaddr, paddr, data, memsz) in segments {
        half(&mut file, &[1, 0, 7, 0]);
        long(&mut file, &[offset, *vaddr, *paddr, data.len() as u64, *memsz, 4096]);
        offset += data.len() as u64;
    }
    segments.iter().for_each(|(_, _, data, _)| file.extend_from_slice(data));
    file
}

/// A Linux `Image` of `len` bytes.
fn image(text_offset: u64, image_size: u64, magic: &[u8; 4], len: usize) -> Vec<u8> {
    let mut file = vec![0; len];
    file[..2].copy_from_slice(b"MZ");
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[0x30..0x35].copy_from_slice(b"RISCV");
    file[0x38..0x3c].copy_from_slice(magic);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn cpio(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, data) in entries.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let fields = [0, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        archive.extend_from_slice(b"070701");
        fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

#[test]
fn images_go_to_their_offset_or_behind_firmware() {
    let file = image(0x20_0000, 0x5000, b"RSC\x05", 0x1800);
    let (loaded, memory) = kernel(&file).unwrap();
    let expected = Span::new(Gpa(RAM + 0x20_0000), 0x5000).unwrap();
    assert_eq!(loaded, Loaded { format: Format::Image, entry: expected.start, span: expected });
    let mut back = vec![0; file.len()];
    memory.read(expected.start, &mut back).unwrap();
    assert_eq!(back, file);

    let behind = Kernel::load(&RISCV64, &file, &memory, Gpa(RAM + 0x20_0001), false).unwrap();
    assert_eq!(behind.entry, Gpa(RAM + 0x40_0000));
    // A kernel too old to say its size owns the bytes it has.
    let (old, _) = kernel(&image(0, 0, b"RSC\x05", 0x1800)).unwrap();
    assert_eq!(old.span, Span::new(Gpa(RAM), 0x1800).unwrap());
}

#[test]
fn arm64_images_count_from_an_aligned_address() {
    let memory = ram();
    let load = |file: &[u8], floor| Kernel::load(&AARCH64, file, &memory, Gpa(floor), false);
    let place = |file: &[u8], floor| load(file, floor).unwrap().span.start.0 - RAM;
    let modern = image(0, 0x3000, b"ARM\x64", 0x1800);
    assert_eq!((place(&modern, RAM), place(&modern, RAM + 0x1000)), (0, 2 << 20));
    assert_eq!(load(&modern, RAM).unwrap().span.len(), 0x3000);
    let randomised = image(0xa_5000, 0x3000, b"ARM\x64", 0x1800);
    assert_eq!(place(&randomised, RAM + (2 << 20)), (2 << 20) + 0xa_5000);
    assert_eq!(place(&image(0x1234, 0, b"ARM\x64", 0x1800), RAM), 0x8_0000, "too old to say");
    let error = load(&image(0x123, 0x3000, b"ARM\x64", 0x1800), RAM).unwrap_err();
    assert_eq!(code(&error), "isomer::load::damaged");
    let error = load(&image(0, 0, b"RSC\x05", 0x100), RAM).unwrap_err();
    assert_eq!(error.to_string(), "the kernel is for riscv64, but this machine is aarch64");
}

#[test]
fn images_that_cannot_run_are_refused() {
    let refused = |file: &[u8]| kernel_error(file).0;
    assert_eq!(refused(&image(0x1000, 0, b"RSC\x05", 0x100)), "isomer::load::damaged");
    assert_eq!(refused(&image(u64::MAX << 21, 0, b"RSC\x05", 0x100)), "isomer::load::damaged");
    assert_eq!(refused(&image(0, u64::MAX, b"RSC\x05", 0x100)), "isomer::load::outside_memory");
    assert_eq!(refused(&image(0, RAM_LEN + 1, b"RSC\x05", 0x100)), "isomer::load::outside_memory");
    let (id, text) = kernel_error(&image(0, 0, b"ARM\x64", 0x100));
    assert_eq!(id, "isomer::load::wrong_isa");
    assert_eq!(text, "the kernel is for aarch64, but this machine is riscv64");
    let mut big_endian = image(0, 0, b"RSC\x05", 0x100);
    big_endian[24] = 1;
    assert_eq!(refused(&big_endian), "isomer::load::wrong_isa");
    assert_eq!(refused(&image(0, 0, b"RSC\x05", 0x100)[..0x30]), "isomer::load::truncated");
}

#[test]
fn a_truncated_image_is_known_by_its_pe_sections() {
    let mut file = image(0, 0, b"RSC\x05", 0x1000);
    file[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x46] = 1; // one section, no optional header
    file[0x58 + 16..0x58 + 20].copy_from_slice(&0x800u32.to_le_bytes());
    file[0x58 + 20..0x58 + 24].copy_from_slice(&0x800u32.to_le_bytes());
    assert!(kernel(&file).is_ok());
    let (id, text) = kernel_error(&file[..0xfff]);
    assert_eq!(id, "isomer::load::truncated");
    assert!(text.contains("promises 4096 bytes, the file has 4095"), "{text}");
}

#[test]
fn elf_segments_go_to_their_physical_addresses() {
    const VIRTUAL: u64 = 0xffff_ffff_8000_0000;
    let file = elf(
        2,
        VIRTUAL + 0x1004,
        &[(VIRTUAL, RAM + 0x1000, b"text", 0x1000), (VIRTUAL + 0x1000, RAM + 0x8000, b"data, entry", 0x2000)],
    );
    let memory = ram();
    memory.write(Gpa(RAM + 0x8000), &[0xff; 0x3000]).unwrap();
    let loaded = Kernel::load(&RISCV64, &file, &memory, Gpa(RAM), false).unwrap();
    assert_eq!(loaded.entry, Gpa(RAM + 0x8004));
    assert_eq!(loaded.span, Span { start: Gpa(RAM + 0x1000), end: Gpa(RAM + 0xa000) });
    let mut back = [0; 0x2001];
    memory.read(Gpa(RAM + 0x8000), &mut back).unwrap();
    assert_eq!(&back[..11], b"data, entry");
    assert!(back[11..0x2000].iter().all(|byte| *byte == 0), "bss is cleared");
    assert_eq!(back[0x2000], 0xff, "and nothing behind it");
}

#[test]
fn position_independent_elf_goes_to_the_base() {
    let file = elf(3, 0x10, &[(0, 0, &[1; 64], 64), (0x4000, 0x4000, &[2; 8], 16)]);
    let memory = ram();
    let loaded = Firmware::load(&RISCV64, &file, &memory, Gpa(RAM)).unwrap();
    assert_eq!(
        (loaded.entry, loaded.span.start, loaded.span.end),
        (Gpa(RAM + 0x10), Gpa(RAM), Gpa(RAM + 0x4010))
    );
    // One that has a place keeps it; an executable elsewhere is an error.
    let placed = elf(3, RAM + 0x40_0000, &[(RAM + 0x40_0000, RAM + 0x40_0000, &[1; 64], 64)]);
    assert_eq!(Firmware::load(&RISCV64, &placed, &memory, Gpa(RAM)).unwrap().entry, Gpa(RAM + 0x40_0000));
    let elsewhere = elf(2, 0x1000, &[(0x1000, 0x1000, &[1; 64], 64)]);
    assert_eq!(kernel_error(&elsewhere).0, "isomer::load::outside_memory");
}

#[test]
fn wrong_elf_files_are_named() {
    let good = elf(2, RAM, &[(RAM, RAM, b"code", 4)]);
    assert!(kernel(&good).is_ok());
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        kernel_error(&file)
    };
    let wrong_isa = |at, bytes: &[u8], name: &str| {
        let (id, text) = patched(at, bytes);
        assert_eq!(id, "isomer::load::wrong_isa");
        assert!(text.contains(name), "{text}");
    };
    wrong_isa(18, &[62, 0], "x86_64");
    wrong_isa(18, &[0xff, 0xfe], "ELF machine 65279");
    wrong_isa(4, &[1], "riscv (32-bit ELF)");
    let mut big_endian = good.clone();
    big_endian[5] = 2;
    big_endian[18..20].copy_from_slice(&[0, 243]);
    assert!(kernel_error(&big_endian).1.contains("big-endian riscv64"));
    assert_eq!(patched(16, &[1, 0]).0, "isomer::load::foreign_format", "a kernel module");
    assert_eq!(patched(16, &[4, 0]).0, "isomer::load::damaged", "a core dump");
    assert_eq!(patched(24, &[0; 8]).0, "isomer::load::damaged", "no such entry");
    assert_eq!(patched(32, &[0xff; 8]).0, "isomer::load::damaged", "no program headers there");
    assert_eq!(patched(56, &[0, 0]).0, "isomer::load::damaged", "no program headers");
    assert_eq!(kernel_error(&good[..40]).0, "isomer::load::truncated");
    assert_eq!(kernel_error(&good[..good.len() - 1]).0, "isomer::load::truncated");
    // p_filesz above p_memsz, then p_offset + p_filesz wrapping.
    assert_eq!(patched(64 + 40, &[1, 0, 0, 0, 0, 0, 0, 0]).0, "isomer::load::damaged");
    assert_eq!(patched(64 + 8, &[0xff; 8]).0, "isomer::load::damaged");
    let overlapping = elf(2, RAM, &[(RAM, RAM, b"code", 0x1000), (RAM, RAM + 0xfff, b"data", 4)]);
    assert!(kernel_error(&overlapping).1.contains("overlap"));
    let huge = elf(2, RAM, &[(RAM, RAM, b"code", u64::MAX)]);
    assert_eq!(kernel_error(&huge).0, "isomer::load::outside_memory");
}

#[test]
fn compressed_files_are_unpacked_within_the_machines_memory() {
    let file = image(0, 0, b"RSC\x05", 0x1800);
    for packed in [gzip(&file), zstd::encode_all(&file[..], 3).unwrap()] {
        let (loaded, memory) = kernel(&packed).unwrap();
        let mut back = vec![0; file.len()];
        memory.read(loaded.entry, &mut back).unwrap();
        assert_eq!(back, file);
        assert_eq!(kernel_error(&packed[..packed.len() - 6]).0, "isomer::load::damaged");
    }
    let bomb = vec![0; RAM_LEN as usize + 1];
    for packed in [gzip(&bomb), zstd::encode_all(&bomb[..], 3).unwrap()] {
        assert_eq!(kernel_error(&packed).0, "isomer::load::unpacks_too_large");
    }
    assert_eq!(kernel_error(&gzip(&[])).0, "isomer::load::empty");
}

#[test]
fn foreign_files_are_recognised() {
    let at = |offset: usize, magic: &[u8]| {
        let mut file = vec![0; 0x9000];
        file[offset..offset + magic.len()].copy_from_slice(magic);
        kernel_error(&file)
    };
    for (offset, magic, name) in [
        (0x202, &b"HdrS"[..], "bzImage"),
        (0, b"QFI\xfb", "qcow2"),
        (0, b"070701", "initramfs"),
        (0, b"MZ", "PE executable"),
        (0, b"\xd0\x0d\xfe\xed", "device tree"),
        (0, b"\xfd7zXZ\0", "xz"),
        (0x200, b"EFI PART", "disk image"),
    ] {
        let (id, text) = at(offset, magic);
        assert_eq!(id, "isomer::load::foreign_format");
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(kernel_error(&[]).0, "isomer::load::empty");
    let (id, text) = kernel_error(b"hello, world");
    assert_eq!(id, "isomer::load::unknown_format");
    assert!(text.contains("68 65 6c 6c 6f 2c 20 77"), "{text}");
}

#[test]
fn raw_files_are_firmware_or_follow_it() {
    let memory = ram();
    let nop_wfi = [0x13, 0, 0, 0, 0x73, 0, 0x50, 0x10];
    let firmware = Firmware::load(&RISCV64, &nop_wfi, &memory, Gpa(RAM)).unwrap();
    assert_eq!((firmware.format, firmware.entry), (Format::Raw, Gpa(RAM)));
    let next = Kernel::load(&RISCV64, &nop_wfi, &memory, firmware.span.end, true).unwrap();
    assert_eq!((next.format, next.entry), (Format::Raw, Gpa(RAM + 0x20_0000)));
    let error = Firmware::load(&RISCV64, b"QFI\xfb disk", &memory, Gpa(RAM)).unwrap_err();
    assert_eq!(code(&error), "isomer::load::foreign_format");
    let large = vec![1; RAM_LEN as usize + 1];
    let error = Firmware::load(&RISCV64, &large, &memory, Gpa(RAM)).unwrap_err();
    assert_eq!(code(&error), "isomer::load::outside_memory");
}

#[test]
fn initrds_are_looked_at() {
    let memory = ram();
    let load = |bytes: &[u8]| load_initrd(bytes, &memory, Gpa(RAM)).map_err(|e| code(&e));
    let archive = cpio(&[("init", b"#!/bin/sh"), ("empty", b""), ("odd", b"12345")]);
    assert_eq!(load(&archive), Ok(Span::new(Gpa(RAM), archive.len() as u64).unwrap()));
    let joined = [archive.clone(), vec![0; 512], gzip(&archive)].concat();
    assert!(load(&joined).is_ok());
    assert!(load(&gzip(&archive)).is_ok());
    assert_eq!(load(&archive[..archive.len() - 20]), Err("isomer::load::truncated".into()));
    let mut damaged = archive.clone();
    damaged[60] = b'x';
    assert_eq!(load(&damaged), Err("isomer::load::damaged".into()));
    assert_eq!(load(b""), Err("isomer::load::empty".into()));
    assert_eq!(load(b"\x7fELF...."), Err("isomer::load::foreign_format".into()));
    assert_eq!(load(b"random bytes"), Err("isomer::load::unknown_format".into()));
}

#[test]
fn placement_follows_qemu() {
    let place = |ram_mib: u64, initrd: u64| {
        let ram = Span::new(Gpa(RAM), ram_mib << 20).unwrap();
        let span = Span::new(Gpa(RAM + 0x20_0000), 32 << 20).unwrap();
        let mut taken = vec![Occupied { name: "kernel", span }];
        let start = place_initrd(ram, &taken, span.start, initrd)?;
        taken.push(Occupied { name: "initrd", span: Span::new(start, initrd).unwrap() });
        let fdt = place_fdt(ram, &taken, 0x3000)?;
        taken.push(Occupied { name: "device tree", span: Span::new(fdt, 0x3000).unwrap() });
        check_overlaps(&taken)?;
        Ok::<_, LoadError>((start.0, fdt.0))
    };
    // Half of RAM from the kernel, 512 MiB at most; the device tree below the end of RAM or 3 GiB.
    assert_eq!(place(512, 1 << 20).unwrap(), (0x9020_0000, 0x9fe0_0000));
    assert_eq!(place(4096, 1 << 20).unwrap(), (0xa020_0000, 0xbfe0_0000));
    // No room there: directly below the device tree.
    assert_eq!(place(128, 80 << 20).unwrap(), (0x82e0_0000, 0x87e0_0000));
    // An initrd across 3 GiB pushes the device tree to the end of RAM.
    assert_eq!(place(4096, 600 << 20).unwrap(), (0xa020_0000, 0x1_7fe0_0000));
    let error = place(64, 40 << 20).unwrap_err();
    assert_eq!(code(&error), "isomer::load::no_room");
    assert!(error.to_string().contains("the kernel at 0x80200000..0x82200000"), "{error}");
}

#[test]
fn overlaps_are_named() {
    let at = |name, start, len| Occupied { name, span: Span::new(Gpa(start), len).unwrap() };
    assert!(check_overlaps(&[at("kernel", 0x1000, 0x1000), at("firmware", 0, 0x1000)]).is_ok());
    let error = check_overlaps(&[at("kernel", 0x1000, 0x1000), at("firmware", 0, 0x1001)]).unwrap_err();
    assert_eq!(error.to_string(), "the firmware at 0x0..0x1001 and the kernel at 0x1000..0x2000 overlap");
    assert_eq!(code(&error), "isomer::load::overlap");
}

/// Mutates `file` at several places; whatever comes of it, nothing panics and what is loaded lies in RAM.
fn survives(mut file: Vec<u8>, mutations: &[(usize, u8)], len: usize) {
    for (at, byte) in mutations {
        let at = at % file.len();
        file[at] = *byte;
    }
    file.truncate(len);
    for accept_raw in [false, true] {
        let memory = ram();
        if let Ok(loaded) = Kernel::load(&RISCV64, &file, &memory, Gpa(RAM), accept_raw) {
            let whole = Span::new(Gpa(RAM), RAM_LEN).unwrap();
            assert!(whole.contains(&loaded.span) && loaded.span.holds(loaded.entry), "{loaded:?}");
        }
        let _ = load_initrd(&file, &memory, Gpa(RAM));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_elf(mutations in prop::collection::vec((0usize..240, any::<u8>()), 0..6), len in 0usize..400) {
        survives(elf(2, RAM, &[(RAM, RAM, b"code", 0x100), (RAM + 0x1000, RAM + 0x1000, b"data", 8)]), &mutations, len);
    }

    #[test]
    fn mutated_image(mutations in prop::collection::vec((0usize..0x80, any::<u8>()), 0..6), len in 0usize..0x400) {
        survives(image(0, 0x400, b"RSC\x05", 0x400), &mutations, len);
    }

    #[test]
    fn mutated_cpio(mutations in prop::collection::vec((0usize..300, any::<u8>()), 0..6), len in 0usize..500) {
        survives(cpio(&[("init", b"#!/bin/sh"), ("a", b"12345")]), &mutations, len);
    }

    #[test]
    fn mutated_gzip(mutations in prop::collection::vec((3usize..100, any::<u8>()), 0..6), len in 0usize..200) {
        survives(gzip(&image(0, 0x400, b"RSC\x05", 0x400)), &mutations, len);
    }

    #[test]
    fn mutated_zstd(mutations in prop::collection::vec((4usize..100, any::<u8>()), 0..6), len in 0usize..200) {
        survives(zstd::encode_all(&image(0, 0x400, b"RSC\x05", 0x400)[..], 3).unwrap(), &mutations, len);
    }
}
