//! A disk image under everything at once: threads read, write, zero, discard and flush their parts of it while its
//! end moves, and each knows what it has to find. At the end the image is closed, opened and looked at as a whole.

use super::{
    block::{BlockBackend, SECTOR_BYTES},
    image::{Image, ImageFormat, ImageOptions},
    image_tools,
    powercut::Random,
};
use std::{fmt, path::Path};

/// Sectors of one thread.
const PART_SECTORS: u64 = 4096;
/// Sectors behind the parts, that come and go.
const TAIL_SECTORS: u64 = 1024;
/// Longest request, in sectors.
const LONGEST: u64 = 40;
const SECTOR: usize = SECTOR_BYTES as usize;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// The image's format.
    pub format: ImageFormat,
    /// Threads: as many as queues would have.
    pub threads: u64,
    /// Operations of all threads together.
    pub operations: u64,
    /// What happens.
    pub seed: u64,
}

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{storm:?}: {why}")]
pub struct Wrong {
    storm: Storm,
    why: String,
}

/// What a sector may hold: a value, and one from before where a discard may or may not have done anything.
#[derive(Clone, Copy, Debug, Default)]
struct Sector {
    value: u64,
    before: Option<u64>,
}

impl Sector {
    fn may_be(self, value: u64) -> bool {
        value == self.value || Some(value) == self.before
    }
}

fn fill(bytes: &mut [u8], value: u64) {
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&value.to_le_bytes()));
}

/// The value of a sector, if it is one.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let value = bytes.first_chunk().map(|word| u64::from_le_bytes(*word))?;
    bytes.chunks_exact(8).all(|word| word == value.to_le_bytes()).then_some(value)
}

/// One thread and its part.
struct Part<'a> {
    image: &'a Image,
    first: u64,
    random: Random,
    sectors: Vec<Sector>,
    buffer: Vec<u8>,
}

impl Part<'_> {
    fn look(&mut self, from: u64, count: u64) -> Result<(), String> {
        let len = count as usize * SECTOR;
        let at = self.first + from;
        let buffer = &mut self.buffer[..len];
        self.image.read_vectored(at * SECTOR_BYTES, (&mut *buffer).into()).map_err(text)?;
        for (number, bytes) in (from..).zip(buffer.chunks_exact(SECTOR)) {
            let sector = &mut self.sectors[number as usize];
            match value_of(bytes) {
                Some(value) if sector.may_be(value) => *sector = Sector { value, before: None },
                found => return Err(format!("sector {}: {sector:?}, found {found:?}", self.first + number)),
            }
        }
        Ok(())
    }

    fn step(&mut self, number: u64) -> Result<(), String> {
        let from = self.random.below(PART_SECTORS - LONGEST);
        let count = 1 + self.random.below(LONGEST);
        let (offset, len) = ((self.first + from) * SECTOR_BYTES, count * SECTOR_BYTES);
        let range = from as usize..(from + count) as usize;
        match self.random.below(100) {
            0..=49 => {
                let value = self.first << 40 | (number + 1);
                let data = &mut self.buffer[..len as usize];
                fill(data, value);
                self.image.write_vectored(offset, (&*data).into()).map_err(text)?;
                self.sectors[range].fill(Sector { value, before: None });
            }
            50..=84 => self.look(from, count)?,
            85..=91 => {
                self.image.write_zeroes(offset, len, number.is_multiple_of(2)).map_err(text)?;
                self.sectors[range].fill(Sector::default());
            }
            92..=98 => {
                self.image.discard(offset, len).map_err(text)?;
                for sector in &mut self.sectors[range] {
                    // Discarded twice, it may be what it was before, or zeros.
                    *sector = Sector { value: 0, before: Some(sector.before.unwrap_or(sector.value)) };
                }
            }
            _ => self.image.flush().map_err(text)?,
        }
        Ok(())
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Moves the disk's end, which nobody else looks at, and checks that what comes is zeros.
fn move_end(image: &Image, base: u64, random: &mut Random) -> Result<(), String> {
    let sectors = random.below(TAIL_SECTORS);
    let before = image.size_bytes();
    let after = base + sectors * SECTOR_BYTES;
    image.resize(after).map_err(text)?;
    if after > before {
        let mut new = vec![1; (after - before) as usize];
        image.read_vectored(before, new.as_mut_slice().into()).map_err(text)?;
        if let Some(at) = new.iter().position(|byte| *byte != 0) {
            return Err(format!(
                "byte {} of {before}..{after}, which are new, is not zero",
                before + at as u64
            ));
        }
        new.fill(0xee);
        image.write_vectored(before, new.as_slice().into()).map_err(text)?;
    }
    Ok(())
}

/// Makes an image at `path`, lets the storm loose on it, and looks at what is left.
pub fn run(storm: &Storm, path: &Path) -> Result<(), Wrong> {
    go(storm, path).map_err(|why| Wrong { storm: *storm, why })
}

fn go(storm: &Storm, path: &Path) -> Result<(), String> {
    let base = storm.threads * PART_SECTORS * SECTOR_BYTES;
    Image::create(path, storm.format, base, None).map_err(text)?;
    let options = ImageOptions { format: Some(storm.format), ..ImageOptions::default() };
    let image = Image::open(path, &options).map_err(text)?;
    let each = storm.operations / storm.threads;
    let parts: Vec<Result<Vec<Sector>, String>> = std::thread::scope(|scope| {
        let image = &image;
        let threads: Vec<_> = (0..storm.threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut part = Part {
                        image,
                        first: thread * PART_SECTORS,
                        random: Random::new(storm.seed ^ thread << 32),
                        sectors: vec![Sector::default(); PART_SECTORS as usize],
                        buffer: vec![0; LONGEST as usize * SECTOR],
                    };
                    for number in 0..each {
                        part.step(number)?;
                        if thread == 0 && number % 512 == 0 {
                            move_end(image, base, &mut part.random)?;
                        }
                    }
                    Ok(part.sectors)
                })
            })
            .collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        };
        threads.into_iter().map(ended).collect()
    });
    drop(image);
    let report = image_tools::check(path, Some(storm.format), false, &mut |_| {}).map_err(text)?;
    if report.corruptions + report.leaks > 0 {
        return Err(format!(
            "the image has {} corruptions and {} leaks: {:?}",
            report.corruptions, report.leaks, report.problems
        ));
    }
    let image = Image::open(path, &options).map_err(text)?;
    for (thread, sectors) in (0..).zip(parts) {
        let mut part = Part {
            image: &image,
            first: thread * PART_SECTORS,
            random: Random::new(0),
            sectors: sectors?,
            buffer: vec![0; LONGEST as usize * SECTOR],
        };
        for from in 0..PART_SECTORS {
            part.look(from, 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_leaves_what_it_wrote() {
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let dir = tempfile::TempDir::new().unwrap();
            let storm = Storm { format, threads: 4, operations: 12_000, seed: 7 };
            run(&storm, &dir.path().join("disk.img")).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
}
