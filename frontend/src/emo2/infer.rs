//! Which network a state_dict belongs to, decided by its keys and shapes alone.

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Dim, Result, TensorType, Weight, ops::Attention};

use super::{
    build::{Geometry, WeightSource, build},
    config::{Architecture, LocalNorm, VARIANTS, Variant},
};

/// Shapes of a state_dict by key.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// What the user said about the network beyond its weights.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// The variant the weights must belong to.
    pub variant: Option<&'static Variant>,
    /// Channels of one q or k head in stages 3 and 4.
    pub dim_heads: Option<[usize; 2]>,
    /// Which windows attend.
    pub attention: Option<Attention>,
}

/// Deepest stage believed from key names alone; the deepest published one has 20 blocks.
const MAX_DEPTH: usize = 100;

/// Most findings listed one by one.
const MAX_DETAILS: usize = 24;

/// Finds the architecture that the state_dict belongs to, every key of which it has and which
/// has every key of it.
///
/// # Errors
/// The state_dict fits no architecture: all missing, unexpected and misshapen keys against the
/// nearest one. Or it fits one that is not published, and a hint is missing.
pub fn recognise(shapes: &Shapes, hints: &Hints) -> Result<Architecture> {
    let (classes, local_norm) = head_and_local_norm(shapes);
    let rows = VARIANTS
        .iter()
        .filter(|row| hints.variant.is_none_or(|wanted| wanted == *row));
    let rows = rows.map(|row| Architecture::of(row, classes, local_norm));
    let inferred = from_shapes(shapes, classes, local_norm);
    let inferred = inferred.filter(|_| hints.variant.is_none());
    // Published rows come first, so that they win a tie with the inferred architecture.
    let candidates: Vec<_> = rows
        .chain(inferred)
        .filter_map(|candidate| Some((faults(&expected(&candidate)?, shapes), candidate)))
        .collect();
    let nearest = candidates
        .into_iter()
        .min_by_key(|(faults, _)| faults.len());
    let Some((faults, architecture)) = nearest else {
        return Err(Diagnostic::internal("no architecture could be built"));
    };
    if !faults.is_empty() {
        return Err(misfit(shapes, hints, &architecture, &faults));
    }
    with_hints(architecture, hints)
}

fn head_and_local_norm(shapes: &Shapes) -> (Option<usize>, LocalNorm) {
    let head = shapes
        .get("head.weight")
        .and_then(|shape| shape.first().copied());
    let has_end = shapes
        .keys()
        .any(|key| key.starts_with("head.") || key.starts_with("norm."));
    let classes = has_end.then(|| head.unwrap_or(1000));
    let local = shapes
        .keys()
        .any(|key| key.contains(".conv_local.norm.norm."));
    let local_norm = if local {
        LocalNorm::LayerNorm
    } else {
        LocalNorm::BatchNorm
    };
    (classes, local_norm)
}

/// The architecture that the main shapes describe, whether or not all keys agree with it.
fn from_shapes(
    shapes: &Shapes,
    classes: Option<usize>,
    local_norm: LocalNorm,
) -> Option<Architecture> {
    let size = |key: String, axis: usize| shapes.get(&key)?.get(axis).copied();
    let mut architecture = Architecture {
        variant: None,
        stem: size("stage0.2.conv.weight".into(), 0)?,
        depths: [0; 4],
        dims: [0; 4],
        mids: [[0; 2]; 4],
        kernels: [0; 4],
        dim_heads: [0; 4],
        attention: Attention::Hybrid,
        local_norm,
        classes,
    };
    for stage in 0..4 {
        let prefix = format!("stage{}.", stage + 1);
        let blocks = shapes.keys().filter_map(|key| {
            let block = key.strip_prefix(&prefix)?.split('.').next()?;
            block.parse::<usize>().ok()
        });
        let depth = blocks.filter(|&block| block < MAX_DEPTH).max()? + 1;
        let mid = |block: usize| size(format!("{prefix}{block}.conv_local.conv.weight"), 0);
        architecture.depths[stage] = depth;
        architecture.dims[stage] = size(format!("{prefix}0.proj.conv.weight"), 0)?;
        architecture.mids[stage] = [mid(0)?, if depth > 1 { mid(1)? } else { mid(0)? }];
        architecture.kernels[stage] = size(format!("{prefix}0.conv_local.conv.weight"), 2)?;
        // One head until a hint says otherwise: shapes do not depend on the number of heads.
        architecture.dim_heads[stage] = architecture.dims[stage];
    }
    Some(architecture)
}

/// Every key the architecture's modules have, with its shape, in module order.
pub fn expected(architecture: &Architecture) -> Option<Vec<(String, Vec<usize>)>> {
    struct Recorder(Vec<(String, Vec<usize>)>);
    impl WeightSource for Recorder {
        fn weight(&mut self, key: &str, shape: &[usize]) -> Weight {
            self.unused(key, shape);
            Weight::declared(TensorType::f32(emoc_ir::Shape::fixed(shape)), None)
        }

        fn unused(&mut self, key: &str, shape: &[usize]) {
            self.0.push((key.to_string(), shape.to_vec()));
        }
    }
    let geometry = Geometry {
        input_size: [224, 224],
        batch: Dim::Fixed(1),
        window: 7,
    };
    let mut recorder = Recorder(Vec::new());
    build("expected", architecture, geometry, &mut recorder).ok()?;
    Some(recorder.0)
}

/// One line for every key that is missing, misshapen or unexpected.
fn faults(expected: &[(String, Vec<usize>)], shapes: &Shapes) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, shape) in expected {
        match shapes.get(key) {
            None => faults.push(format!("missing    {key}: expected {shape:?}")),
            Some(found) if found != shape => {
                faults.push(format!(
                    "misshapen  {key}: expected {shape:?}, found {found:?}"
                ));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<_> = expected.iter().map(|(key, _)| key).collect();
    let unexpected = shapes.iter().filter(|(key, _)| !known.contains(key));
    faults.extend(unexpected.map(|(key, shape)| format!("unexpected {key}: found {shape:?}")));
    faults
}

fn misfit(
    shapes: &Shapes,
    hints: &Hints,
    nearest: &Architecture,
    faults: &[String],
) -> Box<Diagnostic> {
    let count = |kind: &str| {
        faults
            .iter()
            .filter(|fault| fault.starts_with(kind))
            .count()
    };
    let (missing, misshapen, unexpected) =
        (count("missing"), count("misshapen"), count("unexpected"));
    if unexpected == shapes.len() {
        return Diagnostic::input("the file holds no EMOv2 weights: none of its keys is known")
            .help("`emoc inspect FILE --tensors` lists what is in it");
    }
    let name = nearest
        .variant
        .map_or("their own shapes".to_string(), |row| row.name.to_string());
    let mut report = Diagnostic::input(format!(
        "the weights do not fit {name}: {missing} keys missing, {misshapen} misshapen, \
         {unexpected} unexpected"
    ));
    for fault in faults.iter().take(MAX_DETAILS) {
        report = report.detail(fault);
    }
    if faults.len() > MAX_DETAILS {
        report = report.detail(format!("... and {} more", faults.len() - MAX_DETAILS));
    }
    match (hints.variant, nearest_variant(shapes)) {
        (Some(wanted), Some(row)) if row.name != wanted.name => report.help(format!(
            "the nearest known variant is {0}: try --variant {0}",
            row.name
        )),
        (_, Some(row)) => report.help(format!("the nearest known variant is {}", row.name)),
        (_, None) => report,
    }
}

fn nearest_variant(shapes: &Shapes) -> Option<&'static Variant> {
    let (classes, local_norm) = head_and_local_norm(shapes);
    VARIANTS.iter().min_by_key(|row| {
        let keys = expected(&Architecture::of(row, classes, local_norm));
        keys.map_or(usize::MAX, |keys| faults(&keys, shapes).len())
    })
}

/// What the weights do not say comes from the row or from the user, never from a guess.
fn with_hints(mut architecture: Architecture, hints: &Hints) -> Result<Architecture> {
    if architecture.variant.is_none() {
        let mut needed = Vec::new();
        if hints.dim_heads.is_none() {
            needed.push("--dim-head A,B (channels of one q or k head in stages 3 and 4)");
        }
        if hints.attention.is_none() {
            needed.push("--attention hybrid|remote|close (hybrid for EMOv2, remote for EMOv1)");
        }
        if !needed.is_empty() {
            let Architecture {
                depths,
                dims,
                kernels,
                ..
            } = &architecture;
            return Err(Diagnostic::usage(
                "the weights fit no published variant, and they do not say everything",
            )
            .detail(format!(
                "depths {depths:?}, channels {dims:?}, kernels {kernels:?}"
            ))
            .help(format!("add {}", needed.join(" and "))));
        }
    }
    if let Some([third, fourth]) = hints.dim_heads {
        for (stage, dim_head) in [(2, third), (3, fourth)] {
            let (dim, mid) = (architecture.dims[stage], architecture.mids[stage][1]);
            let divides = dim_head > 0 && dim.is_multiple_of(dim_head);
            if !divides || !mid.is_multiple_of(dim / dim_head) {
                return Err(Diagnostic::usage(format!(
                    "--dim-head {dim_head} does not divide the {dim} channels of stage {} into \
                     heads that also divide its {mid} expanded channels",
                    stage + 1
                )));
            }
            architecture.dim_heads[stage] = dim_head;
        }
    }
    architecture.attention = hints.attention.unwrap_or(architecture.attention);
    Ok(architecture)
}
