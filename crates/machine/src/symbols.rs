//! Names for guest addresses: the symbol tables of ELF files (System V gABI, chapter 4), and `System.map` as Linux's build
//! and `/proc/kallsyms` write it.

use crate::{Boot, MachineError, Spec, loader};
use object::{Object, ObjectSymbol, SymbolKind};
use std::{borrow::Cow, fs, path::Path};

/// Symbols kept; more than any kernel has.
const SYMBOLS_MAX: usize = 4 << 20;
/// Bytes kept of a name.
const NAME_MAX: usize = 256;
/// How far behind a symbol of unknown size an address is still called by its name.
const REACH: u64 = 1 << 20;
/// The most a compressed file may hold.
const UNPACKED_MAX: u64 = 1 << 30;

struct Symbol {
    address: u64,
    /// In bytes; 0 if it is not known.
    size: u64,
    name: String,
}

/// Symbols, by address.
#[derive(Default)]
pub struct Symbols(Vec<Symbol>);

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Symbols({})", self.0.len())
    }
}

impl Symbols {
    /// What the files of `spec` tell: `--symbols`, which must have some, and kernel and firmware, which may.
    ///
    /// # Errors
    /// When a file given for its symbols cannot be read, or has none.
    pub fn of(spec: &Spec) -> Result<Self, MachineError> {
        let mut all = Self::default();
        for path in &spec.profile.symbols {
            let bytes = read(path)?;
            let found = Self::parse(&bytes);
            if found.0.is_empty() {
                return Err(MachineError::Spec {
                    why: format!("there are no symbols in {}", path.display()),
                    fix: "give an ELF file that is not stripped, or the kernel's System.map".into(),
                });
            }
            all.0.extend(found.0);
        }
        if let Boot::Files { kernel, firmware, .. } = &spec.boot {
            for path in [kernel, firmware].into_iter().flatten() {
                all.0.extend(Self::parse(&read(path)?).0);
            }
        }
        all.sort();
        Ok(all)
    }

    /// The symbols of one file, of whichever kind; none if it is neither.
    fn parse(bytes: &[u8]) -> Self {
        let bytes = loader::unpack(bytes, UNPACKED_MAX).unwrap_or(Cow::Borrowed(bytes));
        let mut symbols = match object::File::parse(&*bytes) {
            Ok(file) => Self::of_elf(&file),
            Err(_) => std::str::from_utf8(&bytes).map_or_else(|_| Self::default(), Self::of_map),
        };
        symbols.sort();
        symbols
    }

    fn of_elf(file: &object::File<'_>) -> Self {
        let code = |symbol: &object::Symbol<'_, '_>| {
            // Assembly has labels without a type.
            symbol.is_definition()
                || symbol.kind() == SymbolKind::Label
                || symbol.kind() == SymbolKind::Unknown
        };
        let symbol = |symbol: object::Symbol<'_, '_>| {
            let name = symbol.name().ok().filter(|name| is_name(name))?;
            (code(&symbol) && symbol.address() != 0).then(|| Symbol {
                address: symbol.address(),
                size: symbol.size(),
                name: shorten(name),
            })
        };
        Self(file.symbols().filter_map(symbol).take(SYMBOLS_MAX).collect())
    }

    /// Lines `ADDRESS TYPE NAME`, of which code has the types t, T, w and W.
    fn of_map(text: &str) -> Self {
        let symbol = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
            let kind = words.next()?;
            let name = words.next().filter(|name| is_name(name))?;
            matches!(kind, "t" | "T" | "w" | "W").then(|| Symbol { address, size: 0, name: shorten(name) })
        };
        Self(text.lines().filter_map(symbol).take(SYMBOLS_MAX).collect())
    }

    fn sort(&mut self) {
        // Of several names for one address, the one with a size, then the first by name.
        self.0.sort_by(|a, b| (a.address, b.size, &a.name).cmp(&(b.address, a.size, &b.name)));
        self.0.dedup_by_key(|symbol| symbol.address);
    }

    /// The symbol that holds `address`, and how far behind its start that is.
    pub fn lookup(&self, address: u64) -> Option<(&str, u64)> {
        let after = self.0.partition_point(|symbol| symbol.address <= address);
        let symbol = &self.0[after.checked_sub(1)?];
        let offset = address - symbol.address;
        let reach = if symbol.size == 0 { REACH } else { symbol.size };
        (offset < reach).then_some((&*symbol.name, offset))
    }
}

/// Not one of the marks that assemblers leave (`$x`, `.L5`), nor empty.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['$', '.'])
}

fn shorten(name: &str) -> String {
    let end = (0..=NAME_MAX.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    name[..end].to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    fs::read(path).map_err(|source| MachineError::File { what: "symbols of", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ProfileOptions;

    const MAP: &str = "\
ffffffff80000000 T _start
ffffffff80000000 t $x
ffffffff80000040 t memcpy
ffffffff80000040 T __memcpy
ffffffff80001000 D a_variable
ffffffff80002000 W weak
0000000000000000 A nothing
not a line
";

    #[test]
    fn a_map_names_code() {
        let symbols = Symbols::parse(MAP.as_bytes());
        let name = |address| symbols.lookup(address);
        assert_eq!(name(0xffff_ffff_8000_0000), Some(("_start", 0)));
        assert_eq!(name(0xffff_ffff_8000_0048), Some(("__memcpy", 8)));
        assert_eq!(name(0xffff_ffff_8000_2fff), Some(("weak", 0xfff)));
        assert_eq!(name(0xffff_ffff_7fff_ffff), None);
        assert_eq!(name(u64::MAX), None);
        assert_eq!(symbols.0.len(), 3);
    }

    #[test]
    fn this_program_has_symbols() {
        let symbols = Symbols::parse(&fs::read(std::env::current_exe().unwrap()).unwrap());
        let named = symbols.0.iter().filter(|symbol| symbol.name.contains("this_program_has_symbols"));
        assert!(named.count() > 0, "{symbols:?}");
        let sized = symbols.0.iter().find(|symbol| symbol.size > 8).unwrap();
        assert_eq!(symbols.lookup(sized.address + sized.size - 1).unwrap().0, sized.name);
    }

    #[test]
    fn files_without_symbols_are_refused_where_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let spec = |symbols| Spec {
            profile: ProfileOptions { symbols: vec![symbols], ..ProfileOptions::default() },
            ..Spec::default()
        };
        assert!(matches!(Symbols::of(&spec(path.clone())), Err(MachineError::File { .. })));
        for garbage in [&b""[..], b"\xff\xfe\x00", b"\x7fELF", b"\x1f\x8b\x08broken", &[0; 4096]] {
            fs::write(&path, garbage).unwrap();
            assert!(
                matches!(Symbols::of(&spec(path.clone())), Err(MachineError::Spec { .. })),
                "{garbage:?}"
            );
        }
        fs::write(&path, MAP).unwrap();
        assert_eq!(Symbols::of(&spec(path)).unwrap().0.len(), 3);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = "ä".repeat(NAME_MAX);
        assert_eq!(shorten(&long).len(), NAME_MAX);
        assert_eq!(shorten(&long[..5 * 2]), "ä".repeat(5));
    }
}
