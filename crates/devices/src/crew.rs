//! Threads that work for a device off the vCPUs: they sleep until there may be something to do, and park or stop
//! between two pieces of work when the device wants that.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Serve,
    Park,
    Stop,
}

#[derive(Debug)]
struct Control {
    order: Order,
    /// Somebody should look for work.
    kicked: bool,
    /// Threads that have nothing in hand.
    idle: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    control: Mutex<Control>,
    changed: Condvar,
    /// `order` is not `Serve`: looked at between two pieces of work without the lock.
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

    /// There may be work.
    pub(crate) fn kick(&self) {
        let mut control = self.lock();
        // A thread that is not idle looks again before it sleeps, if it finds a kick.
        control.kicked = true;
        let wake = control.idle > 0;
        drop(control);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Does the device want something else than work?
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Waits for something to do; `false`: stop.
    fn wait(&self) -> bool {
        let mut control = self.lock();
        control.idle += 1;
        loop {
            match control.order {
                Order::Stop => return false,
                Order::Serve if control.kicked => {
                    control.kicked = false;
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

/// The threads; dropping them finishes what is in hand.
#[derive(Debug)]
pub(crate) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts one thread for each of `bodies`, which is called whenever there may be work and returns when there is
    /// none or the crew is interrupted.
    pub(crate) fn start<B>(name: &str, bodies: impl IntoIterator<Item = B>) -> io::Result<Self>
    where
        B: FnMut(&Shared) + Send + 'static,
    {
        let control = Mutex::new(Control { order: Order::Serve, kicked: false, idle: 0 });
        let (changed, interrupted) = (Condvar::new(), AtomicBool::new(false));
        let mut crew =
            Self { shared: Arc::new(Shared { control, changed, interrupted }), threads: Vec::new() };
        for mut body in bodies {
            let own = crew.shared.clone();
            let work = move || {
                while own.wait() {
                    body(&own);
                }
            };
            crew.threads.push(std::thread::Builder::new().name(name.into()).spawn(work)?);
        }
        Ok(crew)
    }

    /// There may be work.
    pub(crate) fn kick(&self) {
        self.shared.kick();
    }

    /// Asks the threads to park after what is in hand.
    pub(crate) fn ask_to_park(&self) {
        self.shared.order(Order::Park);
    }

    /// Waits until they have.
    pub(crate) fn wait_parked(&self) {
        let mut control = self.shared.lock();
        while control.idle < self.threads.len() {
            control = self.shared.changed.wait(control).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets them go on.
    pub(crate) fn unpark(&self) {
        self.shared.order(Order::Serve);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.order(Order::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
