//! Ends the sleep of a vCPU that nothing would wake: a fuzzed guest executes `wfi` with no interrupt to come.

use isomer_engine::{Control, Peer};
use isomer_ir::Guest;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// How often the vCPU is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Looks in a row that must find it asleep: a thread that was only just about to run is not.
const LOOKS: u32 = 3;

/// A vCPU of any guest.
trait Sleeper: Send {
    fn is_asleep(&self) -> bool;
    fn pause(&self);
}

impl<G: Guest> Sleeper for Arc<Peer<G>> {
    /// A vCPU that runs no guest code counts every request as done, even one that was never posted.
    fn is_asleep(&self) -> bool {
        self.is_done(u64::MAX)
    }

    fn pause(&self) {
        self.set_control(Control::Pause);
    }
}

#[derive(Default)]
struct Watched {
    peer: Option<Box<dyn Sleeper>>,
    asleep: u32,
}

/// Runs `run`, which runs `peer`'s vCPU; if that falls asleep, it is asked to pause.
pub(crate) fn bounded<G: Guest, T>(peer: &Arc<Peer<G>>, run: impl FnOnce() -> T) -> T {
    peer.set_control(Control::Run);
    *watched() = Watched { peer: Some(Box::new(peer.clone())), asleep: 0 };
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
    watched.asleep = if peer.is_asleep() { watched.asleep + 1 } else { 0 };
    if watched.asleep >= LOOKS {
        peer.pause();
    }
}
