//! What every kernel runs on: instruction set, threads, weights.

use core::marker::PhantomData;

use super::{Isa, Threads};

/// Where and with what a network runs.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// The threads that share the work.
    pub threads: &'a Threads,
    /// All packed weights; layers hold offsets into them.
    pub weights: &'a [f32],
}

impl<'a> Engine<'a> {
    /// `len` weights from `offset`.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn weights(&self, offset: usize, len: usize) -> &'a [f32] {
        &self.weights[offset..offset + len]
    }

    /// Runs `task(0)` to `task(count - 1)`, in any order and on all threads, each with a part of
    /// `scratch` that no other uses at the same time: `scratch.len() / threads` values, of any
    /// content.
    pub(super) fn run(
        &self,
        count: usize,
        scratch: &mut [f32],
        task: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let share = scratch.len() / self.threads.count();
        let scratch = Shared::new(scratch);
        self.threads.run(count, &|index, thread| {
            // SAFETY: a thread runs one task at a time, and no two threads have one number.
            task(index, unsafe { scratch.part(thread * share, share) });
        });
    }
}

/// A slice whose parts are written by several tasks at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a mutable slice cut in parts; whoever takes a part vouches that no other task
// has it.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            owner: PhantomData,
        }
    }

    /// The `len` values from `from`.
    ///
    /// # Panics
    /// When they are not inside the slice.
    ///
    /// # Safety
    /// Nobody else uses any of them while the part lives.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, from: usize, len: usize) -> &'a mut [f32] {
        assert!(
            from <= self.len && len <= self.len - from,
            "a part outside the slice"
        );
        // SAFETY: inside the slice by the assertion, and not aliased by the caller's word.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// Where the slice starts, for tasks whose parts are not contiguous.
    pub(super) fn as_mut_ptr(&self) -> *mut f32 {
        self.start
    }
}
