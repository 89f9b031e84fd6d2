//! Emitted crates against numbers that PyTorch computed. Each crate is built once, and all its
//! pictures go through one process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use WeightsDtype::{F16, F32};
use emoc_backends::rust_crate::{self, Options, WeightsDtype};
use emoc_frontend::Choice;
use emoc_ir::{
    Graph, Verified,
    reference::{Precision, Tensor, evaluate},
};
use emoc_passes::optimise;
use emoc_runtimes::{
    Children, InputFact, NamedTensor, Session,
    rust_crate::{Cargo, CrateSession},
};
use emoc_tests::{
    assert_agrees, assert_float16_agrees,
    cases::{
        Case, LARGE, backbone_case, digits_cases, large_case, seeded_case, seeded_names,
        segmentation_case, tiny_case, tiny_rows,
    },
    float16_moves, full, max_abs_difference, reference_dir, tolerance,
};

static CHILDREN: Children = Children::new();

/// Instruction sets beside the best one, as far as this machine has them.
const ISAS: &[&str] = if cfg!(target_arch = "x86_64") {
    &["avx2", "portable"]
} else {
    &["portable"]
};

/// Files of a crate.
type Files = Vec<(String, Vec<u8>)>;

/// Crates that are built, so that checkpoints with the same weights share one.
struct Crates {
    cargo: Cargo,
    /// The tests of this module run at once, each in its own folder.
    folder: PathBuf,
    built: Vec<(Files, CrateSession<'static>)>,
}

impl Crates {
    fn new(test: &str) -> Self {
        let path = std::env::var_os("PATH");
        Self {
            cargo: Cargo::find(path.as_deref(), &CHILDREN).expect("cargo runs this test"),
            folder: Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join("crates")
                .join(test),
            built: Vec::new(),
        }
    }

    /// The crate of a graph, built if it is a new one.
    fn session(
        &mut self,
        what: &str,
        graph: &Verified,
        dtype: WeightsDtype,
    ) -> &mut CrateSession<'static> {
        let options = Options {
            crate_name: Some("emitted".into()),
            weights: dtype,
            ..Options::default()
        };
        let emitted = rust_crate::emit(graph, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
        let known = self
            .built
            .iter()
            .position(|(files, _)| *files == emitted.files);
        let index = known.unwrap_or_else(|| {
            let mut files = emitted.files.clone();
            files.push(rust_crate::check_example(&emitted));
            let session = self.build(what, graph, &files);
            self.built.push((emitted.files, session));
            self.built.len() - 1
        });
        &mut self.built[index].1
    }

    fn build(&self, what: &str, graph: &Verified, files: &Files) -> CrateSession<'static> {
        let folder = self.folder.join(self.built.len().to_string());
        for (name, bytes) in files {
            let path = folder.join("crate").join(name);
            // What is there already keeps its time, and cargo what it built from it.
            if fs::read(&path).is_ok_and(|found| found == *bytes) {
                continue;
            }
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, bytes).expect("a file");
        }
        let (source, target) = (folder.join("crate"), folder.join("target"));
        let program = self.cargo.build(&source, &target, &CHILDREN);
        let program = program.unwrap_or_else(|e| panic!("{what}: {e}"));
        let fact = |name: &str, value| InputFact {
            name: name.to_owned(),
            shape: graph.ty(value).shape.resolve(1),
        };
        let outputs = graph.outputs().iter();
        let outputs = outputs.map(|output| fact(&output.name, output.value));
        let input = fact("input", graph.inputs()[0].into());
        CrateSession::new(program, &folder, input, outputs.collect(), &CHILDREN)
    }

    /// Runs a case through the crate of its network.
    fn check(&mut self, case: &Case, dtype: WeightsDtype, moved: Moved) {
        let name = &case.name;
        let graph = (case.build)(1)
            .graph
            .verify()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let graph = optimise(graph, None, &mut |_, _, _| {});
        let graph = graph.unwrap_or_else(|e| panic!("{name}: {e}"));
        let what = format!("{name}, {dtype:?}");
        let session = self.session(&what, &graph, dtype);
        let input = NamedTensor::new("input", case.input.shape.clone(), case.input.to_f32());
        let input = [input.expect("an input")];
        let run = |session: &mut CrateSession, threads, isa| {
            let outputs = session.on(threads, isa).run(&input);
            outputs.unwrap_or_else(|e| panic!("{what}, {isa:?}: {e}"))
        };
        let outputs = run(session, 1, None);
        let others = run(session, 3, None);
        assert!(outputs == others, "{what}: another number of threads");
        for isa in ISAS {
            let others = run(session, 1, Some(isa));
            let ran = session.report().map(|report| report.isa.as_str());
            if ran != Some(isa) {
                println!("skipped: no {isa}");
            }
            for (best, other) in outputs.iter().zip(&others) {
                let [best, other] = [best, other].map(tensor);
                let what = format!("{what}: {isa}");
                assert_agrees(&what, &best, &other, tolerance(&best));
            }
        }
        let outputs: Vec<_> = outputs.iter().map(tensor).collect();
        let named = case.outputs.iter().zip(&outputs);
        assert_eq!(case.outputs.len(), outputs.len(), "{what}: outputs");
        match dtype {
            F32 => named.for_each(|((output, golden), actual)| {
                let difference = max_abs_difference(golden, actual);
                println!("{what}: {output}: the crate differs from PyTorch by {difference:.1e}");
                assert_agrees(
                    &format!("{what}: {output}"),
                    golden,
                    actual,
                    tolerance(golden),
                );
            }),
            F16 => {
                let expected = rust_crate::rounded(&graph, dtype);
                let expected = by_image(&expected.expect("weights"), &case.input);
                for (expected, actual) in expected.iter().zip(&outputs) {
                    assert_agrees(&what, expected, actual, tolerance(expected));
                }
                named.for_each(|((_, golden), actual)| moved.judge(&what, golden, actual));
            }
        }
    }
}

fn tensor(named: &NamedTensor) -> Tensor {
    Tensor::from_f32(&named.shape, &named.data)
}

/// How far float16 weights may move a network's outputs.
#[derive(Clone, Copy)]
enum Moved {
    /// A little, and never the best class.
    Little,
    /// Almost dead channels amplify the rounding: the number is printed.
    Printed,
}

impl Moved {
    fn judge(self, what: &str, golden: &Tensor, actual: &Tensor) {
        match self {
            Moved::Little => assert_float16_agrees(what, golden, actual),
            Moved::Printed => {
                float16_moves(what, golden, actual);
            }
        }
    }
}

/// The reference's outputs for a batch through a graph that takes one image.
fn by_image(graph: &Graph, input: &Tensor) -> Vec<Tensor> {
    let image: usize = input.shape[1..].iter().product();
    let mut outputs: Vec<Tensor> = Vec::new();
    for data in input.data.chunks(image) {
        let one = Tensor {
            shape: [&[1], &input.shape[1..]].concat(),
            data: data.to_vec(),
        };
        let results = evaluate(graph, &[one], Precision::F32).expect("an evaluation");
        if outputs.is_empty() {
            outputs = results;
            continue;
        }
        for (all, one) in outputs.iter_mut().zip(results) {
            all.shape[0] += 1;
            all.data.extend(one.data);
        }
    }
    outputs
}

/// Rows of the tiny networks that are another layout of weights that an earlier row has.
const SAME_WEIGHTS: usize = 6;

/// Every geometry of the tiny networks; layouts of the same weights give the same crate.
#[test]
fn tiny() {
    let mut crates = Crates::new("tiny");
    let rows = tiny_rows();
    for case in rows.iter().map(tiny_case) {
        crates.check(&case, F32, Moved::Little);
    }
    assert_eq!(crates.built.len(), rows.len() - SAME_WEIGHTS);
    for row in rows.iter().filter(|row| full() || row.2 == "in96x80") {
        crates.check(&tiny_case(row), F16, Moved::Printed);
    }
}

#[test]
fn backbone() {
    let mut crates = Crates::new("backbone");
    crates.check(&backbone_case(), F32, Moved::Little);
    crates.check(&backbone_case(), F16, Moved::Printed);
}

/// Norms after the depthwise convolutions, in padded heads and over a whole expanded map.
#[test]
fn segmentation() {
    let mut crates = Crates::new("segmentation");
    crates.check(&segmentation_case(), F32, Moved::Little);
    crates.check(&segmentation_case(), F16, Moved::Printed);
}

#[test]
fn seeded() {
    let mut crates = Crates::new("seeded");
    let subset = ["emo2_1m_224", "emo2_5m_224", "emo2_1m_96x160"];
    for name in seeded_names() {
        if full() || subset.contains(&&*name) {
            let case = seeded_case(&name);
            crates.check(&case, F32, Moved::Little);
            if full() || name == "emo2_1m_224" {
                crates.check(&case, F16, Moved::Little);
            }
        }
    }
}

#[test]
fn large_checkpoints() {
    let Some(folder) = reference_dir("1000-class checkpoints as crates") else {
        return;
    };
    let mut crates = Crates::new("large");
    for row in LARGE.iter().filter(|row| full() || row.1 == "1m") {
        let case = large_case(&folder, row);
        crates.check(&case, F32, Moved::Little);
        if full() {
            crates.check(&case, F16, Moved::Printed);
        }
    }
}

#[test]
fn digits() {
    let Some(folder) = reference_dir("digits as crates") else {
        return;
    };
    let mut crates = Crates::new("digits");
    for choice in [Choice::Net, Choice::Ema] {
        for case in digits_cases(&folder, choice, full()) {
            crates.check(&case, F32, Moved::Little);
            if full() || choice == Choice::Net {
                crates.check(&case, F16, Moved::Little);
            }
        }
    }
}
