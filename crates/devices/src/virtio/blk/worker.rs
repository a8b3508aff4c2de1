//! The thread that serves one queue of a block device.

use super::request::{self, Disk};
use crate::virtio::{SharedQueue, VirtQueue};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Requests are signalled together until the first of them has waited this long.
const SIGNAL_DELAY: Duration = Duration::from_micros(200);

/// What the device wants of its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    Park,
    Stop,
}

#[derive(Debug)]
struct Control {
    order: Order,
    kicked: bool,
    parked: bool,
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

    /// Waits for something to do; `false`: stop.
    fn wait(&self) -> bool {
        let mut control = self.lock();
        loop {
            control.parked = control.order == Order::Park;
            match (control.order, control.kicked) {
                (Order::Stop, _) => return false,
                (Order::Serve, true) => {
                    control.kicked = false;
                    return true;
                }
                (Order::Park, _) => self.changed.notify_all(),
                (Order::Serve, false) => {}
            }
            control = self.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A worker; dropping it finishes the request in hand and ends the thread.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(queue: SharedQueue, disk: Arc<Disk>) -> io::Result<Self> {
        let control = Mutex::new(Control { order: Order::Serve, kicked: false, parked: false });
        let shared =
            Arc::new(Shared { control, changed: Condvar::new(), interrupted: AtomicBool::new(false) });
        let own = shared.clone();
        let serve = move || {
            while own.wait() {
                drain(&queue, &disk, &own.interrupted);
            }
        };
        let thread = std::thread::Builder::new().name("disk".into()).spawn(serve)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// There may be requests.
    pub(super) fn kick(&self) {
        self.shared.lock().kicked = true;
        self.shared.changed.notify_all();
    }

    /// Asks the worker to park after the request in hand.
    pub(super) fn ask_to_park(&self) {
        self.shared.order(Order::Park);
    }

    /// Waits until it has.
    pub(super) fn wait_parked(&self) {
        let mut control = self.shared.lock();
        while !control.parked {
            control = self.shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets it go on.
    pub(super) fn unpark(&self) {
        self.shared.order(Order::Serve);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(queue: &SharedQueue) -> MutexGuard<'_, VirtQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves requests until there are none or the device wants something else.
fn drain(queue: &SharedQueue, disk: &Disk, interrupted: &AtomicBool) {
    let mut next = lock(queue).pop();
    let mut unsignalled_since = None;
    while let Some(mut chain) = next {
        let answer = request::serve(disk, &mut chain);
        let mut queue = lock(queue);
        match answer {
            Ok(written) => queue.push(chain, written),
            Err(broken) => queue.fail(&broken),
        }
        let since = *unsignalled_since.get_or_insert_with(Instant::now);
        let stop = interrupted.load(Ordering::Acquire);
        next = if stop { None } else { queue.pop() };
        if next.is_none() || since.elapsed() >= SIGNAL_DELAY {
            queue.signal();
            unsignalled_since = None;
        }
    }
}
