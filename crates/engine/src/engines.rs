//! Which engine runs a machine's vCPUs, and how another takes over while the guest runs: the architectural state is all in
//! the CPU, so a vCPU changes engines between two slices, at the instruction boundary it stands at.

use crate::{
    group::{Group, Request},
    jit::{Jit, JitError, JitStats},
};
use isomer_ir::Guest;
use isomer_jit::cache::CacheStats;
use std::{
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Which engine runs lifted code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The interpreter over the compact form.
    #[default]
    Interpreter,
    /// The reference engine: one operation at a time, no passes. The oracle of the others.
    Reference,
    /// Compiled code for what is hot, the interpreter for the rest.
    Jit,
    /// Compiled code for everything at once, on the vCPU's own thread: slow to start, and deterministic, for tests.
    Eager,
    /// The same block by block, with the compiler for lukewarm code.
    Template,
    /// Interpreter, reference engine and compiled code of all tiers by turns, for tests.
    Mixed,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Interpreter, Self::Reference, Self::Jit, Self::Eager, Self::Template, Self::Mixed];

    /// The name people type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interpreter => "interp",
            Self::Reference => "reference",
            Self::Jit => "jit",
            Self::Eager => "eager",
            Self::Template => "template",
            Self::Mixed => "mixed",
        }
    }
}

/// An unknown engine.
#[derive(Debug, thiserror::Error)]
#[error("unknown engine {0:?}: the engines are {known}", known = EngineKind::ALL.map(EngineKind::name).join(", "))]
pub struct UnknownEngine(String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// Makes the compilers that an engine needs, if it needs any.
pub type MakeJit<G> = dyn Fn(EngineKind) -> Result<Option<Arc<Jit<G>>>, JitError> + Send + Sync;

/// The engine of one machine's vCPUs, which all have the same.
pub struct Engines<G: Guest> {
    group: Arc<Group<G>>,
    make: Box<MakeJit<G>>,
    state: Mutex<State<G>>,
}

struct State<G: Guest> {
    kind: EngineKind,
    /// The compilers made so far, kept with what they compiled for when their engine is asked for again.
    jits: Vec<(EngineKind, Arc<Jit<G>>)>,
}

impl<G: Guest> State<G> {
    fn jit(&self, kind: EngineKind) -> Option<Arc<Jit<G>>> {
        self.jits.iter().find(|(of, _)| *of == kind).map(|(_, jit)| jit.clone())
    }
}

impl<G: Guest> std::fmt::Debug for Engines<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engines({})", self.lock().kind.name())
    }
}

impl<G: Guest> Engines<G> {
    /// Engine `kind` for the vCPUs of `group`; `make` gives compilers where they are needed, now or later.
    ///
    /// # Errors
    /// When `make` fails.
    pub fn new(group: Arc<Group<G>>, kind: EngineKind, make: Box<MakeJit<G>>) -> Result<Arc<Self>, JitError> {
        let jits = make(kind)?.map(|jit| (kind, jit)).into_iter().collect();
        Ok(Arc::new(Self { group, make, state: Mutex::new(State { kind, jits }) }))
    }

    fn lock(&self) -> MutexGuard<'_, State<G>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vCPUs it is for.
    pub fn group(&self) -> &Arc<Group<G>> {
        &self.group
    }

    /// The present engine, and its compilers: for making vCPUs.
    pub fn current(&self) -> (EngineKind, Option<Arc<Jit<G>>>) {
        let state = self.lock();
        (state.kind, state.jit(state.kind))
    }
}

/// [`Engines`] without their guest's type.
pub trait SwitchEngine: Send + Sync {
    /// The engine that all vCPUs run on, or will before they run any further guest code.
    fn engine(&self) -> EngineKind;

    /// Asks every vCPU to go on with another engine, from the instruction boundary it comes to next. Any thread may.
    ///
    /// # Errors
    /// When the compilers it needs do not work on this host; the engine stays what it is.
    fn switch_engine(&self, kind: EngineKind) -> Result<(), JitError>;

    /// What the compilers did so far, all engines together.
    fn jit_stats(&self) -> JitStats;

    /// What the cache of compiled code did so far; `None` if there is none.
    fn cache_stats(&self) -> Option<CacheStats>;
}

impl<G: Guest> SwitchEngine for Engines<G> {
    fn engine(&self) -> EngineKind {
        self.lock().kind
    }

    fn switch_engine(&self, kind: EngineKind) -> Result<(), JitError> {
        // Held to the end, so that two who switch at once leave all vCPUs with the same.
        let mut state = self.lock();
        if state.kind == kind {
            return Ok(());
        }
        let jit = match state.jit(kind) {
            Some(jit) => Some(jit),
            None => (self.make)(kind)?.inspect(|jit| state.jits.push((kind, jit.clone()))),
        };
        state.kind = kind;
        for peer in self.group.peers() {
            peer.post(Request::SwitchEngine { kind, jit: jit.clone() });
        }
        Ok(())
    }

    fn jit_stats(&self) -> JitStats {
        let state = self.lock();
        state.jits.iter().fold(JitStats::default(), |sum, (_, jit)| sum.plus(&jit.stats()))
    }

    fn cache_stats(&self) -> Option<CacheStats> {
        // One engine at most has a cache.
        self.lock().jits.iter().find(|(_, jit)| jit.has_cache()).map(|(_, jit)| jit.cache_stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.name().parse::<EngineKind>().unwrap(), kind);
        }
        let error = "warp".parse::<EngineKind>().unwrap_err().to_string();
        assert!(error.contains("warp") && error.contains("interp, reference, jit"), "{error}");
    }
}
