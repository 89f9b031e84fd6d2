//! Panics of a runtime become errors.
//!
//! tract asserts and indexes on what a model says (an unknown attribute value, a shape that
//! overflows, an allocation that fails), and so does `ort` in places. Neither is a defect of
//! emoc, and one runtime's panic must not hide what the others answer.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use emoc_ir::{Diagnostic, Result};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is an error that says `runtime` gave up.
///
/// Whatever `work` was building is dropped, so a broken invariant cannot be observed afterwards;
/// a session whose run panicked holds only the runtime's own state.
pub(crate) fn guard<T>(runtime: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    silence_guarded_panics();
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|panic| {
        Err(Diagnostic::input(format!(
            "{runtime} gave up on the model: {}",
            brief(panic_text(&*panic))
        )))
    })
}

/// A library prints nothing, but the default panic hook does. Panics elsewhere go on to the hook
/// that was there before.
fn silence_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            // A thread that is shutting down has no flag any more; its panic is not ours.
            if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                previous(info);
            }
        }));
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

/// A runtime's message in one readable line: some print whole tensors into their errors.
pub(crate) fn brief(text: &str) -> String {
    const MAX: usize = 300;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX) {
        line.truncate(end);
        line.push_str(" ...");
    }
    line
}
