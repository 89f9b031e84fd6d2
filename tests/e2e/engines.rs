//! TensorRT's own parser and builder on every model of every bundle, without a GPU.

use std::path::Path;

use emoc_backends::{onnx, tensorrt};
use emoc_frontend::emo2::{self, Geometry, VARIANTS, Variant};
use emoc_ir::{Dim, Verified};
use emoc_passes::{
    optimise,
    precision::{standard, to_f16},
};
use emoc_runtimes::{
    Children, OnnxModel,
    tensorrt_rtx::{Builder, Capability, ShapeRange},
};

static CHILDREN: Children = Children::new();

/// TensorRT-RTX if `scripts/fetch-tensorrt-rtx` has been run.
fn builder() -> Option<Builder> {
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tensorrt-rtx");
    let path = std::env::var_os("PATH");
    let found = Builder::find(Some(&wheels), path.as_deref(), &CHILDREN);
    found
        .inspect_err(|missing| println!("skipped: engines: {}; {}", missing.reason, missing.help))
        .ok()
}

/// The network in float32 and float16.
fn models(variant: &'static Variant, batch: Dim) -> [(&'static str, Verified); 2] {
    let geometry = Geometry {
        input_size: [224, 224],
        batch,
        window: 7,
    };
    let model = emo2::seeded(variant, geometry, 0).expect("a model");
    let faithful = model.graph.verify().expect("a graph");
    let wide = optimise(faithful, None, &mut |_, _, _| {}).expect("a pipeline");
    let narrow = to_f16(&wide, &standard(&wide)).expect("float16").graph;
    [("float32", wide), ("float16", narrow)]
}

#[test]
fn engines() {
    let Some(builder) = builder() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("engines");
    std::fs::create_dir_all(&folder).expect("a folder");
    for variant in VARIANTS {
        for batch in [Dim::Fixed(1), Dim::Batch(1)] {
            let shape = |images: usize| vec![images, 3, 224, 224];
            let range = ShapeRange {
                input: "input".into(),
                min: shape(1),
                opt: shape(4),
                max: shape(8),
            };
            let ranges = match batch {
                Dim::Fixed(_) => vec![],
                Dim::Batch(_) => vec![range],
            };
            for (precision, graph) in models(variant, batch) {
                let what = format!("{}, {precision}, batch {batch}", variant.name);
                let bytes = onnx::emit(&graph, &onnx::Options::default()).expect("a file");
                tensorrt::audit(&bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
                let model = OnnxModel::read(&bytes).expect("a model");
                let capabilities = &Capability::FLOAT32;
                let engine = builder.build(&model, &ranges, capabilities, &folder, &CHILDREN);
                let engine = engine.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(engine.warnings.is_empty(), "{what}: {:?}", engine.warnings);
                let seconds = (engine.parse_time + engine.build_time).as_secs_f64();
                let size = engine.bytes.len() as f64 / 1e6;
                println!(
                    "{what}: {} layers, {size:.1} MB, {seconds:.1} s",
                    engine.layers
                );
            }
        }
    }
}
