//! Where a guest's time goes: a vCPU's samples of its pc, taken when somebody asks for one, and the map file that tells the
//! host's `perf` of compiled code.

use isomer_core::Gpa;
use rustc_hash::FxHashMap;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What ran guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Not compiled: the interpreter, or the reference engine.
    Interpreter,
    /// A block compiled by itself.
    Template,
    /// A compiled region.
    Region,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Interpreter, Self::Template, Self::Region];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpreter => "interpreter",
            Self::Template => "template",
            Self::Region => "region",
        }
    }
}

/// One vCPU's samples.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    counts: FxHashMap<(u64, Tier), u64>,
    elsewhere: u64,
}

/// Different places kept; more than a profile shows, and a bound on what a guest that jumps about can cost.
const PLACES: usize = 1 << 16;

impl Samples {
    /// Counts a sample at virtual address `pc`.
    pub(crate) fn add(&mut self, pc: u64, tier: Tier) {
        if self.counts.len() < PLACES || self.counts.contains_key(&(pc, tier)) {
            *self.counts.entry((pc, tier)).or_default() += 1;
        } else {
            self.elsewhere += 1;
        }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(&place, count)| *self.counts.entry(place).or_default() += count);
        self.elsewhere += other.elsewhere;
    }

    /// `(pc, tier, samples)`, in no order.
    pub fn places(&self) -> impl Iterator<Item = (u64, Tier, u64)> + '_ {
        self.counts.iter().map(|(&(pc, tier), &count)| (pc, tier, count))
    }

    /// Samples whose place was not kept.
    pub fn elsewhere(&self) -> u64 {
        self.elsewhere
    }
}

/// Names a guest address, where it is known.
pub type NameOf = dyn Fn(u64) -> Option<String> + Send + Sync;

/// The file `/tmp/perf-PID.map` of `perf`'s interface for run-time compilers (Linux, tools/perf/Documentation/
/// jit-interface.txt): a line `START SIZE NAME` for each piece of compiled code, numbers in hexadecimal.
///
/// A line is written when a vCPU first can reach the code, since only then is it known at which virtual address the
/// guest has it.
pub struct PerfMap {
    state: Mutex<State>,
    name_of: Box<NameOf>,
}

struct State {
    file: File,
    /// Code that nobody could reach so far, by host address.
    waiting: FxHashMap<usize, (usize, Tier)>,
}

impl std::fmt::Debug for PerfMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PerfMap")
    }
}

impl PerfMap {
    /// Makes the file anew, readable by its owner; `name_of` gives guest symbols.
    ///
    /// # Errors
    /// When the host refuses it: what is at `path` belongs to somebody else.
    pub fn create(path: &Path, name_of: Box<NameOf>) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made here and now, so that no link that somebody else left in a common folder is followed.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { state: Mutex::new(State { file, waiting: FxHashMap::default() }), name_of })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is code at `address` now, whatever was there before.
    pub(crate) fn installed(&self, address: *const u8, len: usize, tier: Tier) {
        self.lock().waiting.insert(address.addr(), (len, tier));
    }

    /// A vCPU may enter the code at `address` when its guest jumps to `pc`, which is at `gpa`.
    pub(crate) fn reachable(&self, address: *const u8, pc: u64, gpa: Gpa) {
        let mut state = self.lock();
        let Some((len, tier)) = state.waiting.remove(&address.addr()) else { return };
        let name = (self.name_of)(pc).unwrap_or_else(|| format!("guest_{:x}", gpa.0));
        // A name ends with the line.
        let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let line = format!("{:x} {len:x} {name} [{} {pc:#x}]\n", address.addr(), tier.name());
        if let Err(error) = state.file.write_all(line.as_bytes()) {
            tracing::warn!("the perf map lacks {line:?}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_none_is_lost() {
        let mut samples = Samples::default();
        for pc in 0..(PLACES as u64 + 10) {
            samples.add(pc, Tier::Region);
        }
        samples.add(0, Tier::Region);
        samples.add(0, Tier::Template);
        assert_eq!((samples.places().count(), samples.elsewhere()), (PLACES, 11));
        let mut sum = Samples::default();
        sum.merge(&samples);
        sum.merge(&samples);
        assert_eq!(
            sum.places().map(|(_, _, count)| count).sum::<u64>() + sum.elsewhere(),
            2 * (PLACES as u64 + 12)
        );
    }

    #[test]
    fn a_map_names_code_once_it_can_be_reached() {
        let path = std::env::temp_dir().join(format!("isomer-perf-map-{}", std::process::id()));
        fs::write(&path, "left by somebody").unwrap();
        let name_of = |pc| (pc == 0x1000).then(|| "start\n_kernel".to_owned());
        let map = PerfMap::create(&path, Box::new(name_of)).unwrap();
        let at = |address: usize| std::ptr::without_provenance::<u8>(address);
        map.installed(at(0xabc0), 0x40, Tier::Region);
        map.installed(at(0xac00), 0x10, Tier::Template);
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        map.reachable(at(0xabc0), 0x1000, Gpa(0x8000_0000));
        map.reachable(at(0xabc0), 0x1000, Gpa(0x8000_0000));
        map.reachable(at(0xac00), 0x2000, Gpa(0x8000_1000));
        map.reachable(at(0xdead), 0x3000, Gpa(0x8000_2000));
        // Something else in the same place.
        map.installed(at(0xabc0), 8, Tier::Template);
        map.reachable(at(0xabc0), 0x1000, Gpa(0x8000_0000));
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(
            text,
            "abc0 40 start?_kernel [region 0x1000]\nac00 10 guest_80001000 [template 0x2000]\n\
             abc0 8 start?_kernel [template 0x1000]\n"
        );
    }
}
