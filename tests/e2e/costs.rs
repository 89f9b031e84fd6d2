//! Parameters and multiply-accumulates of every published variant, against fvcore's count of the
//! original PyTorch modules.

use emoc_frontend::emo2::{Geometry, VARIANTS, seeded, variant};
use emoc_ir::Dim;
use emoc_tests::fixtures;

#[test]
fn totals_are_those_of_fvcore() {
    let table = std::fs::read_to_string(fixtures().join("costs.tsv")).expect("the table");
    let mut wrong = Vec::new();
    for row in table.lines().skip(1) {
        let fields: Vec<_> = row.split('\t').collect();
        let [name, size, window, macs, parameters] = fields[..] else {
            panic!("`{row}` does not have five columns");
        };
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let geometry = Geometry {
            input_size: [number(size) as usize; 2],
            batch: Dim::Batch(1),
            window: number(window) as usize,
        };
        let model = seeded(variant(name).expect("a known variant"), geometry, 0);
        let graph = model.expect("a model").graph;
        let cost = graph.cost(1).expect("a cost").total;
        let expected = (number(macs), number(parameters));
        if (cost.macs, cost.parameters) != expected {
            let (macs, parameters) = (cost.macs, cost.parameters);
            wrong.push(format!(
                "{name} at {size}, window {window}: counts {macs} and {parameters}, not {expected:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let covered = |name: &str| {
        table
            .lines()
            .any(|row| row.starts_with(&format!("{name}\t")))
    };
    let missing: Vec<_> = VARIANTS.iter().filter(|v| !covered(v.name)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
