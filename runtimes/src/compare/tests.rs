use super::*;

fn tensor(name: &str, shape: &[usize], data: &[f32]) -> NamedTensor {
    NamedTensor {
        name: name.into(),
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

/// Compares two `[1, n]` outputs.
fn logits(expected: &[f32], actual: &[f32]) -> Comparison {
    let shape = |data: &[f32]| [1, data.len()];
    compare(
        &tensor("logits", &shape(expected), expected),
        &tensor("logits", &shape(actual), actual),
        Tolerance::FLOAT32,
    )
}

#[track_caller]
fn check_reason(comparison: &Comparison, reason: &str) {
    match &comparison.verdict {
        Verdict::Disagrees(why) => assert!(why.contains(reason), "{why:?} lacks {reason:?}"),
        Verdict::Agrees => panic!("agrees, expected: {reason}"),
    }
}

#[test]
fn numbers_are_those_worked_out_by_hand() {
    let found = logits(&[1.0, 3.0, 5.0, 7.0], &[1.0, 3.0, 5.5, 7.0]);
    // Mean 4, squared deviations 9 + 1 + 1 + 9: the population variance is 5, the sample's 6.67.
    assert!((found.spread - 5_f64.sqrt()).abs() < 1e-12, "{found:?}");
    assert!(
        (found.tolerance - 1e-4 * 5_f64.sqrt()).abs() < 1e-16,
        "{found:?}"
    );
    assert_eq!(found.max_abs, 0.5);
    assert!(
        (found.max_rel - 0.5 / 5_f64.sqrt()).abs() < 1e-12,
        "{found:?}"
    );
    // 86.5 / sqrt(84 x 89.25)
    assert!(
        (found.cosine - 86.5 / 7497_f64.sqrt()).abs() < 1e-12,
        "{found:?}"
    );
    check_reason(&found, "most at [0, 2]");
}

#[test]
fn tolerance_has_a_floor_and_grows_with_the_spread() {
    // Quiet reference: held to 1e-4, not to 1e-4 x 0.01.
    assert!(logits(&[0.0, 0.02], &[0.00009, 0.02]).agrees());
    assert!(!logits(&[0.0, 0.02], &[0.00011, 0.02]).agrees());
    // Spread 100: 1e-2.
    assert!(logits(&[0.0, 200.0], &[0.0099, 200.0]).agrees());
    assert!(!logits(&[0.0, 200.0], &[0.0101, 200.0]).agrees());
}

#[test]
fn what_is_not_comparable_never_agrees() {
    let two = tensor("logits", &[1, 2], &[1.0, 2.0]);
    let cases = [
        (
            &two,
            tensor("logits", &[1, 2], &[1.0, f32::NAN]),
            "the output holds 1 values that are not finite, first at [0, 1]",
        ),
        (
            &two,
            tensor("logits", &[1, 2], &[f32::INFINITY, 2.0]),
            "not finite, first at [0, 0]",
        ),
        (
            &two,
            tensor("logits", &[2, 1], &[1.0, 2.0]),
            "has shape [2, 1] instead of [1, 2]",
        ),
        (
            &two,
            tensor("logits", &[1, 2], &[1.0]),
            "of shape [1, 2] holds 1 values",
        ),
        // The same fault on both sides is still one: NaN equals nothing, infinity proves nothing.
        (
            &tensor("logits", &[1], &[f32::NAN]),
            tensor("logits", &[1], &[f32::NAN]),
            "the reference holds",
        ),
        (
            &tensor("logits", &[1], &[f32::INFINITY]),
            tensor("logits", &[1], &[f32::INFINITY]),
            "the reference holds",
        ),
        (
            &tensor("logits", &[0], &[]),
            tensor("logits", &[0], &[]),
            "holds no values",
        ),
    ];
    for (expected, actual, reason) in cases {
        check_reason(&compare(expected, &actual, Tolerance::FLOAT32), reason);
    }
}

#[test]
fn outputs_are_matched_by_name_and_none_may_be_missing() {
    let (a, b) = (tensor("a", &[1], &[1.0]), tensor("b", &[1], &[2.0]));
    let check = |expected: &[NamedTensor], actual: &[NamedTensor], pass: bool| {
        let found = compare_all(expected, actual, Tolerance::FLOAT32);
        assert_eq!(all_agree(&found), pass, "{found:?}");
        found
    };
    check(&[a.clone(), b.clone()], &[b.clone(), a.clone()], true);
    check(std::slice::from_ref(&a), &[b.clone(), a.clone()], true);
    let found = check(&[a.clone(), b.clone()], std::slice::from_ref(&a), false);
    check_reason(&found[1], "is missing");
    check(&[], &[a], false);
}

#[test]
fn top5_counts_places_and_forgives_ties() {
    let check = |expected: &[f32], actual: &[f32], agree: usize, of: usize| {
        let found = logits(expected, actual).top5;
        assert_eq!(found, Some(TopK { agree, of }), "{expected:?} {actual:?}");
    };
    let reference = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
    check(&reference, &reference, 5, 5);
    check(&reference, &[5.0, 6.0, 4.0, 3.0, 2.0, 1.0], 3, 5);
    check(&reference, &[6.0, 5.0, 4.0, 3.0, 1.0, 2.0], 4, 5);
    check(&[2.0, 1.0], &[2.0, 1.0], 2, 2);
    // Swapped, but the reference has them closer than both outputs can be told apart.
    check(&[1.0, 1.00001], &[1.00001, 1.0], 2, 2);

    let maps = tensor("stage1", &[1, 2, 1, 1], &[1.0, 2.0]);
    assert_eq!(compare(&maps, &maps, Tolerance::FLOAT32).top5, None);
    let batch = tensor("logits", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 6.0, 5.0]);
    let found = compare(&batch, &batch, Tolerance::FLOAT32).top5;
    assert_eq!(found, Some(TopK { agree: 6, of: 6 }));
}

#[test]
fn constant_outputs_have_no_spread_and_zero_vectors_no_direction() {
    let same = logits(&[2.0, 2.0], &[2.0, 2.0]);
    assert_eq!((same.max_rel, same.spread, same.agrees()), (0.0, 0.0, true));
    let other = logits(&[2.0, 2.0], &[2.0, 3.0]);
    assert_eq!((other.max_rel, other.agrees()), (f64::INFINITY, false));
    assert_eq!(logits(&[0.0, 0.0], &[0.0, 0.0]).cosine, 1.0);
    assert_eq!(logits(&[0.0, 0.0], &[0.0, 1.0]).cosine, 0.0);
}

#[test]
fn the_first_block_that_differs_is_named() {
    let block = |name: &str, value: f32| tensor(name, &[2], &[0.0, value]);
    let expected = ["stage0.0", "stage0.1", "stage1.0"].map(|name| block(name, 1.0));
    let diverges_at = |actual: &[NamedTensor]| {
        let found = first_divergence(&expected, actual, Tolerance::FLOAT32);
        found.map(|found| (found.block, found.last_agreeing))
    };
    assert_eq!(diverges_at(&expected), None);

    let off = [
        block("stage1.0", 3.0),
        block("stage0.1", 2.0),
        block("stage0.0", 1.0),
    ];
    let second = Some(("stage0.1".into(), Some("stage0.0".into())));
    assert_eq!(diverges_at(&off), second);
    assert_eq!(diverges_at(&off[..2]), Some(("stage0.0".into(), None)));
}
