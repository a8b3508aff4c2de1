//! ELF files (System V gABI, chapters 4 and 5): 64-bit little-endian, placed by the physical addresses of their
//! program headers.

use super::{
    Format, Loaded, Loader, Span,
    error::{LoadError, Role},
};
use isomer_core::Gpa;
use object::{
    LittleEndian,
    elf::{self, FileHeader64, ProgramHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

const LE: LittleEndian = LittleEndian;

/// Instruction sets by `e_machine`, for messages.
const MACHINES: &[(elf::Machine, &str)] = &[
    (elf::EM_RISCV, "riscv64"),
    (elf::EM_AARCH64, "aarch64"),
    (elf::EM_X86_64, "x86_64"),
    (elf::EM_386, "i386"),
    (elf::EM_PPC64, "ppc64"),
    (elf::EM_PPC, "ppc"),
    (elf::EM_ARM, "arm"),
    (elf::EM_S390, "s390x"),
    (elf::EM_MIPS, "mips"),
    (elf::EM_SPARCV9, "sparc64"),
    (elf::EM_LOONGARCH, "loongarch64"),
];

/// A segment to load, checked against the file; not yet against memory.
struct Segment<'a> {
    vaddr: u64,
    paddr: u64,
    data: &'a [u8],
    memsz: u64,
}

/// Loads all segments and returns the physical entry.
pub(super) fn load(loader: &Loader<'_>, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let role = loader.role;
    let header = header(loader, bytes)?;
    let segments = segments(role, header, bytes)?;
    let lowest = segments.iter().map(|s| s.paddr).min();
    let lowest = lowest.ok_or_else(|| damaged(role, "it has nothing to load".into()))?;
    let bias = bias(loader, header.e_type(LE), lowest);
    let placed = place(loader, &segments, bias)?;
    let entry = entry(role, header.e_entry(LE), &segments, &placed)?;
    for (segment, at) in segments.iter().zip(&placed) {
        loader.memory.write(at.start, segment.data)?;
        let tail = at.start.wrapping_add(segment.data.len() as u64);
        clear(loader, Span { start: tail, end: at.end })?;
    }
    let start = placed.iter().map(|s| s.start).min().unwrap_or_default();
    let end = placed.iter().map(|s| s.end).max().unwrap_or_default();
    Ok(Loaded { format: Format::Elf, entry, span: Span { start, end } })
}

fn damaged(role: Role, why: String) -> LoadError {
    LoadError::Damaged { role, format: "ELF", why }
}

/// The file header, if it is an executable of this machine.
fn header<'a>(loader: &Loader<'_>, bytes: &'a [u8]) -> Result<&'a FileHeader64<LittleEndian>, LoadError> {
    let role = loader.role;
    let need = size_of::<FileHeader64<LittleEndian>>();
    if bytes.len() < need {
        let (need, have) = (need as u64, bytes.len() as u64);
        return Err(LoadError::Truncated { role, format: "ELF", need, have });
    }
    let wrong = |found: String| LoadError::WrongIsa { role, found, expected: loader.formats.isa };
    let big_endian = bytes[5] == elf::ELFDATA2MSB.0;
    let machine = if big_endian { [bytes[19], bytes[18]] } else { [bytes[18], bytes[19]] };
    let machine = elf::Machine(u16::from_le_bytes(machine));
    let name = MACHINES.iter().find(|(number, _)| *number == machine);
    let name = name.map_or_else(|| format!("ELF machine {}", machine.0), |(_, name)| (*name).to_owned());
    if machine != loader.formats.elf_machine {
        return Err(wrong(name));
    }
    if bytes[4] != elf::ELFCLASS64.0 {
        return Err(wrong(format!("{} (32-bit ELF)", name.trim_end_matches("64"))));
    }
    if big_endian {
        return Err(wrong(format!("big-endian {name}")));
    }
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|e| damaged(role, e.to_string()))?;
    match header.e_type(LE) {
        elf::ET_EXEC | elf::ET_DYN => Ok(header),
        elf::ET_REL => Err(LoadError::Foreign {
            role,
            what: "an object file (or kernel module), not yet linked",
            fix: "give the linked program",
        }),
        _ => Err(damaged(role, "it is neither an executable nor position-independent".into())),
    }
}

/// What to load, in the order of the file. Everything a segment says about the file is checked here.
fn segments<'a>(
    role: Role,
    header: &FileHeader64<LittleEndian>,
    bytes: &'a [u8],
) -> Result<Vec<Segment<'a>>, LoadError> {
    let headers = header.program_headers(LE, bytes).map_err(|e| damaged(role, e.to_string()))?;
    let loads = headers.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD && p.p_memsz(LE) != 0);
    loads.map(|program| segment(role, program, bytes)).collect()
}

fn segment<'a>(
    role: Role,
    program: &ProgramHeader64<LittleEndian>,
    bytes: &'a [u8],
) -> Result<Segment<'a>, LoadError> {
    let (offset, filesz, memsz) = (program.p_offset(LE), program.p_filesz(LE), program.p_memsz(LE));
    let have = bytes.len() as u64;
    let end = offset.checked_add(filesz);
    let end = end.ok_or_else(|| damaged(role, format!("segment at file offset {offset:#x} wraps")))?;
    if end > have {
        return Err(LoadError::Truncated { role, format: "ELF", need: end, have });
    }
    if filesz > memsz {
        let why = format!("segment at file offset {offset:#x} has more bytes in the file than in memory");
        return Err(damaged(role, why));
    }
    let data = &bytes[offset as usize..end as usize];
    Ok(Segment { vaddr: program.p_vaddr(LE), paddr: program.p_paddr(LE), data, memsz })
}

/// What to add to physical addresses: 0 for files that have some. Position-independent files, and those whose
/// linker script knows no physical addresses (Linux' `vmlinux` for riscv64 starts at 0), go to the default place.
fn bias(loader: &Loader<'_>, kind: elf::FileType, lowest: u64) -> u64 {
    let has_place = loader.ram().holds(Gpa(lowest));
    let movable = kind == elf::ET_DYN || lowest == 0;
    if movable && !has_place { loader.base.0.wrapping_sub(lowest) } else { 0 }
}

/// Where each segment goes. Segments may not share memory: a file of many overlapping ones would be a way to make
/// the host copy without end.
fn place(loader: &Loader<'_>, segments: &[Segment<'_>], bias: u64) -> Result<Vec<Span>, LoadError> {
    let spans = segments.iter().map(|s| loader.in_ram(Gpa(s.paddr.wrapping_add(bias)), s.memsz));
    let spans = spans.collect::<Result<Vec<_>, _>>()?;
    let mut sorted = spans.clone();
    sorted.sort_by_key(|span| span.start);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
        let why = format!("its segments at {} and {} overlap", pair[0], pair[1]);
        return Err(damaged(loader.role, why));
    }
    Ok(spans)
}

/// The physical address of the first instruction. `e_entry` is virtual; where segments have other physical than
/// virtual addresses, some files give the physical one all the same.
fn entry(role: Role, e_entry: u64, segments: &[Segment<'_>], placed: &[Span]) -> Result<Gpa, LoadError> {
    let virtually = segments.iter().zip(placed).find_map(|(segment, at)| {
        let offset = e_entry.checked_sub(segment.vaddr)?;
        (offset < segment.memsz).then(|| at.start.wrapping_add(offset))
    });
    let physically = || placed.iter().any(|at| at.holds(Gpa(e_entry))).then_some(Gpa(e_entry));
    let entry = virtually.or_else(physically);
    entry.ok_or_else(|| damaged(role, format!("its entry point {e_entry:#x} is in no segment")))
}

/// Zeroes memory: fresh RAM is zero, but after a restart it holds what the last run left.
fn clear(loader: &Loader<'_>, span: Span) -> Result<(), LoadError> {
    const CHUNK: usize = 64 << 10;
    let zeros = [0; CHUNK];
    let mut at = span.start;
    while at < span.end {
        let len = (span.end.0 - at.0).min(CHUNK as u64);
        loader.memory.write(at, &zeros[..len as usize])?;
        at = at.wrapping_add(len);
    }
    Ok(())
}
