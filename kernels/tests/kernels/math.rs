//! Tests of `cpu/math.rs` over all of float32.

use emoc_kernels::cpu::{Act, Isa, LANES, exponentials};

/// Distance from `x`'s magnitude to the next float32.
fn ulp(x: f64) -> f64 {
    let x = x
        .abs()
        .clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)) as f32;
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

/// Values of every sign, scale and rest, and all around those where something changes.
fn values() -> Vec<f32> {
    // An odd step visits other bits at every scale.
    let mut values: Vec<_> = (0..=u32::MAX).step_by(9973).map(f32::from_bits).collect();
    let mut edges = vec![
        0.0,
        f32::MIN_POSITIVE,
        1.0,
        5.5,
        16.0,
        87.0,
        88.0,
        89.0,
        f32::MAX,
    ];
    // Where the remainder of the exponential is largest, and changes its sign.
    edges.extend((1..258).map(|n| n as f32 * 0.5 * std::f32::consts::LN_2));
    for edge in edges {
        let bits = edge.to_bits();
        let around = bits.saturating_sub(100)..bits.saturating_add(100);
        values.extend(around.flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)]));
    }
    values.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN]);
    values.resize(values.len().next_multiple_of(LANES), 0.0);
    values
}

/// Compares `function` with `exact` within `bound(x, exact(x))`.
fn check(
    name: &str,
    function: impl Fn(Isa, &mut [f32]),
    exact: impl Fn(f64) -> f64,
    bound: impl Fn(f64, f64) -> f64,
) {
    let values = values();
    for &isa in Isa::available() {
        let mut results = values.clone();
        function(isa, &mut results);
        for (&x, &actual) in values.iter().zip(&results) {
            let expected = exact(f64::from(x));
            let error = (f64::from(actual) - expected).abs();
            let good = if expected.is_nan() {
                actual.is_nan()
            } else {
                f64::from(actual) == expected || error <= bound(f64::from(x), expected)
            };
            assert!(
                good,
                "{name}({x:e}) on {}: {actual:e}, expected {expected:e}, {:.2} units in the last \
                 place away",
                isa.name(),
                error / ulp(expected)
            );
        }
    }
}

#[test]
fn exponential() {
    let function = |isa: Isa, values: &mut [f32]| {
        for chunk in values.as_chunks_mut().0 {
            *chunk = exponentials(isa, *chunk);
        }
    };
    // Too small or too large for the documented range: zero or infinity.
    let exact = |x: f64| match x {
        ..-87.68 => 0.0,
        88.376.. => f64::INFINITY,
        _ => x.exp(),
    };
    check("exp", function, exact, |x, y| match x {
        ..-87.66 => 1e-38,
        -20.0..20.0 => 3.0 * ulp(y),
        _ => 6.0 * ulp(y),
    });
}

#[test]
fn silu() {
    // The limit of x / (1 + e^-x), which is not a number at -infinity in IEEE arithmetic.
    let exact = |x: f64| {
        if x == f64::NEG_INFINITY {
            0.0
        } else {
            x / (1.0 + (-x).exp())
        }
    };
    let function = |isa, values: &mut [f32]| Act::Silu.map(isa, values);
    check("silu", function, exact, |x, y| match x {
        ..-87.0 => 1.5e-36,
        0.0.. => 3.0 * ulp(y),
        _ => 7.0 * ulp(y),
    });
}

#[test]
fn gelu() {
    let exact = |x: f64| match x == f64::NEG_INFINITY {
        true => 0.0,
        false => x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
    };
    let function = |isa, values: &mut [f32]| Act::Gelu.map(isa, values);
    check("gelu", function, exact, |x, _| match x.abs() {
        16.0.. => 1e-30,
        a => (4.6e-7 * a)
            .min(1.8e-7 * a.max(1.0))
            .max(f64::from(f32::from_bits(1))),
    });
}

#[test]
fn every_length() {
    for act in [Act::None, Act::Silu, Act::Gelu] {
        for &isa in Isa::available() {
            for len in [0, 1, 15, 16, 17, 31, 32, 33, 50, 80] {
                let input: Vec<_> = (0..len).map(|i| i as f32 / 8.0 - 4.0).collect();
                let mut together = input.clone();
                act.map(isa, &mut together);
                let mut alone = input;
                alone
                    .iter_mut()
                    .for_each(|x| act.map(isa, std::slice::from_mut(x)));
                assert_eq!(together, alone, "{act:?} of {len} values on {}", isa.name());
            }
        }
    }
}
