//! The trained network on pictures it never saw, from the PNG to the logits.

use emoc_frontend::Choice;
use emoc_tests::{cases::digits_cases, full, reference_dir};

use crate::goldens::check;

fn digits(choice: Choice) {
    let Some(folder) = reference_dir("digits") else {
        return;
    };
    for case in digits_cases(&folder, choice, full()) {
        check(case);
    }
}

#[test]
fn net() {
    digits(Choice::Net);
}

#[test]
fn ema() {
    digits(Choice::Ema);
}
