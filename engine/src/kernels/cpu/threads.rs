//! The threads that compute: fork and join many times per step, at a microsecond or so each.
//!
//! Work is claimed piece by piece from one counter, so a thread whose core was taken by another process holds
//! up at most the piece it has in hand; a thread that never woke holds up nothing. Between two jobs of a step
//! threads spin, then offer their core, and soon after the step they sleep: no core is burnt while idle.
#![expect(unsafe_code, reason = "a job borrows from its caller's stack, which waits until every thread has left it")]

use std::{
    any::Any,
    cell::UnsafeCell,
    hint, mem,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// Spins before a waiting thread first offers its core.
const SPINS: u32 = 256;
/// How long a thread looks for the next job before it sleeps: longer than what lies between two of a step.
const LINGER: Duration = Duration::from_micros(100);

/// A fixed set of threads, of which the caller is one.
#[derive(Debug)]
pub struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held while a job runs; a job within a job runs on its own thread alone.
    turn: Mutex<()>,
}

struct Shared {
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// The first piece nobody has claimed.
    next: AtomicUsize,
    sleepers: Box<[Sleeper]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
}

// SAFETY: `job` is written only while the gate is shut and nobody is inside, and read only from inside.
unsafe impl Sync for Shared {}
// SAFETY: as above; a job's borrow is `Sync`.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

/// A borrowed closure and the pieces to call it with.
#[derive(Clone, Copy)]
struct Job {
    task: &'static (dyn Fn(Range<usize>) + Sync),
    items: usize,
    least: usize,
    threads: usize,
}

// The gate's bits: threads inside, whether it is open, and a number that tells one job from the next.
const INSIDE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const NEXT: u64 = 1 << 17;

impl Threads {
    /// `count` threads, the caller included.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let count = count.clamp(1, INSIDE as usize);
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            sleepers: (1..count).map(|_| Sleeper::default()).collect(),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            let name = format!("engine-compute-{}", index + 1);
            thread::Builder::new().name(name).spawn(move || shared.help(index))
        };
        let mut threads = Self { shared: Arc::clone(&shared), helpers: Vec::new(), turn: Mutex::new(()) };
        for index in 0..count - 1 {
            threads.helpers.push(start(index)?);
        }
        Ok(threads)
    }

    /// As many as there are cores for this process.
    pub fn of_this_machine() -> std::io::Result<Self> {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `task` once for every index below `count`.
    pub fn each(&self, count: usize, task: impl Fn(usize) + Sync) {
        self.ranges(count, 1, |range| range.for_each(&task));
    }

    /// Calls `task` on ranges that together are `0..items`, none shorter than `least` but the last: long ones
    /// first, short ones towards the end, so that all threads end together.
    pub fn ranges(&self, items: usize, least: usize, task: impl Fn(Range<usize>) + Sync) {
        let least = least.max(1);
        if self.helpers.is_empty() || items <= least {
            return task(0..items);
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return task(0..items),
        };
        let task: &(dyn Fn(Range<usize>) + Sync) = &task;
        // SAFETY: `shut` below returns only when no thread is inside the job any more, also on panic.
        let task =
            unsafe { mem::transmute::<&(dyn Fn(Range<usize>) + Sync), &'static (dyn Fn(Range<usize>) + Sync)>(task) };
        self.shared.open(Job { task, items, least, threads: self.count() });
        let own = catch_unwind(AssertUnwindSafe(|| self.shared.work()));
        self.shared.shut();
        // While the turn is still held: the next one's panic is not ours.
        let theirs = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

impl Shared {
    fn open(&self, job: Job) {
        // SAFETY: the gate is shut and nobody is inside: `shut` saw to it, and `turn` is held.
        unsafe { *self.job.get() = Some(job) };
        self.next.store(0, Ordering::Relaxed);
        let gate = self.gate.load(Ordering::Relaxed);
        self.gate.store(gate.wrapping_add(NEXT) | OPEN, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        for sleeper in &self.sleepers {
            if sleeper.asleep.swap(false, Ordering::SeqCst)
                && let Some(thread) = &*sleeper.thread.lock().unwrap_or_else(PoisonError::into_inner)
            {
                thread.unpark();
            }
        }
    }

    /// Lets no more threads in and waits for those inside.
    fn shut(&self) {
        let mut gate = self.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while gate & INSIDE != 0 {
            wait(&mut spins);
            gate = self.gate.load(Ordering::Acquire);
        }
    }

    /// Does pieces of the job until none is left. Called inside only.
    fn work(&self) {
        // SAFETY: whoever is inside sees the job that was there when the gate opened.
        let Some(job) = (unsafe { *self.job.get() }) else { return };
        let mut first = self.next.load(Ordering::Relaxed);
        while first < job.items {
            let left = job.items - first;
            let length = (left / (2 * job.threads)).max(job.least).min(left);
            match self.next.compare_exchange_weak(first, first + length, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    (job.task)(first..first + length);
                    first = self.next.load(Ordering::Relaxed);
                }
                Err(now) => first = now,
            }
        }
    }

    /// What a helper does all its life.
    fn help(&self, index: usize) {
        *self.sleepers[index].thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        let mut done = 0;
        while let Some(gate) = self.next_job(index, done) {
            let entered = self.gate.compare_exchange(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed);
            if entered.is_err() {
                continue; // Another went in first, or it was shut: look again.
            }
            done = gate / NEXT;
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work())) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// The open gate of a job other than `done`; `None` at the end of all.
    fn next_job(&self, index: usize, done: u64) -> Option<u64> {
        let is_new = |gate: u64| gate & OPEN != 0 && gate / NEXT != done;
        let mut spins = 0;
        let mut since = None;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let gate = self.gate.load(Ordering::Acquire);
            if is_new(gate) {
                return Some(gate);
            }
            wait(&mut spins);
            if spins < SPINS || since.get_or_insert_with(Instant::now).elapsed() < LINGER {
                continue;
            }
            self.sleepers[index].asleep.store(true, Ordering::SeqCst);
            // Whoever opened the gate before it could see this thread asleep is seen here.
            if !is_new(self.gate.load(Ordering::SeqCst)) && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.sleepers[index].asleep.store(false, Ordering::SeqCst);
            (spins, since) = (0, None);
        }
    }
}

/// One round of waiting: a pause at first, then the core is offered to others.
fn wait(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_whatever_the_sizes() {
        for count in [1, 2, 3, 8] {
            let threads = Threads::new(count).unwrap();
            for items in [0, 1, 2, 7, 100, 1000] {
                for least in [1, 3, 64] {
                    let done: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                    threads.ranges(items, least, |range| {
                        assert!(range.len() >= least.min(items) || range.end == items);
                        range.for_each(|item| {
                            done[item].fetch_add(1, Ordering::Relaxed);
                        });
                    });
                    assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1), "{count} {items} {least}");
                }
            }
        }
    }

    #[test]
    fn thousands_of_jobs_in_a_row_lose_nothing() {
        let threads = Threads::new(4).unwrap();
        let sum = AtomicUsize::new(0);
        for _ in 0..20_000 {
            threads.each(8, |index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 20_000 * 28);
    }

    #[test]
    fn a_job_within_a_job_runs_and_a_panic_reaches_the_caller() {
        let threads = Threads::new(2).unwrap();
        let sum = AtomicUsize::new(0);
        threads.each(4, |_| {
            threads.each(4, |index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 24);
        for _ in 0..50 {
            let broken = catch_unwind(AssertUnwindSafe(|| threads.each(64, |index| assert_ne!(index, 63))));
            assert!(broken.is_err());
        }
        threads.each(4, |_| ());
    }

    #[test]
    fn several_callers_may_share_it() {
        let threads = Threads::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        threads.each(10, |_| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 20_000);
    }
}
