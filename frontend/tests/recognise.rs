//! Which network a state_dict belongs to, and what is said when it fits none.

use std::collections::BTreeMap;

use emoc_frontend::{
    Origin, StateDict, Tensor,
    emo2::{self, Architecture, Geometry, Hints, LocalNorm, VARIANTS, variant},
};
use emoc_ir::{DType, Diagnostic, Dim, Kind, ops::Attention, seeded};

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The seeded weights of a variant, to be damaged.
fn weights(name: &str, classes: Option<usize>) -> Weights {
    let variant = variant(name).expect("a variant");
    let architecture = Architecture::of(variant, classes, LocalNorm::BatchNorm);
    let keys = emo2::expected(&architecture).expect("keys");
    let tensor = |(key, shape): (String, Vec<usize>)| {
        let values = seeded::values(&key, &shape, 0);
        (key, (shape, values))
    };
    keys.into_iter().map(tensor).collect()
}

fn state_dict(weights: Weights) -> StateDict {
    let tensor = |(key, (shape, values)): (String, (Vec<usize>, Vec<f32>))| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensor = Tensor::from_bytes(key.as_str(), DType::F32, &shape, bytes);
        (key, tensor.expect("a tensor"))
    };
    let tensors = weights.into_iter().map(tensor).collect();
    StateDict::from_tensors(tensors, Origin::default()).expect("a state_dict")
}

fn build(weights: Weights, hints: &Hints, allow_nonfinite: bool) -> emoc_ir::Result<emo2::Model> {
    let geometry = Geometry {
        input_size: [64, 64],
        batch: Dim::Fixed(1),
        window: 7,
    };
    emo2::from_state_dict(&state_dict(weights), hints, geometry, allow_nonfinite)
}

fn refused(weights: Weights, hints: &Hints) -> Box<Diagnostic> {
    build(weights, hints, false).expect_err("the weights are refused")
}

#[test]
fn every_variant_is_recognised_with_any_head() {
    for row in VARIANTS.iter().filter(|row| !row.name.contains("0M")) {
        for classes in [Some(1000), Some(3), None] {
            let found = build(weights(row.name, classes), &Hints::default(), false)
                .unwrap_or_else(|e| panic!("{} with {classes:?}: {e}", row.name));
            assert_eq!(found.architecture.variant, Some(row), "{}", row.name);
            assert_eq!(found.architecture.classes, classes, "{}", row.name);
            let names: Vec<_> = found
                .graph
                .outputs()
                .iter()
                .map(|o| o.name.as_str())
                .collect();
            match classes {
                Some(_) => assert_eq!(names, ["logits"]),
                None => assert_eq!(names, ["stage1", "stage2", "stage3", "stage4"]),
            }
        }
    }
}

#[test]
fn all_faults_are_reported_together() {
    let mut damaged = weights("1M", Some(1000));
    damaged.remove("stage1.0.norm.weight");
    damaged.remove("stage3.4.ls.gamma");
    damaged.insert("stage3.1.extra.weight".into(), (vec![2], vec![0.0; 2]));
    damaged.insert("head.bias".into(), (vec![7], vec![0.0; 7]));
    let report = refused(damaged, &Hints::default()).to_string();
    for expected in [
        "do not fit 1M: 2 keys missing, 1 misshapen, 1 unexpected",
        "missing    stage1.0.norm.weight: expected [16]",
        "missing    stage3.4.ls.gamma: expected [1, 80, 1, 1]",
        "misshapen  head.bias: expected [1000], found [7]",
        "unexpected stage3.1.extra.weight: found [2]",
        "nearest known variant is 1M",
    ] {
        assert!(
            report.contains(expected),
            "`{expected}` is not in:\n{report}"
        );
    }
}

#[test]
fn refusals() {
    let check = |what: &str, weights: Weights, hints: Hints, kind: Kind, expected: &str| {
        let report = refused(weights, &hints);
        assert_eq!(report.kind, kind, "{what}");
        let text = report.to_string();
        assert!(
            text.contains(expected),
            "{what}: `{expected}` is not in:\n{text}"
        );
    };
    let wanting = |name: &str| Hints {
        variant: variant(name),
        ..Hints::default()
    };
    check(
        "another variant is asked for",
        weights("1M", Some(1000)),
        wanting("2M"),
        Kind::Input,
        "try --variant 1M",
    );
    let foreign = BTreeMap::from([("conv1.weight".to_string(), (vec![1], vec![0.0]))]);
    check(
        "no EMOv2 key at all",
        foreign,
        Hints::default(),
        Kind::Input,
        "none of its keys is known",
    );
    check(
        "no key",
        Weights::new(),
        Hints::default(),
        Kind::Input,
        "no EMOv2 weights",
    );
    let mut nan = weights("1M", Some(1000));
    nan.get_mut("stage3.2.proj.conv.weight").expect("a key").1[5] = f32::NAN;
    check(
        "NaN",
        nan,
        Hints::default(),
        Kind::Input,
        "stage3.2.proj.conv.weight: NaN or infinity at index 5, 1 of 19200 values",
    );
    let mut negative = weights("1M", Some(1000));
    negative
        .get_mut("stage0.0.norm.running_var")
        .expect("a key")
        .1[3] = -0.5;
    check(
        "a negative variance",
        negative,
        Hints::default(),
        Kind::Input,
        "stage0.0.norm.running_var: a negative variance at index 3",
    );
}

/// 1M with a narrower last stage fits no row: everything but heads and attention is inferred.
fn custom() -> Weights {
    let mut architecture = Architecture::of(
        variant("1M").expect("a variant"),
        Some(10),
        LocalNorm::BatchNorm,
    );
    architecture.variant = None;
    architecture.dims[3] = 160;
    architecture.mids[3] = [560, 480];
    let keys = emo2::expected(&architecture).expect("keys");
    let tensor = |(key, shape): (String, Vec<usize>)| {
        let values = seeded::values(&key, &shape, 0);
        (key, (shape, values))
    };
    keys.into_iter().map(tensor).collect()
}

#[test]
fn an_unpublished_network_needs_hints() {
    let check = |dim_heads, attention, expected: Result<(), &str>| {
        let hints = Hints {
            variant: None,
            dim_heads,
            attention,
        };
        match (build(custom(), &hints, false), expected) {
            (Ok(model), Ok(())) => {
                assert_eq!(model.architecture.dim_heads[2..], dim_heads.expect("hints"));
                assert_eq!(model.graph.name, "emo_custom_64");
            }
            (Err(report), Err(expected)) => {
                assert_eq!(report.kind, Kind::Usage);
                let text = report.to_string();
                assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
            }
            (found, expected) => panic!("expected {expected:?}, found {:?}", found.err()),
        }
    };
    check(Some([20, 20]), Some(Attention::Hybrid), Ok(()));
    check(None, None, Err("--dim-head A,B"));
    check(None, None, Err("--attention hybrid|remote|close"));
    check(Some([20, 20]), None, Err("add --attention"));
    check(
        Some([20, 0]),
        Some(Attention::Remote),
        Err("--dim-head 0 does not divide"),
    );
    check(
        Some([20, 33]),
        Some(Attention::Remote),
        Err("--dim-head 33 does not divide the 160"),
    );
}

#[test]
fn geometry_is_checked() {
    let check = |input_size, batch, window, expected: &str| {
        let geometry = Geometry {
            input_size,
            batch,
            window,
        };
        let report = emo2::seeded(variant("1M").expect("a variant"), geometry, 0);
        let report = report.expect_err("the geometry is refused");
        assert_eq!(report.kind, Kind::Usage);
        assert!(report.message.contains(expected), "{report}");
    };
    let one = Dim::Fixed(1);
    check([0, 224], one, 7, "an input of 0x224 pixels");
    check([224, 9000], one, 7, "an input of 224x9000 pixels");
    check([224, 224], Dim::Fixed(0), 7, "a batch of 0");
    check([224, 224], Dim::Fixed(5000), 7, "a batch of 5000");
    check([224, 224], one, 100_000, "a window of 100000");
}

#[test]
fn unusable_numbers_can_be_allowed() {
    let mut weights = weights("1M", Some(10));
    weights.get_mut("head.bias").expect("a key").1[0] = f32::INFINITY;
    weights
        .get_mut("stage0.1.norm.running_var")
        .expect("a key")
        .1[2] = 0.0;
    let model = build(weights, &Hints::default(), true).expect("a model");
    assert_eq!(
        model.warnings,
        [
            "stage0.1.norm.running_var: 1 channels have no variance and are scaled by 1000",
            "head.bias: NaN or infinity at index 0, 1 of 10 values",
        ]
    );
}
