//! Where the initrd and the device tree go: where QEMU's `virt` board puts them, or else wherever there is room.

use super::{LoadError, Span};
use isomer_core::{Gpa, PAGE_SIZE};

/// The most the initrd is moved away from the kernel, in bytes (QEMU `riscv_load_initrd`).
const INITRD_DISTANCE_MAX: u64 = 512 << 20;
/// Alignment of the device tree, in bytes: Linux maps it with one 2 MiB page.
const FDT_ALIGN: u64 = 2 << 20;
/// The device tree stays below this where RAM starts below, so that 32-bit code reaches it
/// (QEMU `riscv_compute_fdt_addr`).
const FDT_CEILING: u64 = 3 << 30;
/// Room that is kept for the device tree, in bytes.
const FDT_LEN_MAX: u64 = crate::fdt::LEN_MAX as u64;

/// Memory that has an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occupied {
    /// For messages: "kernel", "firmware", "initrd", "device tree".
    pub name: &'static str,
    /// The memory.
    pub span: Span,
}

/// An error if any two overlap.
pub fn check_overlaps(occupied: &[Occupied]) -> Result<(), LoadError> {
    let mut sorted = occupied.to_vec();
    sorted.sort_by_key(|o| (o.span.start, o.span.end));
    let clash = sorted.windows(2).find(|pair| pair[0].span.overlaps(&pair[1].span));
    clash.map_or(Ok(()), |pair| {
        Err(LoadError::Overlap {
            first: pair[0].name,
            first_span: pair[0].span,
            second: pair[1].name,
            second_span: pair[1].span,
        })
    })
}

/// Where an initrd of `len` bytes goes: half of RAM (512 MiB at most) above the kernel's start as QEMU does, or, where
/// that leaves no room, directly below the device tree. Room for a device tree is left in any case.
pub fn place_initrd(ram: Span, taken: &[Occupied], kernel_start: Gpa, len: u64) -> Result<Gpa, LoadError> {
    let distance = (ram.len() / 2).min(INITRD_DISTANCE_MAX);
    let usual = kernel_start.0.checked_add(distance).and_then(|a| a.checked_next_multiple_of(PAGE_SIZE));
    let below_fdt =
        fdt_candidates(ram, FDT_LEN_MAX).map(|fdt| Some(fdt?.0.checked_sub(len)? & !(PAGE_SIZE - 1)));
    let candidates = [usual].into_iter().chain(below_fdt).flatten().map(Gpa);
    let fits = |start: &Gpa| {
        let Some(span) = free(ram, taken, *start, len) else { return false };
        let with_initrd = [taken, &[Occupied { name: "initrd", span }]].concat();
        place_fdt(ram, &with_initrd, FDT_LEN_MAX).is_ok()
    };
    let mut candidates = candidates.filter(fits);
    candidates.next().ok_or_else(|| no_room("initrd", len, taken))
}

/// Where a device tree of `len` bytes goes: as high as possible, 2 MiB-aligned, below 3 GiB unless that is taken.
pub fn place_fdt(ram: Span, taken: &[Occupied], len: u64) -> Result<Gpa, LoadError> {
    let mut candidates = fdt_candidates(ram, len).into_iter().flatten();
    let found = candidates.find(|start| free(ram, taken, *start, len).is_some());
    found.ok_or_else(|| no_room("device tree", len, taken))
}

/// The highest places below 3 GiB and below the end of RAM.
fn fdt_candidates(ram: Span, len: u64) -> [Option<Gpa>; 2] {
    let ceiling = if ram.start.0 < FDT_CEILING { ram.end.0.min(FDT_CEILING) } else { ram.end.0 };
    [ceiling, ram.end.0].map(|end| Some(Gpa(end.checked_sub(len)? & !(FDT_ALIGN - 1))))
}

/// `len` bytes from `start`, if they are in RAM and nobody's.
fn free(ram: Span, taken: &[Occupied], start: Gpa, len: u64) -> Option<Span> {
    let span = Span::new(start, len)?;
    (ram.contains(&span) && !taken.iter().any(|o| o.span.overlaps(&span))).then_some(span)
}

fn no_room(what: &'static str, len: u64, taken: &[Occupied]) -> LoadError {
    let others: Vec<_> = taken.iter().map(|o| format!("the {} at {}", o.name, o.span)).collect();
    let others = if others.is_empty() { "nothing".to_owned() } else { others.join(" and ") };
    LoadError::NoRoom { what, len, others }
}
