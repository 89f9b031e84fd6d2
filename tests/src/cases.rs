//! Golden cases: a network, an input, and what the original PyTorch code computed.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use emoc_frontend::{
    Checkpoint, Choice, StateDict,
    emo2::{self, Geometry, Hints, Model, variant},
};
use emoc_ir::{Dim, ops::Attention, reference::Tensor, seeded};
use emoc_preprocess::{Picture, Transform};
use serde::Deserialize;

use crate::{Goldens, fixtures, reference_dir};

/// One network with one input and its golden outputs.
pub struct Case {
    /// Says which fixture and input.
    pub name: String,
    /// The network for a batch of this many images.
    pub build: Box<dyn Fn(usize) -> Model>,
    /// Its input.
    pub input: Tensor,
    /// Golden values by output name.
    pub outputs: Vec<(String, Tensor)>,
    /// Golden values at the ends of blocks, by block name.
    pub blocks: Vec<(String, Tensor)>,
}

impl Case {
    /// The network for the batch of the input.
    pub fn model(&self) -> Model {
        (self.build)(self.input.shape[0])
    }
}

#[derive(Deserialize)]
struct SeededRow {
    model: String,
    input: [usize; 4],
    window: usize,
}

/// `--variant` name of a model function: `EMO2_5M_k5_hybrid_256` is `5M`, `EMO1_5M` is `emo1-5M`.
fn variant_name(function: &str) -> String {
    let mut parts = function.split('_');
    match (parts.next(), parts.next()) {
        (Some("EMO1"), Some(size)) => format!("emo1-{size}"),
        (_, Some(size)) => size.to_string(),
        _ => panic!("`{function}` is no model function"),
    }
}

fn geometry(input: &[usize], window: usize) -> Geometry {
    Geometry {
        input_size: [input[2], input[3]],
        batch: Dim::Fixed(input[0]),
        window,
    }
}

/// Names of the cases with seeded weights.
pub fn seeded_names() -> Vec<String> {
    seeded_index().into_keys().collect()
}

fn seeded_index() -> BTreeMap<String, SeededRow> {
    let index = std::fs::read_to_string(fixtures().join("seeded/index.json")).expect("an index");
    serde_json::from_str(&index).expect("a well-formed index")
}

/// The case with seeded weights of this name.
pub fn seeded_case(name: &str) -> Case {
    let row = &seeded_index()[name];
    let variant = variant(&variant_name(&row.model)).expect("a known variant");
    let (input, window) = (row.input, row.window);
    let build = move |batch| {
        let geometry = geometry(&with_batch(&input, batch), window);
        emo2::seeded(variant, geometry, 0).expect("a model")
    };
    let file = fixtures().join(format!("seeded/{name}.logits.f32"));
    let bytes = std::fs::read(file).expect("golden logits");
    let floats = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")));
    let logits = Tensor::from_f32(&[row.input[0], 1000], &floats.collect::<Vec<_>>());
    Case {
        name: name.to_string(),
        build: Box::new(build),
        input: Tensor::from_f32(&row.input, &seeded::values("input", &row.input, 0)),
        outputs: vec![("logits".into(), logits)],
        blocks: Vec::new(),
    }
}

/// `shape` with another outermost dimension.
fn with_batch(shape: &[usize], batch: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape[0] = batch;
    shape
}

/// Builds a checkpoint's network for this input, window and any batch.
fn checkpoint_builder(
    path: PathBuf,
    choice: Choice,
    input: &[usize],
    window: usize,
) -> Box<dyn Fn(usize) -> Model> {
    let input = input.to_vec();
    Box::new(move |batch| checkpoint_model(&path, choice, &with_batch(&input, batch), window))
}

/// A checkpoint's network for this input and window, with the hints its file needs.
pub fn checkpoint_model(path: &Path, choice: Choice, input: &[usize], window: usize) -> Model {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let hints = match name.starts_with("tiny") {
        // The tiny networks are not published variants.
        true => Hints {
            variant: None,
            dim_heads: Some([8, 8]),
            attention: Some(match name.contains("emo1") {
                true => Attention::Remote,
                false => Attention::Hybrid,
            }),
        },
        false => Hints::default(),
    };
    let open = || {
        let state_dict = StateDict::choose(&Checkpoint::open(path)?, choice)?;
        emo2::from_state_dict(&state_dict, &hints, geometry(input, window), false)
    };
    open().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A fixture of the tiny networks: file, whose weights, input, window, infix of the golden key.
pub type TinyRow = (&'static str, Choice, &'static str, usize, &'static str);

/// Every layout of the tiny networks and every kind of input that the fixtures have.
const TINY: &[TinyRow] = &[
    ("tiny.pth", Choice::Net, "in64", 7, ""),
    ("tiny.pth", Choice::Net, "in96x80", 7, ""),
    ("tiny.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny.pth", Choice::Net, "in33x47", 7, ""),
    ("tiny.pth", Choice::Net, "in160x272", 2, "window2."),
    ("tiny.pth", Choice::Net, "in160x272", 4, "window4."),
    ("tiny.pth", Choice::Net, "in160x272", 8, "window8."),
    ("tiny.pth", Choice::Net, "in160x272", 10, "window10."),
    ("tiny.pth", Choice::Net, "in160x272", 0, "window0."),
    ("tiny.pth", Choice::Net, "in96x80", 4, "window4."),
    ("tiny_legacy.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny.safetensors", Choice::Net, "in160x272", 7, ""),
    ("tiny_official_net.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny_trainer_ckpt.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny_trainer_ckpt.pth", Choice::Ema, "in64", 7, "net_E."),
    (
        "tiny_trainer_ckpt.pth",
        Choice::Ema,
        "in160x272",
        7,
        "net_E.",
    ),
    ("tiny_ddp.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny_strided.pth", Choice::Net, "in160x272", 7, ""),
    ("tiny_fp16.pth", Choice::Net, "in160x272", 7, "fp16."),
    ("tiny_bf16.pth", Choice::Net, "in160x272", 7, "bf16."),
    ("tiny_emo1.pth", Choice::Net, "in160x272", 7, "emo1."),
    ("tiny_emo1.pth", Choice::Net, "in96x80", 7, "emo1."),
];

/// Inputs that are too large to be committed.
const TINY_REFERENCE: &[TinyRow] = &[
    ("tiny.pth", Choice::Net, "in224", 7, ""),
    ("tiny.pth", Choice::Net, "in199x233", 7, ""),
];

/// Every row of the tiny networks that there are goldens for.
pub fn tiny_rows() -> Vec<TinyRow> {
    let further = match reference_dir("two more inputs and more blocks of the tiny networks") {
        Some(_) => TINY_REFERENCE,
        None => &[],
    };
    [TINY, further].concat()
}

/// All goldens of the tiny networks, or those that are committed.
fn tiny_goldens() -> Goldens {
    let folder = std::env::var_os("EMOC_REFERENCE_DIR").map(PathBuf::from);
    Goldens::open(
        &folder
            .unwrap_or_else(fixtures)
            .join("tiny_golden.safetensors"),
    )
}

/// The case of a row of [`tiny_rows`].
pub fn tiny_case(&(file, choice, input, window, infix): &TinyRow) -> Case {
    let goldens = tiny_goldens();
    let x = goldens.get(&format!("{input}.input"));
    let build = checkpoint_builder(fixtures().join(file), choice, &x.shape, window);
    let blocks = build(x.shape[0]).graph.block_outputs().into_iter();
    let golden = |(name, _): (String, _)| {
        let tensor = goldens.find(&format!("{input}.{infix}{name}"))?;
        Some((name, tensor))
    };
    Case {
        name: format!("{file} {input} {infix}window {window}"),
        blocks: blocks.filter_map(golden).collect(),
        outputs: vec![(
            "logits".into(),
            goldens.get(&format!("{input}.{infix}logits")),
        )],
        build,
        input: x,
    }
}

/// The detection backbone, whose stages are those of the tiny classifier.
pub fn backbone_case() -> Case {
    let goldens = tiny_goldens();
    let input = goldens.get("in160x272.input");
    let file = fixtures().join("tiny_mmdet.pth");
    let build = checkpoint_builder(file, Choice::Net, &input.shape, 7);
    let stage = |n: usize| {
        (
            format!("stage{n}"),
            goldens.get(&format!("in160x272.stage{n}.1")),
        )
    };
    Case {
        name: "tiny_mmdet.pth in160x272".into(),
        outputs: (1..=4).map(stage).collect(),
        blocks: Vec::new(),
        build,
        input,
    }
}

/// The segmentation backbone: LayerNorm and GELU after the depthwise convolutions, window 10.
pub fn segmentation_case() -> Case {
    let inputs = tiny_goldens();
    let goldens = Goldens::open(&fixtures().join("tiny_mmseg_golden.safetensors"));
    let input = inputs.get("in160x272.input");
    let file = fixtures().join("tiny_mmseg.pth");
    let build = checkpoint_builder(file, Choice::Net, &input.shape, 10);
    let stage = |n: usize| {
        let names = [format!("in160x272.stage{n}"), format!("stage{n}")];
        let tensor = names.iter().find_map(|name| goldens.find(name));
        (format!("stage{n}"), tensor.expect("a golden stage"))
    };
    Case {
        name: "tiny_mmseg.pth in160x272".into(),
        outputs: (1..=4).map(stage).collect(),
        blocks: Vec::new(),
        build,
        input,
    }
}

/// Rows of the 1000-class checkpoints: file, golden prefix, input size, window.
pub const LARGE: &[(&str, &str, usize, usize)] = &[
    ("EMOv2_1M.pth", "1m", 224, 7),
    ("EMOv2_5M.pth", "5m", 224, 7),
    ("EMOv2_5M.pth", "5m", 256, 8),
    ("EMOv2_5M.pth", "5m", 300, 7),
    ("EMOv2_5M.pth", "5m", 300, 10),
    ("EMOv2_5M.pth", "5m", 512, 7),
    ("EMOv2_5M.pth", "5m", 512, 8),
];

/// The case of a row of [`LARGE`].
pub fn large_case(
    reference: &Path,
    &(file, prefix, size, window): &(&str, &str, usize, usize),
) -> Case {
    let goldens = Goldens::open(&reference.join("emov2_golden.safetensors"));
    let input = goldens.get(&format!("input{size}"));
    let logits = goldens.get(&format!("{prefix}.{size}.w{window}.logits"));
    Case {
        name: format!("{file} {size} window {window}"),
        build: checkpoint_builder(reference.join(file), Choice::Net, &input.shape, window),
        input,
        outputs: vec![("logits".into(), logits)],
        blocks: Vec::new(),
    }
}

#[derive(Deserialize)]
struct Digits {
    images: Vec<Digit>,
}

/// One picture of the digits and what PyTorch answered.
#[derive(Deserialize)]
struct Digit {
    file: String,
    logits_net: Vec<f32>,
    #[serde(rename = "logits_net_E")]
    logits_ema: Vec<f32>,
}

/// The trained network on its pictures, in batches of 20: every tenth picture, or all 200.
pub fn digits_cases(reference: &Path, choice: Choice, all: bool) -> Vec<Case> {
    const SIDE: usize = 64;
    const BATCH: usize = 20;
    let goldens = std::fs::read_to_string(reference.join("digits_golden.json")).expect("goldens");
    let digits: Digits = serde_json::from_str(&goldens).expect("well-formed goldens");
    let pictures = digit_pictures(&reference.join("digits_val.tar"));
    let step = if all { 1 } else { 10 };
    let digits: Vec<_> = digits.images.iter().step_by(step).collect();
    let transform = Transform::new(SIDE as u32, SIDE as u32).expect("a transform");
    let case = |(number, digits): (usize, &[&Digit])| {
        let shape = [digits.len(), 3, SIDE, SIDE];
        let mut input = Vec::new();
        let mut logits = Vec::new();
        for digit in digits {
            let picture = &pictures[&digit.file];
            let (width, height) = picture.dimensions();
            let picture = Picture::new(width, height, picture.as_raw()).expect("a picture");
            input.extend(transform.apply(&picture));
            logits.extend(match choice {
                Choice::Net => &digit.logits_net,
                Choice::Ema => &digit.logits_ema,
            });
        }
        Case {
            name: format!("digits.pth {choice:?} batch {number}"),
            build: checkpoint_builder(reference.join("digits.pth"), choice, &shape, 7),
            input: Tensor::from_f32(&shape, &input),
            outputs: vec![(
                "logits".into(),
                Tensor::from_f32(&[digits.len(), 10], &logits),
            )],
            blocks: Vec::new(),
        }
    };
    digits.chunks(BATCH).enumerate().map(case).collect()
}

/// The pictures of the archive by their path in it.
fn digit_pictures(archive: &Path) -> BTreeMap<String, image::RgbImage> {
    let mut archive = tar::Archive::new(std::fs::File::open(archive).expect("an archive"));
    let mut pictures = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        if path.ends_with(".png") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a whole picture");
            let picture = image::load_from_memory(&bytes).expect("a PNG");
            pictures.insert(path, picture.to_rgb8());
        }
    }
    pictures
}
