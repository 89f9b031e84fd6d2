//! The threads that share the work of one inference.
//!
//! Work is claimed task by task, by the caller too, so a thread that the system does not run
//! delays nobody but the task it holds. Waiting threads look for work for some microseconds,
//! then sleep: there is no barrier at which they spin.

#[cfg(feature = "std")]
mod pool;

/// A pool of threads; the caller of [`run`](Self::run) is one of them.
#[derive(Debug)]
pub struct Threads {
    #[cfg(feature = "std")]
    pool: Option<pool::Pool>,
}

#[cfg(feature = "std")]
impl Threads {
    /// `count` threads, the caller's included; 0 counts as 1. Fewer where the system refuses.
    pub fn new(count: usize) -> Self {
        let pool = (count > 1).then(|| pool::Pool::new(count - 1));
        Self { pool }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| 1 + pool.workers())
    }

    /// Runs `task(index, thread)` for every index below `tasks`, `thread` being below
    /// [`count`](Self::count) and never the same for two tasks at once. While another thread uses
    /// the pool, the caller does everything alone, with a `thread` of 0.
    ///
    /// # Panics
    /// When a task does.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        match &self.pool {
            Some(pool) if tasks > 1 => pool.run(tasks, task),
            _ => (0..tasks).for_each(|index| task(index, 0)),
        }
    }
}

#[cfg(not(feature = "std"))]
impl Threads {
    /// One thread, whatever the count: there are no others without `std`.
    pub fn new(_count: usize) -> Self {
        Self {}
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1
    }

    /// Runs `task(index, 0)` for every index below `tasks`.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        (0..tasks).for_each(|index| task(index, 0));
    }
}
