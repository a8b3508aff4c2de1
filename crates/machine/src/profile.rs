//! Profiles of a guest: a thread that asks the vCPUs where they are, and what they answered.

use crate::{MachineError, Spec, symbols::Symbols};
use isomer_engine::{Controls, PerfMap, Samples, Tier};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Between two samples: not in step with anything that happens every millisecond.
const PERIOD: Duration = Duration::from_micros(997);

/// Asks for samples until it is dropped.
pub(crate) struct Sampler {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub(crate) fn start(control: Arc<dyn Controls>) -> Result<Self, MachineError> {
        let (stop, stopped) = channel::<()>();
        let body = move || {
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                control.ask_for_samples();
            }
        };
        let thread = std::thread::Builder::new().name("sampler".into()).spawn(body);
        let thread = thread.map_err(|source| MachineError::Host { what: "a thread", source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only waits and asks.
            let _ = thread.join();
        }
    }
}

/// Where compiled code is told of: the name that the host's `perf` looks for.
pub fn perf_map_path() -> PathBuf {
    PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()))
}

/// The map file that `spec` asks for.
pub(crate) fn perf_map(spec: &Spec) -> Result<Option<Arc<PerfMap>>, MachineError> {
    if !spec.profile.perf_map {
        return Ok(None);
    }
    let symbols = Symbols::of(spec)?;
    let name_of = move |pc| {
        let (name, offset) = symbols.lookup(pc)?;
        Some(if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") })
    };
    let path = perf_map_path();
    let map = PerfMap::create(&path, Box::new(name_of));
    Ok(Some(Arc::new(map.map_err(|source| MachineError::PerfMap { path, source })?)))
}

/// A place where a guest spends time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotPlace {
    /// A symbol, or an address where none is known.
    pub name: String,
    /// Samples in it.
    pub samples: u64,
    /// The same by [`Tier`], in the order of [`Tier::ALL`].
    pub tiers: [u64; 3],
}

/// A profile: places by samples, most first; and all samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The hottest.
    pub places: Vec<HotPlace>,
    /// All samples, also of places not in the list.
    pub samples: u64,
    /// The same by tier.
    pub tiers: [u64; 3],
}

impl Profile {
    /// The `most` hottest symbols of `samples`.
    pub fn new(samples: &Samples, symbols: &Symbols, most: usize) -> Self {
        let mut by_name = HashMap::<String, [u64; 3]>::new();
        let mut tiers = [0; 3];
        for (pc, tier, count) in samples.places() {
            let name = symbols.lookup(pc).map_or_else(|| format!("{pc:#x}"), |(name, _)| name.to_owned());
            let at = Tier::ALL.iter().position(|known| *known == tier).unwrap_or(0);
            by_name.entry(name).or_default()[at] += count;
            tiers[at] += count;
        }
        let place = |(name, tiers): (String, [u64; 3])| HotPlace { name, samples: tiers.iter().sum(), tiers };
        let mut places: Vec<_> = by_name.into_iter().map(place).collect();
        places.sort_by(|a, b| (b.samples, &a.name).cmp(&(a.samples, &b.name)));
        places.truncate(most);
        Self { places, samples: tiers.iter().sum::<u64>() + samples.elsewhere(), tiers }
    }
}
