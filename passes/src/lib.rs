//! Exact passes, graph to graph.
//!
//! Every pass lives in a file of its own beside the `.emir` cases in which it fires and in which
//! it must not. "Exact" means equal in real arithmetic; weights are folded in float64 and rounded
//! once, when the pipeline is done.
//!
//! [`precision`] is not one of them: float16 rounds.

#![warn(missing_docs)]

mod activation;
mod attention_scale;
mod batch_norm_backward;
mod batch_norm_forward;
mod common_subexpressions;
mod constants;
mod dead_code;
mod fold;
mod i2rmb;
mod layer_norm;
mod layer_scale;
mod pointwise;
pub mod precision;
mod single_window;
mod window_attention;

#[cfg(test)]
mod tests;

use emoc_ir::{Diagnostic, Graph, Result, Verified};

/// One rewriting of the graph.
pub struct Pass {
    /// Its name in reports and on the command line.
    pub name: &'static str,
    /// Why it is there.
    pub why: &'static str,
    run: fn(&mut Graph) -> Result<usize>,
}

/// The passes in the order they run.
pub const PIPELINE: &[Pass] = &[
    Pass {
        name: "single-window",
        why: "with one window over the map, both groupings are the same: spell them alike",
        run: single_window::run,
    },
    Pass {
        name: "common-subexpressions",
        why: "then the two attentions of such a map are computed once",
        run: common_subexpressions::run,
    },
    Pass {
        name: "constants",
        why: "what depends on weights alone is computed now",
        run: constants::run,
    },
    Pass {
        name: "batch-norm-backward",
        why: "a BatchNorm after a convolution is a factor and offset of its output channels",
        run: batch_norm_backward::run,
    },
    Pass {
        name: "batch-norm-forward",
        why: "a block's own BatchNorm comes after a residual sum, so it joins the expansion",
        run: batch_norm_forward::run,
    },
    Pass {
        name: "layer-norm",
        why: "LayerNorm's gamma and beta join the projections that read it",
        run: layer_norm::run,
    },
    Pass {
        name: "layer-scale",
        why: "gamma is a factor of the projection's output channels",
        run: layer_scale::run,
    },
    Pass {
        name: "attention-scale",
        why: "the factor on the scores joins q's weights",
        run: attention_scale::run,
    },
    Pass {
        name: "pointwise",
        why: "the stem ends in a 1x1 that meets the first expansion once BatchNorm is gone",
        run: pointwise::run,
    },
    Pass {
        name: "activation",
        why: "backends compute an activation where they write a convolution's result",
        run: activation::run,
    },
    Pass {
        name: "window-attention",
        why: "backends choose their own layout for a whole attention",
        run: window_attention::run,
    },
    Pass {
        name: "i2rmb",
        why: "backends lower a whole block at once",
        run: i2rmb::run,
    },
    Pass {
        name: "dead-code",
        why: "whatever no result needs any more is dropped",
        run: dead_code::run,
    },
];

/// The pass of this name.
///
/// # Errors
/// There is none; the names of all are listed.
pub fn find(name: &str) -> Result<&'static Pass> {
    PIPELINE
        .iter()
        .find(|pass| pass.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = PIPELINE.iter().map(|pass| pass.name).collect();
            Diagnostic::usage(format!("there is no pass `{name}`"))
                .help(format!("the passes, in order, are {}", names.join(", ")))
        })
}

/// Runs the pipeline, or its beginning up to and including the pass `stop_after`. The verifier
/// runs after every pass; `observe` then sees the pass, how often it fired, and the graph.
///
/// # Errors
/// `stop_after` names no pass; folded weights that are not finite although their sources are;
/// a weight that cannot be read; a graph that a pass broke.
pub fn optimise(
    graph: Verified,
    stop_after: Option<&str>,
    observe: &mut dyn FnMut(&Pass, usize, &Verified),
) -> Result<Verified> {
    stop_after.map(find).transpose()?;
    let mut graph = graph;
    for pass in PIPELINE {
        let mut edited = graph.into_inner();
        let blame = |mut e: Box<Diagnostic>| {
            e.message = format!("pass {}: {}", pass.name, e.message);
            e
        };
        let fired = (pass.run)(&mut edited).map_err(blame)?;
        graph = edited.verify().map_err(blame)?;
        observe(pass, fired, &graph);
        if stop_after == Some(pass.name) {
            break;
        }
    }
    let mut settled = graph.into_inner();
    settled.weights.settle()?;
    settled.verify()
}
