//! Keys: the user's, kept in a file; those derived from it; and what code was made for and by.

use super::{
    Tier,
    error::CacheError,
    places::{Access, Dir, FileError, KEY},
};
use blake3::Hasher;
use rustix::rand::{GetRandomFlags, getrandom};
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
};

/// Bytes at an entry that its probe covers.
const PROBE_BYTES: usize = 8;

/// Which translator made the code. Any difference between two programs may be a difference between what they compile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BuildId(pub [u8; 32]);

impl BuildId {
    /// The running program's: any change of the translator is another build, without anybody having to remember a version
    /// number. It is the digest of what the linker made of the whole program where it left that in the file (the note
    /// `NT_GNU_BUILD_ID` of the ELF format), else of the whole file, which takes some ten milliseconds.
    ///
    /// # Errors
    ///
    /// The program's file cannot be read.
    pub fn of_this_program() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let mut file = File::open("/proc/self/exe")?;
        #[cfg(not(target_os = "linux"))]
        let mut file = File::open(std::env::current_exe()?)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut len = file.read(&mut buffer)?;
        if let Some(note) = build_note(&buffer[..len.min(HEAD_BYTES)]) {
            let total = file.metadata()?.len();
            return Ok(Self(*hasher.update(note).update(&total.to_le_bytes()).finalize().as_bytes()));
        }
        while len > 0 {
            hasher.update(&buffer[..len]);
            len = file.read(&mut buffer)?;
        }
        Ok(Self(*hasher.finalize().as_bytes()))
    }
}

/// Where linkers put program headers and notes.
const HEAD_BYTES: usize = 64 << 10;

/// The description of `NT_GNU_BUILD_ID` in a 64-bit little-endian ELF file that starts like this (System V ABI, chapters 4
/// and 5, "Note Section" and "Program Header").
fn build_note(head: &[u8]) -> Option<&[u8]> {
    const PT_NOTE: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    let bytes = |at: usize, len: usize| head.get(at..at.checked_add(len)?);
    let half = |at| Some(usize::from(u16::from_le_bytes(bytes(at, 2)?.try_into().ok()?)));
    let word = |at| Some(u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?));
    let long = |at| usize::try_from(u64::from_le_bytes(bytes(at, 8)?.try_into().ok()?)).ok();
    if bytes(0, 6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (long(32)?, half(54)?, half(56)?);
    for header in (0..count).map(|number| table.saturating_add(number * size)) {
        if word(header)? != PT_NOTE {
            continue;
        }
        let (mut at, len) = (long(header + 8)?, long(header + 32)?);
        let end = at.checked_add(len)?;
        while at + 12 <= end {
            let (name, description, kind) = (word(at)? as usize, word(at + 4)? as usize, word(at + 8)?);
            let described = at + 12 + name.next_multiple_of(4);
            if kind == NT_GNU_BUILD_ID && bytes(at + 12, name)? == b"GNU\0" && description >= 16 {
                return bytes(described, description);
            }
            at = described + description.next_multiple_of(4);
        }
    }
    None
}

/// What code was made for and by. Code of one namespace is never seen in another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// The guest's instruction set: "riscv64".
    pub guest: &'static str,
    /// The translator.
    pub translator: BuildId,
    /// The host's optional instructions: [`crate::HostFeatures::bits`]. Its instruction set need not be told.
    pub host_features: u64,
    /// [`crate::abi::ABI_VERSION`].
    pub abi_version: u32,
    /// Whatever else changes the code, such as how memory is reached or instructions are counted.
    pub variant: u64,
}

impl Namespace {
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = Hasher::new_derive_key("isomer code cache namespace");
        for text in [self.guest, std::env::consts::ARCH, std::env::consts::OS] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(&super::segment::FORMAT.to_le_bytes());
        hasher.update(&self.translator.0);
        hasher.update(&self.host_features.to_le_bytes());
        hasher.update(&self.abi_version.to_le_bytes());
        hasher.update(&self.variant.to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// The user's key. Whoever has it can make code that Isomer runs.
pub(super) struct UserKey([u8; 32]);

impl UserKey {
    /// The key in `dir`, if there is a usable one.
    pub(super) fn load(dir: &Dir) -> Result<Option<Self>, CacheError> {
        let path = dir.name(KEY);
        let mut file = match dir.open_file(KEY, Access::ReadSecret) {
            Ok(file) => file,
            Err(FileError::Absent) => return Ok(None),
            Err(error) => return Err(error.at(&path)),
        };
        let mut bytes = Vec::with_capacity(33);
        (&mut file).take(33).read_to_end(&mut bytes).map_err(|e| CacheError::io("cannot read", &path, e))?;
        // A file of another length is what a crash or a full disk left.
        Ok(<[u8; 32]>::try_from(bytes).ok().filter(|key| *key != [0; 32]).map(Self))
    }

    /// The key in `dir`; a new one where there is none, or none that only we know. What other keys authenticated is
    /// foreign from then on, and is made anew.
    pub(super) fn load_or_create(dir: &Dir) -> Result<Self, CacheError> {
        match Self::load(dir) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => {}
            Err(error @ CacheError::NotPrivate { .. }) => {
                tracing::warn!("{error}; the code cache starts anew with another key");
            }
            Err(error) => return Err(error),
        }
        let path = dir.name(KEY);
        let failed = |error| CacheError::io("cannot make", &path, error);
        dir.remove(KEY).map_err(failed)?;
        let key: [u8; 32] = random().map_err(failed)?;
        let temporary = format!("{KEY}.{}.tmp", hex(&random::<8>().map_err(failed)?));
        let made = dir.create_file(&temporary).and_then(|mut file| {
            file.write_all(&key)?;
            // Once in a lifetime: a key lost in a power failure would cost the whole cache.
            file.sync_all()?;
            dir.link(&temporary, KEY)
        });
        let _ = dir.remove(&temporary);
        match made {
            Ok(()) => Ok(Self(key)),
            // Another process was faster: its key is as good.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Self::load(dir)?.ok_or_else(|| failed(ErrorKind::InvalidData.into()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Authenticates a segment's header.
    pub(super) fn header_mac(&self, header: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.derive("isomer code cache segment header", &[]), header).as_bytes()
    }

    /// Authenticates a namespace's profile.
    pub(super) fn profile_mac(&self, profile: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.derive("isomer code cache profile", &[]), profile).as_bytes()
    }

    fn derive(&self, context: &str, namespace: &[u8]) -> [u8; 32] {
        *Hasher::new_derive_key(context).update(&self.0).update(namespace).finalize().as_bytes()
    }
}

/// The keys of one namespace.
pub(super) struct Keys {
    pub(super) namespace: [u8; 32],
    entry: [u8; 32],
    content: [u8; 32],
    seed: u64,
}

impl Keys {
    pub(super) fn new(user: &UserKey, namespace: [u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = user.derive("isomer code cache index", &namespace);
        Self {
            namespace,
            entry: user.derive("isomer code cache entry", &namespace),
            content: user.derive("isomer code cache content", &namespace),
            seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    /// Authenticates the parts of an entry.
    pub(super) fn entry_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = Hasher::new_keyed(&self.entry);
        parts.iter().for_each(|part| {
            hasher.update(part);
        });
        *hasher.finalize().as_bytes()
    }

    /// Which guest code an entry was made from: everything that its meaning depends on.
    pub(super) fn content(
        &self,
        mode: u32,
        entry: u16,
        tier: Tier,
        ranges: &[(u16, u16)],
        page: &[u8; 4096],
    ) -> [u8; 32] {
        let mut hasher = Hasher::new_keyed(&self.content);
        let [m0, m1, m2, m3] = mode.to_le_bytes();
        let [e0, e1] = entry.to_le_bytes();
        let [n0, n1, n2, n3] = (ranges.len() as u32).to_le_bytes();
        hasher.update(&[m0, m1, m2, m3, e0, e1, tier as u8, 0, n0, n1, n2, n3]);
        for &(start, end) in ranges {
            let ([s0, s1], [e0, e1]) = (start.to_le_bytes(), end.to_le_bytes());
            hasher.update(&[s0, s1, e0, e1]);
        }
        for &(start, end) in ranges {
            hasher.update(page.get(usize::from(start)..usize::from(end)).unwrap_or_default());
        }
        *hasher.finalize().as_bytes()
    }

    /// Which guest code the blocks of a page were made from.
    pub(super) fn page_content(&self, records_and_source: &[u8]) -> [u8; 32] {
        let mut hasher = Hasher::new_keyed(&self.content);
        // Apart from the contents above, which have no such tier.
        hasher.update(&[0, 0, 0, 0, 0, 0, Tier::Page as u8, 0]).update(records_and_source);
        *hasher.finalize().as_bytes()
    }

    /// Where to look for code in the index: a cheap hash of mode, entry and the first bytes. It only narrows the search.
    /// It is keyed because guests choose the bytes.
    #[inline]
    pub(super) fn probe(&self, mode: u32, entry: u16, page: &[u8; 4096]) -> u64 {
        self.probe_from(mode, entry, page.get(usize::from(entry)..).unwrap_or_default())
    }

    /// The same, given the bytes from the entry on.
    #[inline]
    pub(super) fn probe_from(&self, mode: u32, entry: u16, code: &[u8]) -> u64 {
        self.probe_of(mode, entry, code.first_chunk())
    }

    /// The same for a block of a page, of which two bytes may be all.
    #[inline]
    pub(super) fn probe_at(&self, mode: u32, entry: u16, code: &[u8]) -> u64 {
        let first = code.first_chunk::<2>();
        let first = first.map(|&[a, b]| [a, b, 0, 0, 0, 0, 0, 1]);
        self.probe_of(mode, entry, first.as_ref())
    }

    #[inline]
    fn probe_of(&self, mode: u32, entry: u16, first: Option<&[u8; PROBE_BYTES]>) -> u64 {
        let first = first.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        fold(self.seed ^ (u64::from(mode) << 16 | u64::from(entry)), first)
    }

    /// A cheap hash of the bytes at an entry up to the end of their range.
    #[inline]
    pub(super) fn run_hash(&self, bytes: &[u8]) -> u64 {
        let mut state = self.seed ^ bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = fold(state, u64::from_le_bytes(*word));
        }
        rest.iter().fold(state, |state, byte| fold(state, u64::from(*byte)))
    }
}

/// Multiplies and folds both halves of the product: two or three cycles, and every input bit reaches every output bit.
#[inline]
fn fold(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ (product >> 64) as u64
}

/// Bytes nobody can guess.
pub(super) fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    let mut filled = 0;
    while filled < LEN {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
