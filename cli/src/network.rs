//! From flags to a network: the one way to a [`Model`] for every command.

use std::path::Path;

use emoc_frontend::{
    Checkpoint, Choice, ContentDigest, Entry, Origin, StateDict, Tensor,
    emo2::{self, Geometry, Hints, Model, Numbers, Unusable, Variant},
};
use emoc_ir::{DType, Diagnostic, Dim, Result, Weight, seeded};
use serde::Serialize;

use crate::{
    args::{BatchArg, ModelArgs},
    ui::Ui,
};

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Weights {
    /// A checkpoint's network, or its moving average.
    Checkpoint {
        /// `net` or `ema`.
        choice: &'static str,
        /// The checkpoint.
        file: FileFacts,
        /// Where the state_dict is in it; empty for the root.
        root: String,
        /// Prefixes removed from every key.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        stripped_prefixes: Vec<&'static str>,
        /// Tensors.
        tensors: usize,
        /// SHA-256 of their content, whatever the container.
        sha256: String,
    },
    /// Those of an artifact, whose checkpoint is not at hand.
    Artifact {
        /// `net` or `ema`.
        choice: &'static str,
        /// SHA-256 of their content, as the artifact says.
        sha256: String,
    },
    /// They follow from their keys and a seed.
    Seeded {
        /// The seed.
        seed: u64,
        /// SHA-256 of their content, as a checkpoint with them would have.
        sha256: String,
    },
}

impl Weights {
    /// `net`, `ema` or `seeded`.
    pub fn choice(&self) -> &'static str {
        match self {
            Weights::Checkpoint { choice, .. } | Weights::Artifact { choice, .. } => choice,
            Weights::Seeded { .. } => "seeded",
        }
    }

    pub fn sha256(&self) -> &str {
        match self {
            Weights::Checkpoint { sha256, .. }
            | Weights::Artifact { sha256, .. }
            | Weights::Seeded { sha256, .. } => sha256,
        }
    }
}

/// The identity of an input file. Its name is not part of it: a copy compiles to the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileFacts {
    /// The container.
    pub format: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// A network with its provenance.
pub struct Network {
    pub model: Model,
    pub weights: Weights,
    /// Whether the window was chosen by the table and not by a flag.
    pub window_by_default: bool,
    /// What else the checkpoint holds.
    pub entries: Vec<Entry>,
    /// Weights that `compile` refuses, where the network was loaded only to look at it.
    pub unusable: Vec<Unusable>,
}

/// How much of a network is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Types and costs. The weights are looked at one by one and let go again.
    Structure,
    /// The same, and digests of the weights.
    Digests,
    /// The weights too.
    Everything,
}

/// Builds the network that the flags describe, from a checkpoint or from seeded weights, and says
/// what a person must know about it.
///
/// # Errors
/// Flags that contradict each other, and everything that is wrong with the checkpoint.
pub fn load(args: &ModelArgs, checkpoint: Option<&Path>, need: Need, ui: &Ui) -> Result<Network> {
    let network = match checkpoint {
        Some(path) => from_checkpoint(args, path, need, ui)?,
        None => from_seed(args, need, ui)?,
    };
    say_defaults(args, &network, ui);
    for warning in &network.model.warnings {
        ui.warn(warning);
    }
    if let [first, ..] = &network.unusable[..] {
        let summary = Unusable::summary(&network.unusable);
        ui.warn(format_args!(
            "{summary}, which `emoc compile` refuses; the first: {first}"
        ));
    }
    Ok(network)
}

fn from_checkpoint(args: &ModelArgs, path: &Path, need: Need, ui: &Ui) -> Result<Network> {
    if args.seed.is_some() {
        let message = "--seed makes weights, --checkpoint reads them";
        return Err(Diagnostic::usage(message).help("leave one of them out"));
    }
    ui.step("reading the checkpoint");
    let checkpoint = Checkpoint::open(path)?;
    let file = facts(&checkpoint);
    let choice = args.weights.map_or(Choice::Net, Choice::from);
    let state_dict = StateDict::choose(&checkpoint, choice)?;
    let sha256 = state_dict.sha256()?;
    expect(args, path, &file, &sha256)?;
    say_origin(state_dict.origin(), ui);
    if args.weights.is_none() && StateDict::choose(&checkpoint, Choice::Ema).is_ok() {
        ui.note("the file also has a moving average of the weights: `--weights ema`");
    }

    let hints = hints(args);
    let (geometry, window_by_default) = geometry(args);
    let at = |error: Box<Diagnostic>| error.file(path);
    let (model, unusable) = match need {
        Need::Everything => {
            let allow = args.allow_nonfinite;
            let model = emo2::from_state_dict(&state_dict, &hints, geometry, allow);
            (model.map_err(at)?, Vec::new())
        }
        Need::Structure | Need::Digests => look(&state_dict, &hints, geometry, need).map_err(at)?,
    };
    let origin = state_dict.origin();
    Ok(Network {
        model,
        unusable,
        weights: Weights::Checkpoint {
            choice: match choice {
                Choice::Net => "net",
                Choice::Ema => "ema",
            },
            file,
            root: origin.root.clone(),
            stripped_prefixes: origin.stripped.clone(),
            tensors: state_dict.len(),
            sha256,
        },
        window_by_default,
        entries: checkpoint.entries().to_vec(),
    })
}

/// The network without its weights, and those that cannot be used.
fn look(
    state_dict: &StateDict,
    hints: &Hints,
    geometry: Geometry,
    need: Need,
) -> Result<(Model, Vec<Unusable>)> {
    let architecture = emo2::architecture(state_dict, hints)?;
    let mut model = emo2::declared(architecture, geometry)?;
    let Numbers { unusable, warnings } = Numbers::of_state_dict(state_dict, &model.graph)?;
    model.warnings = warnings;
    if need == Need::Digests {
        digest(&mut model, |key, _| match state_dict.get(key) {
            Some(tensor) => tensor.to_f32(),
            None => Err(Diagnostic::internal("a weight is missing").key(key)),
        })?;
    }
    Ok((model, unusable))
}

/// Leaves of the weights the digests that a printed graph shows: they are read one by one and
/// let go again.
fn digest(model: &mut Model, read: impl Fn(&str, &[usize]) -> Result<Vec<f32>>) -> Result<()> {
    let weights = model.graph.weights.iter();
    let weights: Vec<_> = weights.map(|(k, w)| (k.to_owned(), w.dims())).collect();
    for (key, dims) in weights {
        let weight = Weight::owned(&dims, read(&key, &dims)?);
        let declared = Weight::declared(weight.ty().clone(), weight.digest()?);
        model.graph.weights.insert(key, declared);
    }
    Ok(())
}

/// The identity of a checkpoint file.
pub fn facts(checkpoint: &Checkpoint) -> FileFacts {
    FileFacts {
        format: checkpoint.format().to_string(),
        bytes: checkpoint.file_len(),
        sha256: checkpoint.sha256_file(),
    }
}

fn from_seed(args: &ModelArgs, need: Need, ui: &Ui) -> Result<Network> {
    let variant = seeded_variant(args)?;
    let seed = args.seed.unwrap_or(0);
    let (geometry, window_by_default) = geometry(args);
    let mut model = emo2::seeded(variant, geometry, seed)?;
    ui.step("making the weights");
    let sha256 = seeded_sha256(&model, seed, need)?;
    if need == Need::Digests {
        digest(&mut model, |key, dims| Ok(seeded::values(key, dims, seed)))?;
    }
    ui.note(format_args!(
        "no checkpoint is given: the weights are made from seed {seed}. They prove the compiler \
         and classify nothing"
    ));
    Ok(Network {
        model,
        weights: Weights::Seeded { seed, sha256 },
        window_by_default,
        entries: Vec::new(),
        unusable: Vec::new(),
    })
}

/// The variant to make weights for, once no flag speaks of a checkpoint.
fn seeded_variant(args: &ModelArgs) -> Result<&'static Variant> {
    let of_checkpoints = [
        ("--weights", args.weights.is_some()),
        ("--dim-head", args.dim_head.is_some()),
        ("--attention", args.attention.is_some()),
        ("--allow-nonfinite", args.allow_nonfinite),
        ("--expect-sha256", args.expect_sha256.is_some()),
    ];
    if let Some((flag, _)) = of_checkpoints.iter().find(|(_, given)| *given) {
        let message = format!("{flag} speaks of a checkpoint, and none is given");
        return Err(Diagnostic::usage(message).help("add --checkpoint FILE"));
    }
    args.variant.ok_or_else(|| {
        Diagnostic::usage("neither a checkpoint nor a variant is given")
            .help("--checkpoint FILE compiles your weights, --variant 5M seeded ones")
    })
}

/// The digest that a checkpoint with the same weights has: buffers that inference does not use
/// are part of it. Weights that are needed later are made once and stay in the graph; otherwise
/// there is only one at a time.
fn seeded_sha256(model: &Model, seed: u64, need: Need) -> Result<String> {
    let mut keys = emo2::expected(&model.architecture)
        .ok_or_else(|| Diagnostic::internal("a published variant cannot be built"))?;
    keys.sort();
    let weights = &model.graph.weights;
    let mut digest = ContentDigest::default();
    for (key, shape) in keys {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (dtype, bytes): (_, Vec<u8>) = match need {
            _ if !weights.contains(&key) => (DType::I64, vec![0; 8]),
            Need::Everything => (DType::F32, bytes(&weights.values(&key)?)),
            Need::Structure | Need::Digests => {
                (DType::F32, bytes(&seeded::values(&key, &shape, seed)))
            }
        };
        digest.add(&key, &Tensor::from_bytes(&key, dtype, &shape, bytes)?)?;
    }
    Ok(digest.finish())
}

/// What flags say about the network.
pub fn hints(args: &ModelArgs) -> Hints {
    Hints {
        variant: args.variant,
        dim_heads: args.dim_head,
        attention: args.attention.map(Into::into),
    }
}

/// Input size, batch and window by the flags, and whether the window is the table's choice.
pub fn geometry(args: &ModelArgs) -> (Geometry, bool) {
    let input_size = args.input_size.unwrap_or([224, 224]);
    let window = args.window.map(usize::from);
    let geometry = Geometry {
        input_size,
        batch: args.batch.map_or(Dim::Fixed(1), BatchArg::dim),
        window: window.unwrap_or_else(|| emo2::default_window(input_size)),
    };
    (geometry, window.is_none())
}

/// A file without a checksum can be damaged without a trace, so its digest can be demanded.
fn expect(args: &ModelArgs, path: &Path, file: &FileFacts, weights: &str) -> Result<()> {
    match &args.expect_sha256 {
        Some(expected) if *expected != file.sha256 && expected != weights => {
            Err(Diagnostic::input("the checkpoint is not the expected one")
                .file(path)
                .detail(format!("expected          {expected}"))
                .detail(format!("the file has       {}", file.sha256))
                .detail(format!("its weights have   {weights}")))
        }
        _ => Ok(()),
    }
}

fn say_origin(origin: &Origin, ui: &Ui) {
    if !origin.ignored.is_empty() {
        let parts = origin.ignored.iter();
        let parts: Vec<_> = parts
            .map(|(name, n)| format!("{name}.* ({n} tensors)"))
            .collect();
        ui.note(format_args!(
            "left out, not the backbone's: {}",
            parts.join(", ")
        ));
    }
    if origin.non_tensors > 0 {
        let count = origin.non_tensors;
        ui.note(format_args!(
            "left out, not tensors: {count} values of the state_dict"
        ));
    }
}

/// A wrong window or size still runs, so the choice is never silent.
fn say_defaults(args: &ModelArgs, network: &Network, ui: &Ui) {
    let Geometry {
        input_size: [height, width],
        window,
        ..
    } = network.model.geometry;
    if !network.window_by_default {
        return;
    }
    let detection = match network.model.architecture.classes {
        Some(_) => "",
        None => "; detection and segmentation models were trained with 10 (`--window 10`)",
    };
    let sized = args.input_size.is_some();
    let chosen = match sized || matches!(network.weights, Weights::Seeded { .. }) {
        true => format!("window {window}, the default at {height}x{width}"),
        false => format!("input size {height}x{width} and window {window}, the defaults"),
    };
    ui.note(format_args!("{chosen}: the weights do not say{detection}"));
}
