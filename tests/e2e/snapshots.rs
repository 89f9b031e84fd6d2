//! The printed graph of every variant before and after the pipeline.
//!
//! Regenerate with `INSTA_UPDATE=always scripts/test snapshots`, then review the difference.

use emoc_frontend::emo2::{self, Geometry, VARIANTS};
use emoc_ir::{Dim, parse};
use emoc_passes::optimise;

#[test]
fn printed_graphs() {
    for variant in VARIANTS {
        let geometry = Geometry {
            input_size: [224, 224],
            batch: Dim::Batch(1),
            window: 7,
        };
        let model = emo2::seeded(variant, geometry, 0).expect("a model");
        let name = model.graph.name.clone();
        let faithful = model.graph.verify().expect("a well-formed graph");
        let optimised = optimise(faithful.clone(), None, &mut |_, _, _| {}).expect("a pipeline");
        for (state, graph) in [("faithful", &faithful), ("optimised", &optimised)] {
            let text = graph.to_string();
            let read = parse(&text).unwrap_or_else(|e| panic!("{name} {state}: {e}"));
            assert!(
                read == **graph,
                "{name} {state}: the text reads back as another graph"
            );
            insta::with_settings!({
                snapshot_path => "../../snapshots",
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, { insta::assert_snapshot!(format!("{name}.{state}"), text) });
        }
    }
}
