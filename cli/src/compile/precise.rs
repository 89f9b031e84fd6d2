//! A network in one precision: emitted as ONNX, and judged.

use emoc_backends::onnx;
use emoc_ir::{Graph, Result, Verified};
use emoc_runtimes::{Found, Tolerance};

use super::Prepared;
use crate::{
    agreement::{self, Reference, Row},
    args::{CompileArgs, Precision, PrecisionArgs},
    manifest::{self, OnnxOptions},
    pipeline,
    precision::{self, PrecisionRecord},
    ui::Ui,
};

/// Who judges a model.
pub struct Judges<'a> {
    pub faithful: &'a Graph,
    pub reference: &'a Reference,
    pub runtimes: &'a [Found],
}

/// A model and its proof.
pub struct Precise {
    pub precision: Precision,
    pub graph: Verified,
    pub emission: Emission,
    pub onnx: Vec<u8>,
    /// Empty if nobody judged it.
    pub rows: Vec<Row>,
}

impl Precise {
    /// Emits the network in a precision and has it judged. Where measured islands turn out to be
    /// too few for a runtime, more are measured.
    ///
    /// # Errors
    /// Options that cannot be met, or a graph that is too large to be measured.
    pub fn make(
        args: &CompileArgs,
        precision: &PrecisionArgs,
        prepared: &Prepared,
        optimised: &Verified,
        judges: Option<&Judges>,
        ui: &Ui,
    ) -> Result<Self> {
        let mut share = precision::SHARE;
        loop {
            let emitted = precision::apply(precision, optimised.clone(), share, ui)?;
            let emission = Emission::of(args, prepared, emitted.record)?;
            ui.step("emitting");
            let mut made = Self {
                precision: precision.precision(),
                onnx: emission.emit(&emitted.graph, false)?,
                graph: emitted.graph,
                emission,
                rows: Vec::new(),
            };
            if let Some(judges) = judges {
                made.rows = made.judge(judges, ui)?;
            }
            match precision::next_share(precision, share, &made.rows, ui) {
                Some(next) => share = next,
                None => return Ok(made),
            }
        }
    }

    fn judge(&self, judges: &Judges, ui: &Ui) -> Result<Vec<Row>> {
        let reference = judges.reference.held_to(self.emission.tolerance());
        let instrumented = || self.emission.emit(&self.graph, true);
        let (faithful, runtimes) = (judges.faithful, judges.runtimes);
        agreement::judge(
            &self.onnx,
            faithful,
            &reference,
            runtimes,
            &instrumented,
            ui,
        )
    }
}

/// How a model is emitted.
pub struct Emission {
    pub options: OnnxOptions,
    metadata: Vec<(String, String)>,
}

impl Emission {
    pub fn of(
        args: &CompileArgs,
        prepared: &Prepared,
        precision: Option<PrecisionRecord>,
    ) -> Result<Self> {
        let passes = pipeline::spelling(&args.pipeline);
        let labels = prepared.labels.as_deref();
        let mut metadata = manifest::metadata(&prepared.network, &passes, labels)?;
        if let Some(precision) = &precision {
            metadata.extend(precision.metadata()?);
        }
        Ok(Self {
            options: OnnxOptions {
                opset: args.onnx.opset.unwrap_or(OnnxOptions::default().opset),
                max_rank: args.onnx.max_rank.map(usize::from),
                precision,
            },
            metadata,
        })
    }

    pub fn emit(&self, graph: &Verified, block_outputs: bool) -> Result<Vec<u8>> {
        let options = manifest::onnx_options(&self.options, self.metadata.clone());
        let options = onnx::Options {
            block_outputs,
            ..options
        };
        onnx::emit(graph, &options)
    }

    /// What the model is held to.
    pub fn tolerance(&self) -> Tolerance {
        precision::tolerance(self.options.precision())
    }

    /// What was decided about float16.
    pub fn precision(&self) -> Option<&PrecisionRecord> {
        self.options.precision.as_ref()
    }
}
