//! Which engine a machine gets: the one asked for, or the best that works on this host, with the reason where that is not
//! the fastest one.

use crate::{EngineChoice, MachineError, Spec, profile};
use isomer_engine::{EngineKind, Engines, Group, Jit, JitError, SwitchEngine};
use isomer_ir::Guest;
use std::sync::{Arc, Once};

/// A machine's engine, for whoever tells of it or changes it.
#[derive(Clone)]
pub struct MachineEngine {
    switch: Arc<dyn SwitchEngine>,
    fallback: Option<Arc<str>>,
}

impl std::fmt::Debug for MachineEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MachineEngine({})", self.kind().name())
    }
}

impl MachineEngine {
    /// What runs guest code now.
    pub fn kind(&self) -> EngineKind {
        self.switch.engine()
    }

    /// Why [`EngineChoice::Auto`] is not the compiling engine here.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The guest goes on with another engine, at the instruction each of its CPUs has come to.
    ///
    /// # Errors
    /// When that engine does not work on this host; nothing has changed then.
    pub fn switch(&self, kind: EngineKind) -> Result<(), MachineError> {
        self.switch.switch_engine(kind).map_err(|source| MachineError::Jit { source })
    }

    /// What the compilers did so far.
    pub fn jit_stats(&self) -> isomer_engine::JitStats {
        self.switch.jit_stats()
    }

    /// What the cache of compiled code did so far; `None` if there is none.
    pub fn cache_stats(&self) -> Option<isomer_engine::CacheStats> {
        self.switch.cache_stats()
    }
}

/// Makes the engine `spec` asks for. Where the cache of compiled code cannot be used, it does without and we say so, once a
/// process: a machine may be made again and again.
pub(crate) fn choose<G: Guest>(
    spec: &Spec,
    guest: &Arc<G>,
    group: &Arc<Group<G>>,
) -> Result<(Arc<Engines<G>>, MachineEngine), MachineError> {
    static TOLD: Once = Once::new();
    let (guest, cache) = (guest.clone(), spec.cache.clone());
    let perf_map = profile::perf_map(spec)?;
    let make = move |kind| -> Result<_, JitError> {
        let jit = Jit::for_engine_with(kind, &guest, &cache)?;
        if let Some(error) = jit.as_ref().and_then(|jit| jit.cache_error()) {
            TOLD.call_once(|| tracing::warn!("running without the code cache: {error} ({})", error.fix()));
        }
        if let (Some(jit), Some(map)) = (&jit, &perf_map) {
            jit.tell(map.clone());
        }
        Ok(jit)
    };
    choose_of(spec.engine, group, make)
}

/// Makes what `choice` asks for; `make` gives the compilers of an engine.
fn choose_of<G: Guest>(
    choice: EngineChoice,
    group: &Arc<Group<G>>,
    make: impl Fn(EngineKind) -> Result<Option<Arc<Jit<G>>>, JitError> + Send + Sync + Clone + 'static,
) -> Result<(Arc<Engines<G>>, MachineEngine), MachineError> {
    let new = |kind| Engines::new(group.clone(), kind, Box::new(make.clone()));
    let (engines, fallback) = match (choice, new(choice.kind())) {
        (_, Ok(engines)) => (engines, None),
        (EngineChoice::Auto, Err(why)) => {
            let engines = new(EngineKind::Interpreter).map_err(|source| MachineError::Jit { source })?;
            (engines, Some(why.to_string().into()))
        }
        (_, Err(source)) => return Err(MachineError::Jit { source }),
    };
    let told = MachineEngine { switch: engines.clone(), fallback };
    Ok((engines, told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isomer_riscv64::Riscv64;

    #[test]
    fn auto_compiles_where_that_works_and_tells_why_where_not() {
        let guest = Arc::new(Riscv64::max());
        let group = Group::new(1);
        let works = move |kind| Jit::for_engine(kind, &guest);
        let (_, engine) = choose_of(EngineChoice::Auto, &group, works.clone()).unwrap();
        assert_eq!((engine.kind(), engine.fallback()), (EngineKind::Jit, None));
        let (_, engine) = choose_of(EngineChoice::Interp, &group, works).unwrap();
        assert_eq!((engine.kind(), engine.fallback()), (EngineKind::Interpreter, None));
        let refused = |kind| match kind {
            EngineKind::Interpreter => Ok(None),
            _ => Err(JitError::Thread(std::io::Error::other("no more threads"))),
        };
        let (_, engine) = choose_of(EngineChoice::Auto, &group, refused).unwrap();
        assert_eq!(engine.kind(), EngineKind::Interpreter);
        assert!(engine.fallback().unwrap().contains("no more threads"));
        assert!(engine.switch(EngineKind::Jit).is_err() && engine.kind() == EngineKind::Interpreter);
        assert!(choose_of(EngineChoice::Jit, &group, refused).is_err());
    }
}
