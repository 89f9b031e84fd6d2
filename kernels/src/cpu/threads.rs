//! The threads that share the work of one inference.

/// A pool of threads; the caller of [`run`](Self::run) is one of them.
#[derive(Debug)]
pub struct Threads(());

impl Threads {
    /// `count` threads, the caller's included; 0 counts as 1.
    pub fn new(count: usize) -> Self {
        let _ = count;
        Self(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        1
    }

    /// Runs `task(index, thread)` for every index below `tasks`.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        for index in 0..tasks {
            task(index, 0);
        }
    }
}
