//! From a faithful graph to the one that is emitted.

use emoc_ir::{Diagnostic, Graph, Result, Verified};
use emoc_passes::{PIPELINE, find, optimise};

use crate::{
    args::{Passes, PipelineArgs},
    manifest::PassRecord,
    ui::Ui,
};

/// A graph after the passes.
pub struct Optimised {
    pub graph: Verified,
    pub passes: Vec<PassRecord>,
    /// Nodes before the first pass, and after each.
    pub nodes: Vec<usize>,
    /// The graph after the pass that was asked for.
    pub printed: Option<String>,
}

/// Refuses names of passes that do not exist or will not run, before the work.
///
/// # Errors
/// Such a name.
pub fn check(args: &PipelineArgs) -> Result<()> {
    let (print, stop) = (&args.print_after, &args.stop_after);
    for (flag, name) in [("--print-after", print), ("--stop-after", stop)] {
        let Some(name) = name else { continue };
        if args.passes == Passes::None {
            let message = format!("{flag} {name} and --passes none contradict each other");
            return Err(Diagnostic::usage(message));
        }
        find(name)?;
    }
    let place = |name: &str| PIPELINE.iter().position(|pass| pass.name == name);
    if let (Some(print), Some(stop)) = (print, stop)
        && place(print) > place(stop)
    {
        let message = format!("the pass `{print}` comes after `{stop}`, where the pipeline stops");
        return Err(Diagnostic::usage(message));
    }
    Ok(())
}

/// Runs the passes.
///
/// # Errors
/// Those of [`optimise`].
pub fn run(args: &PipelineArgs, graph: Verified, ui: &Ui) -> Result<Optimised> {
    let mut passes = Vec::new();
    let mut sizes = vec![graph.len()];
    if args.passes == Passes::None {
        let printed = None;
        return Ok(Optimised {
            graph,
            passes,
            nodes: sizes,
            printed,
        });
    }
    ui.step("running the passes");
    let mut printed = None;
    let graph = optimise(
        graph,
        args.stop_after.as_deref(),
        &mut |pass, fired, graph| {
            let nodes = graph.len();
            ui.detail(format_args!(
                "pass {}: fired {fired} times, {nodes} nodes",
                pass.name
            ));
            if args.print_after.as_deref() == Some(pass.name) {
                printed = Some(graph.to_string());
            }
            let name = pass.name;
            passes.push(PassRecord { name, fired });
            sizes.push(nodes);
        },
    )?;
    ui.detail(format_args!(
        "{} nodes before the passes, {} after",
        sizes[0],
        graph.len()
    ));
    Ok(Optimised {
        graph,
        passes,
        nodes: sizes,
        printed,
    })
}

/// The pipeline in one word, or up to which pass: enough to run it again.
pub fn spelling(args: &PipelineArgs) -> String {
    match (args.passes, &args.stop_after) {
        (Passes::None, _) => "none".into(),
        (Passes::All, None) => "all".into(),
        (Passes::All, Some(last)) => last.clone(),
    }
}

/// Runs the pipeline of a [`spelling`] over a faithful graph.
///
/// # Errors
/// The graph is not well-formed, or those of [`optimise`].
pub fn spelled(spelling: &str, faithful: &Graph, ui: &Ui) -> Result<Optimised> {
    let (passes, stop_after) = match spelling {
        "none" => (Passes::None, None),
        "all" => (Passes::All, None),
        last => (Passes::All, Some(last.to_owned())),
    };
    let args = PipelineArgs {
        passes,
        print_after: None,
        stop_after,
    };
    run(&args, faithful.clone().verify()?, ui)
}
