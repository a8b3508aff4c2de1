//! Guest time and the timers devices set on it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where guest time comes from.
#[derive(Debug)]
enum Source {
    /// The host's monotonic clock.
    Host(Instant),
    /// Set by whoever counts instructions: time is a function of guest work (replay, tests).
    Virtual(AtomicU64),
}

/// Guest time in nanoseconds since the machine was first started. Never goes backwards.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    /// Wall-clock time at zero, for real-time clocks, in nanoseconds since 1970.
    epoch_ns: u64,
}

impl Clock {
    /// Guest time follows the host's monotonic clock, wall time the host's at this moment.
    pub fn host() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { source: Source::Host(Instant::now()), epoch_ns: since_1970.as_nanos() as u64 }
    }

    /// Guest time moves only through [`Self::advance_to`]; wall time starts at `epoch_ns`.
    pub fn virtual_time(epoch_ns: u64) -> Self {
        Self { source: Source::Virtual(AtomicU64::new(0)), epoch_ns }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        match &self.source {
            Source::Host(start) => start.elapsed().as_nanos() as u64,
            Source::Virtual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Wall-clock nanoseconds since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.epoch_ns.saturating_add(self.now_ns())
    }

    /// Moves virtual time forward (never back); no effect on a host clock.
    pub fn advance_to(&self, ns: u64) {
        if let Source::Virtual(now) = &self.source {
            now.fetch_max(ns, Ordering::AcqRel);
        }
    }

    /// Is this clock driven by guest work?
    pub fn is_virtual(&self) -> bool {
        matches!(self.source, Source::Virtual(_))
    }
}

/// Ticks of a `hz` counter at `ns`, without overflow.
pub fn ns_to_ticks(ns: u64, hz: u64) -> u64 {
    (u128::from(ns) * u128::from(hz) / 1_000_000_000) as u64
}

/// The first nanosecond at which a `hz` counter shows `ticks`; saturates.
pub fn ticks_to_ns(ticks: u64, hz: u64) -> u64 {
    let ns = (u128::from(ticks) * 1_000_000_000).div_ceil(u128::from(hz.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

type Callback = Box<dyn Fn() + Send + Sync>;

struct Entry {
    deadline_ns: Option<u64>,
    callback: Arc<Callback>,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// `(deadline, timer)`; entries that no longer match `entries[timer].deadline_ns` are stale and skipped.
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    stopped: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    clock: Arc<Clock>,
}

/// Device timers on one thread: each calls back when guest time reaches its deadline. Callbacks run
/// on that thread without any lock of ours held, so they may take their device's lock and re-arm.
pub struct Timers {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timers")
    }
}

/// One timer of [`Timers`].
#[derive(Clone)]
pub struct Timer {
    shared: Weak<Shared>,
    index: usize,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timer({})", self.index)
    }
}

impl Timers {
    /// A timer service on `clock`. Its thread starts with the first timer.
    pub fn new(clock: Arc<Clock>) -> Self {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new(), clock };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// The clock the deadlines are on.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// Adds a disarmed timer.
    pub fn add(&self, callback: impl Fn() + Send + Sync + 'static) -> Timer {
        let mut queue = lock(&self.shared.queue);
        queue.entries.push(Entry { deadline_ns: None, callback: Arc::new(Box::new(callback)) });
        let index = queue.entries.len() - 1;
        drop(queue);
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = self.shared.clone();
            *thread = std::thread::Builder::new().name("timers".into()).spawn(move || serve(&shared)).ok();
        }
        Timer { shared: Arc::downgrade(&self.shared), index }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        lock(&self.shared.queue).stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Timer {
    /// Calls back once at `deadline_ns` (at once if that has passed), replacing any earlier deadline; `None` disarms.
    pub fn set(&self, deadline_ns: Option<u64>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut queue = lock(&shared.queue);
        queue.entries[self.index].deadline_ns = deadline_ns;
        let Some(deadline) = deadline_ns else { return };
        let first = queue.heap.peek().is_none_or(|Reverse((head, _))| deadline < *head);
        queue.heap.push(Reverse((deadline, self.index)));
        if queue.heap.len() > 64 + 8 * queue.entries.len() {
            // A guest that re-arms for ever must not grow the heap: rebuild it from what is armed.
            let armed = queue.entries.iter().enumerate();
            queue.heap = armed.filter_map(|(i, e)| e.deadline_ns.map(|d| Reverse((d, i)))).collect();
        }
        drop(queue);
        if first {
            shared.changed.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(shared: &Shared) {
    let mut queue = lock(&shared.queue);
    while !queue.stopped {
        let Some(&Reverse((deadline, index))) = queue.heap.peek() else {
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if queue.entries[index].deadline_ns != Some(deadline) {
            queue.heap.pop();
            continue;
        }
        let now = shared.clock.now_ns();
        if now < deadline {
            // A virtual clock moves without telling us, so look again soon; a host clock needs no second look.
            let limit = if shared.clock.is_virtual() { 1_000_000 } else { u64::MAX };
            let pause = Duration::from_nanos((deadline - now).min(limit).min(3_600_000_000_000));
            queue = shared.changed.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        queue.heap.pop();
        queue.entries[index].deadline_ns = None;
        let callback = queue.entries[index].callback.clone();
        drop(queue);
        callback();
        queue = lock(&shared.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn timers_fire_in_order_and_can_be_moved() {
        let timers = Timers::new(Arc::new(Clock::host()));
        let (tx, rx) = mpsc::channel();
        let make = |name: &'static str| {
            let tx = tx.clone();
            timers.add(move || tx.send(name).unwrap())
        };
        let (late, soon, never) = (make("late"), make("soon"), make("never"));
        let now = timers.clock().now_ns();
        late.set(Some(now + 30_000_000));
        never.set(Some(now + 20_000_000));
        soon.set(Some(now + 3_000_000_000));
        soon.set(Some(now + 10_000_000));
        never.set(None);
        assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), "soon");
        assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), "late");
        assert!(rx.recv_timeout(Duration::from_millis(20)).is_err());
    }

    #[test]
    fn rearming_does_not_grow() {
        let timers = Timers::new(Arc::new(Clock::virtual_time(0)));
        let timer = timers.add(|| ());
        (0..100_000u64).for_each(|i| timer.set(Some(u64::MAX - i)));
        assert!(lock(&timers.shared.queue).heap.len() < 100);
    }

    #[test]
    fn tick_conversion_round_trips() {
        for ticks in [0, 1, 12_345_678_901, u64::MAX / 100] {
            assert_eq!(ns_to_ticks(ticks_to_ns(ticks, 10_000_000), 10_000_000), ticks);
        }
        assert_eq!(ticks_to_ns(u64::MAX, 10_000_000), u64::MAX);
    }
}
