//! Tests of `cpu/threads.rs`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use emoc_kernels::cpu::Threads;

/// Every task runs once, and no two at once on threads of one number.
fn check(threads: usize, tasks: usize) {
    let pool = Threads::new(threads);
    let times: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
    let busy: Vec<_> = (0..pool.count()).map(|_| Mutex::new(())).collect();
    for run in 1..=50 {
        pool.run(tasks, &|index, thread| {
            let _alone = busy[thread].try_lock().expect("a thread of its own");
            times[index].fetch_add(1, Ordering::Relaxed);
        });
        let times: Vec<_> = times.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        assert_eq!(times, vec![run; tasks], "{threads} threads, run {run}");
    }
}

#[test]
fn every_task_runs_once() {
    for threads in [0, 1, 2, 3, 8] {
        for tasks in [0, 1, 2, 7, 1000] {
            check(threads, tasks);
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "no threads")]
fn sleeping_threads_wake() {
    let pool = Threads::new(2);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let seen = Mutex::new([false; 2]);
        // Each task waits for the other, so both threads must come.
        pool.run(2, &|_, thread| {
            seen.lock().expect("a lock")[thread] = true;
            while *seen.lock().expect("a lock") != [true; 2] {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "no threads")]
fn callers_at_the_same_time_get_their_own_results() {
    let pool = Threads::new(3);
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..200 {
                    let sum = AtomicUsize::new(0);
                    pool.run(10, &|index, _| {
                        sum.fetch_add(caller * 100 + index, Ordering::Relaxed);
                    });
                    assert_eq!(sum.into_inner(), caller * 1000 + 45);
                }
            });
        }
    });
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "panics abort")]
fn a_panic_reaches_the_caller_and_the_pool_lives() {
    let pool = Threads::new(2);
    for bad in [0, 5, 99] {
        let run = || pool.run(100, &|index, _| assert_ne!(index, bad, "on purpose"));
        let result = catch_unwind(AssertUnwindSafe(run));
        assert!(result.is_err(), "task {bad}");
    }
    let sum = AtomicUsize::new(0);
    pool.run(10, &|index, _| {
        sum.fetch_add(index, Ordering::Relaxed);
    });
    assert_eq!(sum.into_inner(), 45);
}
