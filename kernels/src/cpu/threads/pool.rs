//! Threads that wait for work.
//!
//! Each thread has a range of a run's tasks: it takes them from the front, and when it has none
//! left takes from the back of others'. So a thread meets the same part of every map, run after
//! run, in its own cache; what another core wrote costs much more to read.

use std::{
    hint::spin_loop,
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    vec::Vec,
};

/// How often a thread looks for work before it sleeps: some 50 microseconds, more than it waits for
/// others' last tasks and for a kernel between that shares no work. Waking it takes as long.
const LOOKS: u32 = 2500;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// What the threads see of a run.
#[derive(Debug)]
struct Shared {
    /// Number of the run.
    run: Line<AtomicU32>,
    /// For each thread, the tasks of its range that are not claimed.
    ranges: Vec<Line<Range>>,
    /// How many tasks of the run are done.
    done: Line<AtomicUsize>,
    /// Whether a task of the run panicked.
    panicked: AtomicBool,
    /// Whether the pool is going away.
    closing: AtomicBool,
    /// How many threads sleep.
    sleeping: Mutex<usize>,
    /// Wakes them.
    wake: Condvar,
    /// The run's task; written between runs only, followed only while its run lasts.
    task: AtomicPtr<&'static Task<'static>>,
}

/// What has a line of the cache of its own (and the neighbour that is fetched with it), so that
/// threads do not wait for each other's writes to what lies beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

/// Some waiting threads.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a run.
    running: Mutex<()>,
}

impl Pool {
    /// As many threads as the system gives, at most `count`.
    pub fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            run: Line::default(),
            ranges: (0..=count).map(|_| Line::default()).collect(),
            done: Line::default(),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            sleeping: Mutex::new(0),
            wake: Condvar::new(),
            task: AtomicPtr::new(ptr::null_mut()),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let work = move || shared.work(number);
            thread::Builder::new().name("emoc".into()).spawn(work).ok()
        };
        let workers = (1..=count).map_while(start).collect();
        Self {
            shared,
            workers,
            running: Mutex::new(()),
        }
    }

    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    pub fn run(&self, tasks: usize, task: &Task) {
        let _running = match self.running.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return (0..tasks).for_each(|index| task(index, 0));
            }
        };
        // More tasks than a range can number are run in parts.
        let mut first = 0;
        while first < tasks {
            let part = (tasks - first).min(usize::from(u16::MAX));
            self.shared
                .run(part, &|index, thread| task(first + index, thread));
            first += part;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleeping));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A task's panic was reported to the caller of its run.
            let _ = worker.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks that are not claimed: number of the run (32 bits), first task, end (16 bits each).
#[derive(Debug, Default)]
struct Range(AtomicU64);

impl Range {
    fn set(&self, run: u32, start: usize, end: usize) {
        let packed = u64::from(run) << 32 | (start as u64) << 16 | end as u64;
        self.0.store(packed, Ordering::Release);
    }

    /// Claims a task of this run: the first, or the last.
    fn claim(&self, run: u32, first: bool) -> Option<usize> {
        let parts = |packed: u64| (packed >> 16 & 0xFFFF, packed & 0xFFFF);
        let claim = |packed: u64| {
            let (start, end) = parts(packed);
            let open = packed >> 32 == u64::from(run) && start < end;
            open.then(|| {
                if first {
                    packed + (1 << 16)
                } else {
                    packed - 1
                }
            })
        };
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let packed = self.0.fetch_update(order.0, order.1, claim).ok()?;
        let (start, end) = parts(packed);
        Some(if first { start } else { end - 1 } as usize)
    }
}

impl Shared {
    fn run(&self, tasks: usize, task: &Task) {
        // The pointer is followed by whoever holds a claimed task of this run, and this function
        // returns after all of them are done.
        self.task
            .store((&raw const task).cast_mut().cast(), Ordering::Relaxed);
        self.done.0.store(0, Ordering::Relaxed);
        self.panicked.store(false, Ordering::Relaxed);
        let run = self.run.0.load(Ordering::Relaxed).wrapping_add(1);
        let threads = self.ranges.len();
        for (thread, range) in self.ranges.iter().enumerate() {
            range.0.set(
                run,
                tasks * thread / threads,
                tasks * (thread + 1) / threads,
            );
        }
        self.run.0.store(run, Ordering::SeqCst);
        // A thread that is about to sleep looks at the number under this lock.
        if *lock(&self.sleeping) > 0 {
            self.wake.notify_all();
        }
        // Even if a task panics here, the closure must outlive the others'.
        let finish = Finish {
            shared: self,
            run,
            tasks,
        };
        self.work_on(run, 0);
        drop(finish);
        assert!(!self.panicked.load(Ordering::Relaxed), "a task panicked");
    }

    /// Does tasks of this run until all are claimed.
    fn work_on(&self, run: u32, thread: usize) {
        // The guard counts the tasks as done, and a panic as a panic, however this ends.
        let mut claimed = Claimed {
            shared: self,
            tasks: 0,
        };
        while let Some(index) = self.claim(run, thread) {
            claimed.tasks += 1;
            // SAFETY: a task of the run is claimed and not counted as done, so `Shared::run` has
            // not returned: the reference that it stored before anything could be claimed is
            // there, and so is the closure.
            unsafe { (*self.task.load(Ordering::Relaxed))(index, thread) };
        }
    }

    /// Claims a task, of the thread's own range while there is one.
    fn claim(&self, run: u32, thread: usize) -> Option<usize> {
        let (before, own) = self.ranges.split_at(thread);
        let (own, after) = own.split_first()?;
        let mut others = after.iter().chain(before);
        let own = own.0.claim(run, true);
        own.or_else(|| others.find_map(|range| range.0.claim(run, false)))
    }

    fn work(&self, thread: usize) {
        let mut seen = 0;
        while let Some(run) = self.next(seen) {
            seen = run;
            self.work_on(run, thread);
        }
    }

    /// Waits for a run other than `seen`; none when the pool is going away.
    fn next(&self, seen: u32) -> Option<u32> {
        let look = || {
            let run = self.run.0.load(Ordering::SeqCst);
            (run != seen).then_some(run)
        };
        for _ in 0..LOOKS {
            if self.closing.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(run) = look() {
                return Some(run);
            }
            spin_loop();
        }
        let mut sleeping = lock(&self.sleeping);
        *sleeping += 1;
        let run = loop {
            if self.closing.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(run) = look() {
                break Some(run);
            }
            sleeping = self
                .wake
                .wait(sleeping)
                .unwrap_or_else(PoisonError::into_inner);
        };
        *sleeping -= 1;
        run
    }
}

/// Tasks that were claimed by a thread and are not counted as done.
struct Claimed<'a> {
    shared: &'a Shared,
    tasks: usize,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.panicked.store(true, Ordering::Relaxed);
        }
        if self.tasks > 0 {
            self.shared.done.0.fetch_add(self.tasks, Ordering::Release);
        }
    }
}

/// Ends a run: nothing is claimed any more, and what was claimed is done.
struct Finish<'a> {
    shared: &'a Shared,
    run: u32,
    tasks: usize,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        while self.shared.claim(self.run, 0).is_some() {
            self.shared.done.0.fetch_add(1, Ordering::Relaxed);
        }
        let mut looks = 0;
        while self.shared.done.0.load(Ordering::Acquire) < self.tasks {
            looks += 1;
            match looks < LOOKS {
                true => spin_loop(),
                false => thread::yield_now(),
            }
        }
    }
}
