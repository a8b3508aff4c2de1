//! Threads that serve a device's queues off the vCPUs: several may share a queue, so that one slow request does not
//! keep the others waiting.

use super::{Chain, SharedQueue, VirtQueue};
use crate::crew::{Crew, Shared};
use std::{
    io,
    sync::{MutexGuard, PoisonError},
};

/// What a thread does with the requests of a queue.
pub(super) trait Serve: Send + 'static {
    /// A request was taken from the queue, which is still locked: requests are seen in the order they came in.
    /// Returns whether it may take long; another thread is woken for the rest of the queue then.
    fn taken(&mut self, chain: &Chain) -> bool;
    /// Carries it out; returns the chain and how many bytes of the answer were written to it, or keeps it.
    fn serve(&mut self, chain: Chain) -> Option<(Chain, u32)>;
    /// The answer was given back; the queue is still locked.
    fn answered(&mut self) {}
}

/// The threads of one queue; dropping them finishes the requests in hand.
#[derive(Debug)]
pub(super) struct Workers(Crew);

impl Workers {
    /// Starts one thread for each of `serve`.
    pub(super) fn start<S: Serve>(
        name: &str,
        queue: &SharedQueue,
        serve: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let bodies = serve.into_iter().map(|mut serve| {
            let queue = queue.clone();
            move |shared: &Shared| drain(&queue, &mut serve, shared)
        });
        Crew::start(name, bodies).map(Self)
    }

    /// There may be requests.
    pub(super) fn kick(&self) {
        self.0.kick();
    }

    /// Asks the threads to park after the requests in hand.
    pub(super) fn ask_to_park(&self) {
        self.0.ask_to_park();
    }

    /// Waits until they have.
    pub(super) fn wait_parked(&self) {
        self.0.wait_parked();
    }

    /// Lets them go on.
    pub(super) fn unpark(&self) {
        self.0.unpark();
    }
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, VirtQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the next request; whoever is to take the one after it hears of it now, from here or from the driver.
fn take<S: Serve>(queue: &mut VirtQueue, serve: &mut S, shared: &Shared) -> Option<Chain> {
    let chain = queue.pop()?;
    if serve.taken(&chain) && queue.listen() {
        shared.kick();
    }
    Some(chain)
}

/// Serves requests until there are none or the device wants something else.
fn drain<S: Serve>(queue: &SharedQueue, serve: &mut S, shared: &Shared) {
    let mut next = take(&mut lock(queue), serve, shared);
    while let Some(chain) = next {
        let answer = serve.serve(chain);
        let mut queue = lock(queue);
        if let Some((chain, written)) = answer {
            queue.push(chain, written);
            // A driver that is busy with answers asks not to be told of more (EVENT_IDX).
            queue.signal();
        }
        serve.answered();
        next = if shared.is_interrupted() { None } else { take(&mut queue, serve, shared) };
    }
}
