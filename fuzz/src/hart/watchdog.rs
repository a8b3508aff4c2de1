//! Ends the sleep of a vCPU that nothing would wake: a fuzzed guest executes `wfi` with no interrupt to come.

use isomer_engine::{Control, Peer};
use isomer_riscv64::Riscv64;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// How often the vCPU is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Looks in a row that must find it asleep: a thread that was only just about to run is not.
const LOOKS: u32 = 3;

#[derive(Default)]
struct Watched {
    peer: Option<Arc<Peer<Riscv64>>>,
    asleep: u32,
}

/// Runs `run`, which runs `peer`'s vCPU; if that falls asleep, it is asked to pause.
pub(super) fn bounded<T>(peer: &Arc<Peer<Riscv64>>, run: impl FnOnce() -> T) -> T {
    peer.set_control(Control::Run);
    *watched() = Watched { peer: Some(peer.clone()), asleep: 0 };
    let result = run();
    *watched() = Watched::default();
    result
}

/// What the thread watches; started with the first use.
fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: OnceLock<&'static Mutex<Watched>> = OnceLock::new();
    let watched = WATCHED.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(LOOK_EVERY);
                look(&mut watched());
            }
        });
        Box::leak(Box::default())
    });
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(watched: &mut Watched) {
    let Some(peer) = &watched.peer else { return };
    // A vCPU that runs no guest code counts every request as done, even one that was never posted.
    watched.asleep = if peer.is_done(u64::MAX) { watched.asleep + 1 } else { 0 };
    if watched.asleep >= LOOKS {
        peer.set_control(Control::Pause);
    }
}
