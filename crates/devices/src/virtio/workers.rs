//! Threads that serve a device's queues off the vCPUs: several may share a queue, so that one slow request does not
//! keep the others waiting.

use super::{Chain, SharedQueue, VirtQueue};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    Park,
    Stop,
}

#[derive(Debug)]
struct Control {
    order: Order,
    /// Threads that should look at the queue.
    kicks: usize,
    /// Threads that have nothing in hand.
    idle: usize,
}

#[derive(Debug)]
struct Shared {
    control: Mutex<Control>,
    changed: Condvar,
    /// `order` is not `Serve`: looked at between two requests without the lock.
    interrupted: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        let mut control = self.lock();
        control.order = order;
        self.interrupted.store(order != Order::Serve, Ordering::Release);
        drop(control);
        self.changed.notify_all();
    }

    fn kick(&self) {
        let mut control = self.lock();
        // A thread that is not idle looks again before it sleeps, if it finds a kick.
        control.kicks = 1;
        let wake = control.idle > 0;
        drop(control);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Waits for something to do; `false`: stop.
    fn wait(&self) -> bool {
        let mut control = self.lock();
        control.idle += 1;
        loop {
            match control.order {
                Order::Stop => return false,
                Order::Serve if control.kicks > 0 => {
                    control.kicks = 0;
                    control.idle -= 1;
                    return true;
                }
                Order::Park => self.changed.notify_all(),
                Order::Serve => {}
            }
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads of one queue; dropping them finishes the requests in hand.
#[derive(Debug)]
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each of `serve`.
    pub(super) fn start<S: Serve>(
        name: &str,
        queue: &SharedQueue,
        serve: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let control = Mutex::new(Control { order: Order::Serve, kicks: 0, idle: 0 });
        let (changed, interrupted) = (Condvar::new(), AtomicBool::new(false));
        let mut workers =
            Self { shared: Arc::new(Shared { control, changed, interrupted }), threads: Vec::new() };
        for mut serve in serve {
            let (own, queue) = (workers.shared.clone(), queue.clone());
            let body = move || {
                while own.wait() {
                    drain(&queue, &mut serve, &own);
                }
            };
            workers.threads.push(std::thread::Builder::new().name(name.into()).spawn(body)?);
        }
        Ok(workers)
    }

    /// There may be requests.
    pub(super) fn kick(&self) {
        self.shared.kick();
    }

    /// Asks the threads to park after the requests in hand.
    pub(super) fn ask_to_park(&self) {
        self.shared.order(Order::Park);
    }

    /// Waits until they have.
    pub(super) fn wait_parked(&self) {
        let mut control = self.shared.lock();
        while control.idle < self.threads.len() {
            control = self.shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets them go on.
    pub(super) fn unpark(&self) {
        self.shared.order(Order::Serve);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, VirtQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves requests until there are none or the device wants something else.
fn drain<S: Serve>(queue: &SharedQueue, serve: &mut S, shared: &Shared) {
    let take = |queue: &mut VirtQueue, serve: &mut S| {
        let chain = queue.pop()?;
        Some((serve.taken(&chain), chain))
    };
    let mut next = take(&mut lock(queue), serve);
    while let Some((may_wait, chain)) = next {
        if may_wait {
            shared.kick();
        }
        let answer = serve.serve(chain);
        let mut queue = lock(queue);
        if let Some((chain, written)) = answer {
            queue.push(chain, written);
            // File requests are waited for one by one, so each is told at once.
            queue.signal();
        }
        serve.answered();
        next = if shared.interrupted.load(Ordering::Acquire) { None } else { take(&mut queue, serve) };
    }
}
