//! The row of TensorRT-RTX: its parser reads a model of a bundle, and its builder makes an engine
//! that cannot run here.

use std::path::PathBuf;

use emoc_backends::tensorrt::{Plan, plan};
use emoc_ir::Result;
use emoc_runtimes::{
    Missing, OnnxModel,
    tensorrt_rtx::{Builder, Capability, Engine, NAME, ShapeRange},
};
use serde::Serialize;

use super::{Row, Verdict, missing_runtime};
use crate::{
    args::Precision,
    output::{CHILDREN, TemporaryFolder},
    ui::Ui,
};

/// An engine that was built for the proof.
#[derive(Debug, Clone, Serialize)]
pub struct EngineRecord {
    pub bytes: usize,
    /// The GPUs that it serves.
    pub capabilities: Vec<Capability>,
    /// TensorRT's layers.
    pub layers: usize,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl EngineRecord {
    fn of(engine: &Engine) -> Self {
        Self {
            bytes: engine.bytes.len(),
            capabilities: engine.capabilities.clone(),
            layers: engine.layers,
            seconds: (engine.parse_time + engine.build_time).as_secs_f64(),
            warnings: engine.warnings.clone(),
        }
    }
}

/// Looks for TensorRT-RTX.
///
/// # Errors
/// It is demanded and not there.
pub fn tensorrt_rtx(demanded: bool) -> Result<Result<Builder, Missing>> {
    let path = std::env::var_os("PATH");
    let wheels = PathBuf::from(".tensorrt-rtx");
    match Builder::find(Some(&wheels), path.as_deref(), &CHILDREN) {
        Err(missing) if demanded => Err(missing_runtime(&missing)),
        found => Ok(found),
    }
}

/// An engine for each generation of GPUs that the model can be built for, and why it cannot be
/// for the others.
///
/// # Errors
/// The model is refused for all of them, or the file system refuses.
pub fn engines(
    builder: &Builder,
    precision: Precision,
    onnx: &[u8],
    plan: &Plan,
    ui: &Ui,
) -> Result<Vec<Engine>> {
    let folder = TemporaryFolder::create()?;
    let ranges: Vec<_> = plan.profiles.iter().map(range).collect();
    let model = OnnxModel::read(onnx)?;
    let (mut engines, mut refused) = (Vec::new(), None);
    for capability in Capability::ALL {
        let name = precision.name();
        ui.step(format!("building an engine for {capability}, {name}"));
        let built = builder.build(&model, &ranges, &[capability], folder.path(), &CHILDREN);
        match built {
            Ok(engine) => engines.push(engine),
            Err(error) => {
                let why = error.details.first().unwrap_or(&error.message);
                ui.warn(format_args!("no engine for {capability}, {name}: {why}"));
                refused = Some(error);
            }
        }
    }
    match refused {
        Some(error) if engines.is_empty() => Err(error),
        _ => Ok(engines),
    }
}

/// Builds an engine from a model of a bundle, for every generation of GPUs that computes in
/// float32. What is wrong with the model is in its row.
///
/// # Errors
/// The file system refuses.
pub fn engine_row(
    builder: &Result<Builder, Missing>,
    precision: Precision,
    onnx: &[u8],
    plan: &Plan,
    ui: &Ui,
) -> Result<Row> {
    let builder = match builder {
        Ok(builder) => builder,
        Err(missing) => return Ok(Row::missing(missing).of(precision)),
    };
    ui.step(format!(
        "building an engine in {NAME}, {}",
        precision.name()
    ));
    let version = Some(builder.version().to_owned());
    let folder = TemporaryFolder::create()?;
    let ranges: Vec<_> = plan.profiles.iter().map(range).collect();
    let capabilities = &Capability::FLOAT32;
    let built = OnnxModel::read(onnx)
        .and_then(|model| builder.build(&model, &ranges, capabilities, folder.path(), &CHILDREN));
    let row = match built {
        Err(error) => Row::failed(NAME, version, error),
        Ok(engine) => {
            let mut row = Row::new(NAME, version, Verdict::Builds);
            row.engine = Some(EngineRecord::of(&engine));
            row
        }
    };
    Ok(row.of(precision))
}

fn range(profile: &plan::Profile) -> ShapeRange {
    let sizes = |shape: &[u64]| shape.iter().map(|&size| size as usize).collect();
    ShapeRange {
        input: profile.input.clone(),
        min: sizes(&profile.min),
        opt: sizes(&profile.opt),
        max: sizes(&profile.max),
    }
}
