//! Segment files: the layout in [`super`], read and written. A segment has one writer in its life; anyone may read it
//! meanwhile. Reading copies, then verifies the copy, then takes it apart: the file may change at any time.

use super::{
    Compiled, Tier,
    key::{Keys, UserKey, hex, random},
    page::{MAX_PAGE_BLOCKS, RECORD_BYTES, Record},
    places::{Access, Dir, FileError, try_lock},
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Version of the layout.
pub(super) const FORMAT: u32 = 2;
const MAGIC: [u8; 8] = *b"ISOMERCC";
/// Slots of a segment.
pub(super) const SLOTS: u32 = 8192;
const SLOT_BYTES: usize = 64;
const HEADER_BYTES: usize = 128;
/// Where the slots begin.
pub(super) const SLOTS_AT: u64 = 4096;
/// Where the stamps begin: when the entry of each slot was last used, in seconds since 1970.
pub(super) const STAMPS_AT: u64 = SLOTS_AT + SLOTS as u64 * SLOT_BYTES as u64;
/// Where the payloads begin.
pub(super) const DATA_AT: u64 = STAMPS_AT + SLOTS as u64 * 4;
/// The longest segment.
pub(super) const MAX_SEGMENT_BYTES: u64 = 16 << 20;
/// Host code of one entry at most.
pub(super) const MAX_CODE_BYTES: usize = 128 << 10;
/// Ranges of one entry at most.
pub(super) const MAX_RANGES: usize = 256;
/// Guest code of a page's blocks at most: they may overlap.
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Content digest and MAC, before a payload's ranges and code.
const DIGESTS_BYTES: usize = 64;
/// How segments' names end, and those of files not yet finished.
pub(super) const SUFFIX: &str = ".code";
pub(super) const TEMPORARY: &str = ".tmp";

/// Why bytes on disk are not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    /// The file ends early.
    #[error("it ends early")]
    Truncated,
    /// The header is not one that this user's programs wrote for this file.
    #[error("its header was not written with this user's key")]
    Header,
    /// Renamed, or put in another's place.
    #[error("its name is another's")]
    Name,
    /// Of another version.
    #[error("it has another format")]
    Format,
    /// A slot whose check or fields are wrong.
    #[error("an index slot is damaged")]
    Slot,
    /// A MAC that does not fit.
    #[error("an entry was not written with this user's key")]
    Entry,
    /// A file of another user, or that others can write.
    #[error("others can write it")]
    Access,
    /// The host cannot read it.
    #[error("it cannot be read")]
    Io,
}

/// An entry as the index knows it: what is needed to find and read it. Its bytes are part of what the MAC covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// [`Keys::probe`].
    pub(super) probe: u64,
    /// [`Keys::run_hash`] of the bytes from the entry to the end of their range.
    pub(super) run_hash: u64,
    /// The first bytes of the content's digest.
    pub(super) content: u64,
    pub(super) offset: u32,
    pub(super) payload_len: u32,
    pub(super) mode: u32,
    pub(super) insns: u32,
    pub(super) code_len: u32,
    pub(super) entry: u16,
    pub(super) run_len: u16,
    pub(super) ranges: u16,
    pub(super) tier: Tier,
}

impl Slot {
    /// As on disk; the last four bytes are a check, so that half a slot is known as such.
    fn to_bytes(self, keys: &Keys) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        let long = [self.probe, self.run_hash, self.content];
        let words = [self.offset, self.payload_len, self.mode, self.insns, self.code_len];
        let halves = [self.entry, self.run_len, self.ranges];
        let encoded = long.iter().flat_map(|x| x.to_le_bytes());
        let encoded = encoded.chain(words.iter().flat_map(|x| x.to_le_bytes()));
        let encoded = encoded.chain(halves.iter().flat_map(|x| x.to_le_bytes())).chain([self.tier as u8]);
        bytes.iter_mut().zip(encoded).for_each(|(byte, value)| *byte = value);
        let check = keys.run_hash(&bytes[..60]) as u32;
        bytes[60..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Back from disk; `None` if it was not written like this.
    fn from_bytes(bytes: &[u8; SLOT_BYTES], keys: &Keys) -> Option<Self> {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let slot = Self {
            probe: long(0),
            run_hash: long(8),
            content: long(16),
            offset: word(24),
            payload_len: word(28),
            mode: word(32),
            insns: word(36),
            code_len: word(40),
            entry: half(44),
            run_len: half(46),
            ranges: half(48),
            tier: Tier::from_raw(bytes[50])?,
        };
        let (ranges, code_len) = (usize::from(slot.ranges), slot.code_len as usize);
        let sane = word(60) == keys.run_hash(&bytes[..60]) as u32
            && (1..=MAX_CODE_BYTES).contains(&code_len)
            && u64::from(slot.offset) >= DATA_AT
            && slot.end() <= MAX_SEGMENT_BYTES
            && match slot.tier {
                Tier::Page => {
                    let least = DIGESTS_BYTES + ranges * RECORD_BYTES + code_len;
                    (1..=MAX_PAGE_BLOCKS).contains(&ranges)
                        && (least + 1..=least + MAX_SOURCE_BYTES).contains(&(slot.payload_len as usize))
                }
                Tier::Template | Tier::Region => {
                    (1..=MAX_RANGES).contains(&ranges)
                        && slot.payload_len as usize == DIGESTS_BYTES + ranges * 4 + code_len
                        && slot.run_len > 0
                        && u32::from(slot.entry) + u32::from(slot.run_len) <= 4096
                }
            };
        sane.then_some(slot)
    }

    fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.payload_len)
    }
}

/// An entry to be written.
#[derive(Clone, Debug)]
pub(super) struct NewEntry {
    /// Right but for the place.
    pub(super) slot: Slot,
    pub(super) content: [u8; 32],
    /// What stands behind the digests.
    pub(super) body: Vec<u8>,
}

impl NewEntry {
    /// `None` if it breaks the rules of [`Compiled`], or is too large to be kept.
    pub(super) fn new(
        keys: &Keys,
        mode: u32,
        entry: u16,
        tier: Tier,
        page: &[u8; 4096],
        compiled: &Compiled,
    ) -> Option<Self> {
        let Compiled { code, ranges, insns } = compiled;
        let fits =
            tier != Tier::Page && (1..=MAX_CODE_BYTES).contains(&code.len()) && ranges_are_sound(ranges);
        let run_end = ranges.iter().find(|range| (range.0..range.1).contains(&entry))?.1;
        let run = page.get(usize::from(entry)..usize::from(run_end)).filter(|_| fits)?;
        let mut body = Vec::with_capacity(ranges.len() * 4 + code.len());
        for &(start, end) in ranges {
            body.extend(start.to_le_bytes().into_iter().chain(end.to_le_bytes()));
        }
        body.extend_from_slice(code);
        let content = keys.content(mode, entry, tier, ranges, page);
        let slot = Slot {
            probe: keys.probe(mode, entry, page),
            run_hash: keys.run_hash(run),
            content: content_prefix(&content),
            offset: DATA_AT as u32,
            payload_len: Self::payload_len_of(body.len()),
            mode,
            insns: *insns,
            code_len: code.len() as u32,
            entry,
            run_len: run_end - entry,
            ranges: ranges.len() as u16,
            tier,
        };
        Some(Self { slot, content, body })
    }

    pub(super) fn payload_len(&self) -> usize {
        self.slot.payload_len as usize
    }

    pub(super) fn payload_len_of(body_len: usize) -> u32 {
        (DIGESTS_BYTES + body_len) as u32
    }
}

/// Sorted, not touching, not empty, within a page.
fn ranges_are_sound(ranges: &[(u16, u16)]) -> bool {
    (1..=MAX_RANGES).contains(&ranges.len())
        && ranges.iter().all(|&(start, end)| start < end && end <= 4096)
        && ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
}

pub(super) fn content_prefix(content: &[u8; 32]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| content[i]))
}

/// An entry that was read and verified.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) content: [u8; 32],
    pub(super) compiled: Compiled,
}

/// A segment that is open for reading.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) namespace: [u8; 32],
    /// The guest's instruction set, for people.
    pub(super) guest: String,
    id: [u8; 16],
    /// It may become this long.
    pub(super) capacity: u64,
    file: File,
}

impl Segment {
    /// Opens a segment that some program of this user wrote. `None` if it is gone.
    pub(super) fn open(dir: &Dir, name: &str, user: &UserKey) -> Result<Option<Self>, Damage> {
        let file = match dir.open_file(name, Access::Read) {
            Ok(file) => file,
            Err(FileError::Absent) => return Ok(None),
            Err(FileError::Distrusted(_)) => return Err(Damage::Access),
            Err(FileError::Io(_)) => return Err(Damage::Io),
        };
        let mut header = [0; HEADER_BYTES];
        read_exactly(&file, &mut header, 0)?;
        let (covered, mac) = header.split_at(HEADER_BYTES - 32);
        if covered[..8] != MAGIC || covered[8..12] != FORMAT.to_le_bytes() {
            return Err(Damage::Format);
        }
        let expected = blake3::Hash::from_bytes(user.header_mac(covered));
        if expected != *mac {
            return Err(Damage::Header);
        }
        let namespace = std::array::from_fn(|i| covered[16 + i]);
        let id = std::array::from_fn(|i| covered[48 + i]);
        if name.trim_end_matches(TEMPORARY) != segment_name(&namespace, &id) {
            return Err(Damage::Name);
        }
        let capacity = u64::from_le_bytes(std::array::from_fn(|i| covered[64 + i])).min(MAX_SEGMENT_BYTES);
        let guest =
            covered[80..].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        Ok(Some(Self { name: name.to_owned(), namespace, guest, id, capacity, file }))
    }

    /// Is some process still writing it?
    pub(super) fn is_live(dir: &Dir, name: &str) -> bool {
        match dir.open_file(name, Access::Read) {
            Ok(file) => !try_lock(&file),
            Err(_) => false,
        }
    }

    /// Reads slots from number `next` on: those in use, and how many are damaged. `next` moves behind the last slot in use.
    pub(super) fn scan(&self, keys: &Keys, next: &mut u32) -> (Vec<(u32, Slot)>, u32) {
        const BATCH: usize = 512;
        let (mut found, mut damaged) = (Vec::new(), 0);
        let mut buffer = [0; BATCH * SLOT_BYTES];
        let mut first = *next;
        while first < SLOTS {
            let count = BATCH.min((SLOTS - first) as usize);
            let wanted = &mut buffer[..count * SLOT_BYTES];
            let len = read_some(&self.file, wanted, SLOTS_AT + u64::from(first) * SLOT_BYTES as u64);
            let (slots, _) = wanted[..len].as_chunks::<SLOT_BYTES>();
            let mut any = false;
            for (number, bytes) in (first..).zip(slots).filter(|(_, bytes)| **bytes != [0; SLOT_BYTES]) {
                any = true;
                match Slot::from_bytes(bytes, keys) {
                    Some(slot) => {
                        *next = number + 1;
                        found.push((number, slot));
                    }
                    None => damaged += 1,
                }
            }
            if !any {
                break;
            }
            first += count as u32;
        }
        (found, damaged)
    }

    /// Reads an entry and verifies it: nothing that another program could have changed is in the answer, the content's digest
    /// and what stands behind.
    pub(super) fn read_body(
        &self,
        number: u32,
        slot: &Slot,
        keys: &Keys,
    ) -> Result<([u8; 32], Vec<u8>), Damage> {
        let mut payload = vec![0; slot.payload_len as usize];
        read_exactly(&self.file, &mut payload, slot.offset.into())?;
        let Some((content, rest)) = payload.split_first_chunk::<32>() else { return Err(Damage::Slot) };
        let Some((mac, body)) = rest.split_first_chunk::<32>() else { return Err(Damage::Slot) };
        if blake3::Hash::from_bytes(self.mac(number, slot, content, body, keys)) != *mac
            || content_prefix(content) != slot.content
        {
            return Err(Damage::Entry);
        }
        let content = *content;
        Ok((content, payload.split_off(DIGESTS_BYTES)))
    }

    /// Reads, verifies and takes apart an entry that is not a page's.
    pub(super) fn read(&self, number: u32, slot: &Slot, keys: &Keys) -> Result<Entry, Damage> {
        let (content, mut body) = self.read_body(number, slot, keys)?;
        let Some((ranges, _)) = body.split_at_checked(usize::from(slot.ranges) * 4) else {
            return Err(Damage::Slot);
        };
        let (ranges, _) = ranges.as_chunks::<4>();
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&[s0, s1, e0, e1]| (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([e0, e1])))
            .collect();
        if slot.tier == Tier::Page || !ranges_are_sound(&ranges) {
            return Err(Damage::Entry);
        }
        let code = body.split_off(usize::from(slot.ranges) * 4);
        Ok(Entry { content, compiled: Compiled { code, ranges, insns: slot.insns } })
    }

    /// How a page's blocks are found. Not verified: it only says where to look.
    pub(super) fn records(&self, slot: &Slot) -> Vec<Record> {
        let mut bytes = vec![0; usize::from(slot.ranges) * RECORD_BYTES];
        let len = read_some(&self.file, &mut bytes, u64::from(slot.offset) + DIGESTS_BYTES as u64);
        bytes[..len].as_chunks().0.iter().map(Record::read).collect()
    }

    /// Has the host read ahead.
    pub(super) fn read_ahead(&self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::WillNeed);
    }

    /// Covers the place too: an entry copied elsewhere is not authentic there.
    fn mac(&self, number: u32, slot: &Slot, content: &[u8; 32], body: &[u8], keys: &Keys) -> [u8; 32] {
        keys.entry_mac(&[&self.id, &number.to_le_bytes(), &slot.to_bytes(keys), content, body])
    }

    /// When each slot's entry was last used: the time its file was last written, where that is not known.
    pub(super) fn stamps(&self) -> Vec<u32> {
        let mut bytes = vec![0; SLOTS as usize * 4];
        read_some(&self.file, &mut bytes, STAMPS_AT);
        let written = self.file.metadata().map_or(0, |meta| u32::try_from(meta.mtime()).unwrap_or(0));
        let now = now();
        let stamp = |bytes: &[u8; 4]| match u32::from_le_bytes(*bytes) {
            0 => written,
            // A stamp from the future would never age.
            stamp => stamp.min(now),
        };
        bytes.as_chunks::<4>().0.iter().map(stamp).collect()
    }

    /// Notes that entries were used now. Two processes may overwrite each other's notes: they decide only what is thrown
    /// away first.
    pub(super) fn stamp(&self, dir: &Dir, used: &[u32]) -> io::Result<()> {
        let Ok(file) = dir.open_file(&self.name, Access::ReadWrite) else { return Ok(()) };
        let modified = file.metadata()?.modified();
        let mut bytes = vec![0; SLOTS as usize * 4];
        read_some(&file, &mut bytes, STAMPS_AT);
        let (stamps, _) = bytes.as_chunks_mut::<4>();
        for number in used {
            if let Some(stamp) = stamps.get_mut(*number as usize) {
                *stamp = now().to_le_bytes();
            }
        }
        file.write_all_at(&bytes, STAMPS_AT)?;
        // The file's time stands for entries without a stamp.
        modified.and_then(|time| file.set_modified(time))
    }

    /// Bytes it takes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

fn segment_name(namespace: &[u8; 32], id: &[u8; 16]) -> String {
    format!("{}-{}{SUFFIX}", hex(&namespace[..8]), hex(id))
}

/// Could this be the name of a segment of the namespace?
pub(super) fn is_segment_of(name: &str, namespace: &[u8; 32]) -> bool {
    name.ends_with(SUFFIX) && name.starts_with(&hex(&namespace[..8]))
}

/// Writes one segment, from its making on.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    pub(super) segment: Arc<Segment>,
    next_slot: u32,
    next_offset: u64,
}

impl SegmentWriter {
    /// Makes a segment that only [`SegmentWriter::publish`] shows to others.
    pub(super) fn create(
        dir: &Dir,
        user: &UserKey,
        namespace: [u8; 32],
        guest: &str,
        capacity: u64,
    ) -> io::Result<Self> {
        let id = random::<16>()?;
        let name = segment_name(&namespace, &id) + TEMPORARY;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[12..16].copy_from_slice(&SLOTS.to_le_bytes());
        header[16..48].copy_from_slice(&namespace);
        header[48..64].copy_from_slice(&id);
        header[64..72].copy_from_slice(&capacity.to_le_bytes());
        header[72..80].copy_from_slice(&u64::from(now()).to_le_bytes());
        header[80..95].iter_mut().zip(guest.bytes()).for_each(|(byte, value)| *byte = value);
        let (covered, mac) = header.split_at_mut(HEADER_BYTES - 32);
        mac.copy_from_slice(&user.header_mac(covered));
        let file = dir.create_file(&name)?;
        let written = match try_lock(&file) {
            true => file.write_all_at(&header, 0),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        if let Err(error) = written {
            let _ = dir.remove(&name);
            return Err(error);
        }
        let segment = Segment { name, namespace, guest: guest.to_owned(), id, capacity, file };
        Ok(Self { segment: Arc::new(segment), next_slot: 0, next_offset: DATA_AT })
    }

    /// Gives it its name.
    pub(super) fn publish(mut self, dir: &Dir) -> io::Result<Self> {
        let name = self.segment.name.trim_end_matches(TEMPORARY).to_owned();
        if let Err(error) = dir.rename(&self.segment.name, &name) {
            let _ = dir.remove(&self.segment.name);
            return Err(error);
        }
        // Nobody else has it yet, so this always finds it alone.
        if let Some(segment) = Arc::get_mut(&mut self.segment) {
            segment.name = name;
        }
        Ok(self)
    }

    /// Adds an entry; `None` if there is no room. What is written first is what the slot refers to, so that a slot never
    /// refers to what is not there, whenever the process ends.
    pub(super) fn append(
        &mut self,
        keys: &Keys,
        new: &NewEntry,
        stamp: Option<u32>,
    ) -> io::Result<Option<(u32, Slot)>> {
        let len = new.payload_len();
        if self.next_slot >= SLOTS || self.next_offset + len as u64 > self.segment.capacity {
            return Ok(None);
        }
        let slot = Slot { offset: self.next_offset as u32, ..new.slot };
        let number = self.next_slot;
        let mac = self.segment.mac(number, &slot, &new.content, &new.body, keys);
        let payload = [&new.content[..], &mac, &new.body].concat();
        self.segment.file.write_all_at(&payload, self.next_offset)?;
        if let Some(stamp) = stamp {
            self.segment.file.write_all_at(&stamp.to_le_bytes(), STAMPS_AT + u64::from(number) * 4)?;
        }
        let at = SLOTS_AT + u64::from(number) * SLOT_BYTES as u64;
        self.segment.file.write_all_at(&slot.to_bytes(keys), at)?;
        self.next_slot += 1;
        self.next_offset = slot.end().next_multiple_of(8);
        Ok(Some((number, slot)))
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u32 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
}

fn read_exactly(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), Damage> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::Truncated,
        _ => Damage::Io,
    })
}

/// As much as there is; errors end the file.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    len
}
