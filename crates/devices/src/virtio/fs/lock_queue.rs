//! Requests that wait for a lock which somebody else has: one thread tries them all again and again, so that no
//! queue stands still, least of all the one by which the lock would be given back.

use super::server::{LockRequest, Server};
use crate::virtio::{Chain, SharedQueue};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Most requests that wait.
const MAX_WAITING: usize = 256;
/// How often they are tried.
const RETRY: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Waiting {
    queue: SharedQueue,
    chain: Chain,
    lock: LockRequest,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    stop: bool,
}

/// The requests and their thread.
#[derive(Debug)]
pub(super) struct LockQueue {
    server: Arc<Server>,
    state: Mutex<State>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LockQueue {
    pub(super) fn start(server: Arc<Server>) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
        });
        let own = queue.clone();
        let thread = std::thread::Builder::new().name("share-locks".into()).spawn(move || own.run())?;
        *queue.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request until its lock is free. If too many wait already it is answered at once.
    pub(super) fn add(&self, queue: SharedQueue, chain: Chain, lock: LockRequest) -> Option<(Chain, u32)> {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING || state.stop {
            let written = self.server.retry(&chain, &lock, true).unwrap_or(0);
            return Some((chain, written));
        }
        state.waiting.push(Waiting { queue, chain, lock });
        self.changed.notify_all();
        None
    }

    /// Answers all with `EINTR`: the device is about to be saved.
    pub(super) fn give_up(&self) {
        self.try_all(&mut self.lock(), true);
    }

    /// Forgets all and ends the thread.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn try_all(&self, state: &mut State, give_up: bool) {
        for index in (0..state.waiting.len()).rev() {
            let Waiting { chain, lock, .. } = &state.waiting[index];
            if let Some(written) = self.server.retry(chain, lock, give_up) {
                let Waiting { queue, chain, .. } = state.waiting.swap_remove(index);
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.push(chain, written);
                queue.signal();
            }
        }
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stop {
            self.try_all(&mut state, false);
            state = match state.waiting.is_empty() {
                true => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                // Whoever adds a request need not wait for its first try to be over.
                false => self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}
