//! A model of power failing under a disk image: a file that logs what is written to it and when it was made sure of,
//! and a test that replays the log up to a cut, keeps any part of what was not made sure of, and looks whether the
//! image is sound and has everything whose flush was acknowledged.
//!
//! The host's promise is the weakest one: between two barriers writes reach the disk in any order, sector by sector,
//! or not at all.

use super::{
    block::SECTOR_BYTES,
    host_file::HostFile,
    image::ImageFormat,
    layer::{Layer, Raw},
    qcow2::{self, Create},
};
use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The disk's length in sectors.
const DISK_SECTORS: u64 = 4096;
const SECTOR: usize = SECTOR_BYTES as usize;

/// Numbers that look random and come from a seed (SplitMix64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}

/// What happened to the file, and what the disk's user did and was told.
#[derive(Clone, Debug)]
enum Event {
    Write(u64, Vec<u8>),
    Zero(u64, u64),
    Length(u64),
    Barrier,
    /// The user asked for these sectors to hold this value.
    Asked {
        sector: u64,
        count: u64,
        value: u64,
    },
    /// A flush was acknowledged.
    Flushed,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    log: Vec<Event>,
    /// Errors are returned once the log is this long.
    full_at: Option<usize>,
}

/// A file in memory that logs.
#[derive(Debug, Default)]
struct Recorder(Mutex<State>);

impl Recorder {
    fn with(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(State { bytes, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, event: Event) -> io::Result<()> {
        let mut state = self.state();
        if state.full_at.is_some_and(|at| state.log.len() >= at) && !matches!(event, Event::Barrier) {
            return Err(ErrorKind::StorageFull.into());
        }
        event.apply(&mut state.bytes, &mut |_| true);
        state.log.push(event);
        Ok(())
    }
}

impl Event {
    /// Does it to `bytes`, sector by sector, where `survives` says so.
    fn apply(&self, bytes: &mut Vec<u8>, survives: &mut dyn FnMut(u64) -> bool) {
        let pieces = |at: u64, len: usize| {
            let mut from = 0;
            std::iter::from_fn(move || {
                let start = at as usize + from;
                let len = (SECTOR - start % SECTOR).min(len - from);
                from += len;
                (len > 0).then_some((start, from - len, len))
            })
        };
        match self {
            Self::Write(at, data) => {
                for (start, from, len) in pieces(*at, data.len()) {
                    if survives(start as u64) {
                        if bytes.len() < start + len {
                            bytes.resize(start + len, 0);
                        }
                        bytes[start..start + len].copy_from_slice(&data[from..from + len]);
                    }
                }
            }
            Self::Zero(at, len) => {
                for (start, _, len) in pieces(*at, *len as usize) {
                    if start < bytes.len() && survives(start as u64) {
                        let end = (start + len).min(bytes.len());
                        bytes[start..end].fill(0);
                    }
                }
            }
            Self::Length(len) if survives(*len) => bytes.resize(*len as usize, 0),
            _ => {}
        }
    }
}

impl HostFile for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let state = self.state();
        let mut rest = state.bytes.get(offset as usize..).unwrap_or(&[]);
        let all = rest.len();
        for buffer in buffers {
            let len = buffer.len().min(rest.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
        }
        Ok(all - rest.len())
    }

    fn write(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let data: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let len = data.len();
        self.log(Event::Write(offset, data)).map(|()| len)
    }

    fn zero(&self, offset: u64, len: u64, _give_back: bool) -> io::Result<()> {
        self.log(Event::Zero(offset, len))
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.log(Event::Zero(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.log(Event::Length(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.log(Event::Barrier)
    }
}

/// One history of a disk.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// The image's format.
    pub format: ImageFormat,
    /// Clusters of qcow2, as a power of two.
    pub cluster_bits: u32,
    /// There is an image below.
    pub backing: bool,
    /// What happens.
    pub seed: u64,
    /// How much of it.
    pub operations: usize,
}

/// A cut that lost something.
#[derive(Debug, thiserror::Error)]
#[error("{history:?}, cut after event {cut}, subset {subset}: {why}")]
pub struct Lost {
    history: History,
    cut: usize,
    subset: u64,
    why: String,
}

/// What a replay looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replayed {
    /// Cuts, each with one subset of what was not made sure of.
    pub points: u64,
    /// Those after which clusters were leaked, and repaired on open.
    pub leaking: u64,
}

/// The bytes of a sector with `value`: 0 is zeros.
fn sector_of(value: u64, sector: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if value != 0 {
        for (at, word) in bytes.chunks_exact_mut(16).enumerate() {
            word[..8].copy_from_slice(&value.to_le_bytes());
            word[8..].copy_from_slice(&(sector << 8 | at as u64).to_le_bytes());
        }
    }
    bytes
}

fn value_in(bytes: &[u8], sector: u64) -> Option<u64> {
    let value = bytes.first_chunk().map(|word| u64::from_le_bytes(*word))?;
    (sector_of(value, sector)[..] == *bytes).then_some(value)
}

/// Values of the image below: the sector's own.
const BELOW: u64 = 1;

fn base(history: &History) -> io::Result<Option<Layer>> {
    if !history.backing {
        return Ok(None);
    }
    // Shorter than the disk, and with a hole.
    let bytes =
        (0..DISK_SECTORS / 2).flat_map(|sector| sector_of(u64::from(sector % 64 < 48) * BELOW, sector));
    let file = Arc::new(Recorder::with(bytes.collect()));
    Raw::open(file, false).map(Layer::Raw).map(Some)
}

fn open(history: &History, file: Arc<Recorder>) -> io::Result<(Layer, u64)> {
    match history.format {
        ImageFormat::Raw => Raw::open(file, true).map(|raw| (Layer::Raw(raw), 0)),
        ImageFormat::Qcow2 => {
            let opened = qcow2::open(Path::new("powercut.qcow2"), file, base(history)?, true, true)
                .map_err(|e| io::Error::other(e.to_string()))?;
            Ok((Layer::Qcow2(Box::new(opened.0)), opened.1))
        }
    }
}

/// Lives through a history; returns the file as it was at the start, and the log.
fn live(history: &History) -> io::Result<(Vec<u8>, Vec<Event>)> {
    let file = Arc::new(Recorder::default());
    match history.format {
        ImageFormat::Raw => file.set_len(DISK_SECTORS * SECTOR_BYTES)?,
        ImageFormat::Qcow2 => {
            let backing = history.backing.then_some(("base.img", "raw"));
            let create = Create {
                size_bytes: DISK_SECTORS * SECTOR_BYTES,
                cluster_bits: history.cluster_bits,
                backing,
            };
            qcow2::create(&*file, &create)?;
        }
    }
    let start = file.state().bytes.clone();
    file.state().log.clear();
    let layer = open(history, file.clone())?.0;
    let mut random = Random::new(history.seed);
    for number in 0..history.operations {
        let sector = random.below(DISK_SECTORS);
        let longest = if random.below(8) == 0 { 512 } else { 24 };
        let count = (1 + random.below(longest)).min(DISK_SECTORS - sector);
        let (offset, len) = (sector * SECTOR_BYTES, count * SECTOR_BYTES);
        let asked = |value| file.log(Event::Asked { sector, count, value });
        match random.below(16) {
            0..=9 => {
                let value = BELOW + 1 + number as u64;
                let data: Vec<u8> = (sector..sector + count).flat_map(|at| sector_of(value, at)).collect();
                asked(value)?;
                layer.write(offset, data.as_slice().into())?;
            }
            10 => asked(0).and_then(|()| layer.write_zeroes(offset, len, true))?,
            11 => asked(0).and_then(|()| layer.write_zeroes(offset, len, false))?,
            12 => asked(0).and_then(|()| layer.discard(offset, len))?,
            _ => {
                layer.flush()?;
                file.log(Event::Flushed)?;
            }
        }
    }
    let log = file.state().log.clone();
    Ok((start, log))
}

/// Lives through `history` and replays it to every cut, `subsets` times each; `inspect` gets the image of some of
/// them, as the cut left it.
pub fn replay(
    history: &History,
    subsets: u64,
    inspect: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<Replayed, Lost> {
    let lost = |cut, subset, why: String| Lost { history: *history, cut, subset, why };
    let (start, log) = live(history).map_err(|e| lost(0, 0, e.to_string()))?;
    let mut random = Random::new(history.seed ^ 0x5eed);
    let mut replayed = Replayed::default();
    // What is on stable storage, and from which event on it is open.
    let (mut durable, mut open_from) = (start, 0);
    // Per sector: values it may have.
    let below =
        |sector: u64| u64::from(history.backing && sector < DISK_SECTORS / 2 && sector % 64 < 48) * BELOW;
    let mut allowed: Vec<Vec<u64>> = (0..DISK_SECTORS).map(|sector| vec![below(sector)]).collect();
    for (cut, event) in log.iter().enumerate() {
        match event {
            Event::Barrier => {
                for event in &log[open_from..cut] {
                    event.apply(&mut durable, &mut |_| true);
                }
                open_from = cut;
            }
            Event::Asked { sector, count, value } => {
                for sector in *sector..*sector + *count {
                    allowed[sector as usize].push(*value);
                }
            }
            Event::Flushed => allowed.iter_mut().for_each(|values| {
                values.drain(..values.len() - 1);
            }),
            _ => {}
        }
        for subset in 0..subsets {
            // From nothing to everything.
            let share = random.below(5);
            let mut bytes = durable.clone();
            for event in &log[open_from..=cut] {
                let whole = random.below(4) < share;
                let torn = random.below(3) == 0;
                event.apply(&mut bytes, &mut |_| if torn { random.below(4) < share } else { whole });
            }
            replayed.points += 1;
            inspect(&bytes).map_err(|why| lost(cut, subset, why))?;
            let leaks = verify(history, bytes, &allowed).map_err(|why| lost(cut, subset, why))?;
            replayed.leaking += u64::from(leaks > 0);
        }
    }
    Ok(replayed)
}

/// Opens what a cut left, and looks at all of it. Returns how many leaks were repaired.
fn verify(history: &History, bytes: Vec<u8>, allowed: &[Vec<u64>]) -> Result<u64, String> {
    let file = Arc::new(Recorder::with(bytes));
    let (layer, leaks) = open(history, file.clone()).map_err(|e| format!("it does not open: {e}"))?;
    let mut disk = vec![0; (DISK_SECTORS * SECTOR_BYTES) as usize];
    layer.read(0, disk.as_mut_slice().into()).map_err(|e| format!("it cannot be read: {e}"))?;
    for (sector, bytes) in (0..).zip(disk.chunks_exact(SECTOR)) {
        let value =
            value_in(bytes, sector).ok_or_else(|| format!("sector {sector} holds what nobody wrote"))?;
        if !allowed[sector as usize].contains(&value) {
            return Err(format!("sector {sector} has {value}, not one of {:?}", allowed[sector as usize]));
        }
    }
    drop(layer);
    if history.format == ImageFormat::Qcow2 {
        let report = qcow2::check_alone(Path::new("powercut.qcow2"), &*file).map_err(|e| e.to_string())?;
        if report.corruptions + report.leaks > 0 {
            return Err(format!("after it was opened: {:?}", report.problems));
        }
    }
    Ok(leaks)
}

/// Lets the host run full at every event of a history: the disk's user hears of it, nothing flushed is lost, and
/// with room again everything goes on.
pub fn run_full(history: &History, step: usize) -> Result<u64, Lost> {
    let lost = |cut, why: String| Lost { history: *history, cut, subset: 0, why };
    let (start, log) = live(history).map_err(|e| lost(0, e.to_string()))?;
    let mut points = 0;
    for full_at in (0..log.len()).step_by(step.max(1)) {
        points += 1;
        let file = Arc::new(Recorder::with(start.clone()));
        let (layer, _) = open(history, file.clone()).map_err(|e| lost(full_at, e.to_string()))?;
        let mut random = Random::new(history.seed ^ full_at as u64);
        let mut values = vec![None; DISK_SECTORS as usize];
        let mut failures = 0;
        file.state().full_at = Some(full_at);
        for number in 0..history.operations as u64 {
            // Room again, half-way.
            if number == history.operations as u64 / 2 {
                file.state().full_at = None;
            }
            let sector = random.below(DISK_SECTORS - 32);
            let count = 1 + random.below(32);
            let value = BELOW + 1 + number;
            let data: Vec<u8> = (sector..sector + count).flat_map(|at| sector_of(value, at)).collect();
            let written = layer.write(sector * SECTOR_BYTES, data.as_slice().into());
            let flushed = if random.below(4) == 0 { layer.flush() } else { Ok(()) };
            failures += u64::from(written.is_err()) + u64::from(flushed.is_err());
            // A write that failed may have been done in part.
            (sector..sector + count).for_each(|at| values[at as usize] = written.is_ok().then_some(value));
        }
        layer.flush().map_err(|e| lost(full_at, format!("with room again: {e}")))?;
        if full_at < history.operations / 8 && failures == 0 {
            return Err(lost(full_at, "the user never heard of it".into()));
        }
        let mut disk = vec![0; (DISK_SECTORS * SECTOR_BYTES) as usize];
        drop(layer);
        let (layer, _) = open(history, file.clone()).map_err(|e| lost(full_at, e.to_string()))?;
        layer.read(0, disk.as_mut_slice().into()).map_err(|e| lost(full_at, e.to_string()))?;
        for (sector, bytes) in (0..).zip(disk.chunks_exact(SECTOR)) {
            let value = value_in(bytes, sector);
            if values[sector as usize].is_some_and(|wanted| value != Some(wanted)) {
                return Err(lost(full_at, format!("sector {sector} has {value:?}")));
            }
        }
        drop(layer);
        if history.format == ImageFormat::Qcow2 {
            let report = qcow2::check_alone(Path::new("full.qcow2"), &*file)
                .map_err(|e| lost(full_at, e.to_string()))?;
            if report.corruptions > 0 {
                return Err(lost(full_at, format!("{:?}", report.problems)));
            }
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histories(operations: usize) -> Vec<History> {
        let history =
            |format, cluster_bits, backing, seed| History { format, cluster_bits, backing, seed, operations };
        vec![
            history(ImageFormat::Raw, 0, false, 1),
            history(ImageFormat::Qcow2, 9, false, 2),
            history(ImageFormat::Qcow2, 9, true, 3),
            history(ImageFormat::Qcow2, 12, true, 4),
            history(ImageFormat::Qcow2, 16, false, 5),
        ]
    }

    #[test]
    fn a_cut_loses_nothing_that_was_flushed() {
        for history in histories(25) {
            let replayed = replay(&history, 1, &mut |_| Ok(())).unwrap_or_else(|lost| panic!("{lost}"));
            assert!(replayed.points > 25, "{history:?}: {replayed:?}");
        }
    }

    #[test]
    fn a_full_host_is_an_error_and_nothing_more() {
        for history in histories(40) {
            run_full(&history, 7).unwrap_or_else(|lost| panic!("{lost}"));
        }
    }

    #[test]
    fn the_model_finds_a_missing_barrier() {
        // An image that trusts its host (cache=unsafe) does lose what was flushed.
        let file = Arc::new(Recorder::with(vec![0; 4096]));
        let layer = Layer::Raw(Raw::open(file.clone(), false).unwrap());
        layer.write(0, sector_of(7, 0)[..].into()).unwrap();
        layer.flush().unwrap();
        let mut bytes = vec![0; 4096];
        file.state().log.iter().for_each(|event| event.apply(&mut bytes, &mut |_| false));
        assert_eq!(value_in(&bytes[..512], 0), Some(0));
        assert!(!file.state().log.iter().any(|event| matches!(event, Event::Barrier)));
    }
}
