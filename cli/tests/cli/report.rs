//! The page of `emoc report`: whole, self-contained, and true.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use html5gum::{StartTag, Token, Tokenizer};
use serde_json::{Value, json};

use crate::{COMPILE, command, emoc, expect, fixture, names, stderr, stdout};

const SEEDED: &str = "report --variant 1M --input-size 64";
const OWN: &str = "--dim-head 8,8 --attention hybrid --input-size 64";

/// Elements without an end.
const VOID: [&str; 3] = ["link", "meta", "wbr"];
/// Everything else that a page may have; nothing here runs or loads anything.
const KNOWN: &str = "a b badge bdi body code dd details div dl dt footer h1 h2 h3 head header html i \
                     li main nav ol p pre section small span style summary table tbody td tfoot th \
                     thead title tr";

/// A page that is well-formed and needs nothing but itself.
struct Page {
    /// Tags and texts in order, without what was measured.
    tokens: Vec<String>,
    text: String,
}

#[track_caller]
fn page(path: &Path) -> Page {
    let html = fs::read_to_string(path).expect("a page");
    let mut page = Page {
        tokens: Vec::new(),
        text: String::new(),
    };
    let (mut open, mut ids, mut links) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mut measured = false;
    for Ok(token) in Tokenizer::new(&html) {
        match token {
            Token::StartTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).into_owned();
                let known = KNOWN.split_whitespace().any(|known| known == name);
                assert!(known || VOID.contains(&&*name), "an element <{name}>");
                let attributes = attributes(&tag);
                measured = attributes.iter().any(|(name, value)| {
                    name == "class" && value.split(' ').any(|word| word == "measured")
                });
                for (attribute, value) in &attributes {
                    harmless(&name, attribute, value);
                    match (&**attribute, value.strip_prefix('#')) {
                        ("id", _) => assert!(ids.insert(value.clone()), "two of {value}"),
                        ("href", Some(id)) => drop(links.insert(id.to_owned())),
                        _ => {}
                    }
                }
                let attributes = if measured { vec![] } else { attributes };
                page.tokens.push(format!("<{name} {attributes:?}>"));
                if !VOID.contains(&&*name) {
                    open.push(name);
                }
            }
            Token::EndTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).into_owned();
                let tail = &page.tokens[page.tokens.len().saturating_sub(5)..];
                assert_eq!(open.pop(), Some(name), "after {tail:?}");
                measured = false;
            }
            Token::String(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                page.text.push_str(&text);
                page.tokens
                    .push(if measured { String::new() } else { text });
            }
            Token::Error(error) => panic!("{path:?}: {error:?}"),
            Token::Doctype(_) => assert!(page.tokens.is_empty()),
            Token::Comment(_) => panic!("a comment"),
        }
    }
    assert!(open.is_empty(), "{open:?} without an end");
    assert!(links.is_subset(&ids), "links to nothing: {links:?} {ids:?}");
    page
}

/// An attribute neither runs nor loads anything.
#[track_caller]
fn harmless(element: &str, attribute: &str, value: &str) {
    let known =
        "charset class colspan content data-name href http-equiv id lang name rel start style";
    let mut known = known.split_whitespace();
    assert!(
        known.any(|known| known == attribute),
        "{attribute} of <{element}>"
    );
    let loads = match attribute {
        "href" => !value.starts_with('#') && value != "data:,",
        "style" => value.contains("url"),
        _ => false,
    };
    assert!(!loads, "<{element} {attribute}={value:?}> loads");
}

fn attributes(tag: &StartTag<()>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let attributes = tag.attributes.iter();
    attributes.map(|(n, v)| (text(n), text(v))).collect()
}

#[track_caller]
fn exits(output: &Output, code: i32, what: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
}

fn data(folder: &Path, arguments: &str) -> Value {
    let output = emoc(folder, &format!("{arguments} --json"));
    exits(&output, 0, arguments);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The page of each kind of model, and what stands on it.
#[test]
fn a_page_for_every_kind_of_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |made: &str, model: &str, code: i32, expected: &[&str]| {
        if !made.is_empty() {
            exits(&emoc(folder.path(), &format!("{made} --no-check")), 0, made);
        }
        let arguments = format!("report {model} --output page.html");
        let mut run = command(folder.path(), &arguments);
        // Without cargo no crate is built.
        let output = run.env("PATH", "").output().expect("emoc starts");
        exits(&output, code, model);
        let text = page(&folder.path().join("page.html")).text;
        for expected in expected {
            assert!(
                text.contains(expected),
                "{model}: no `{expected}` in {text}"
            );
        }
    };
    let tiny = fixture("tiny.pth");
    let seeded = "--variant 1M --input-size 64";
    check(
        "",
        seeded,
        0,
        &[
            "EMOv2 1M at 64x64",
            "Agrees with the reference in tract",
            "hybrid attention 7×7, kernel 5×5",
            "stage3.1.eops.0.qk.conv.weight",
            "emoc compile --variant 1M --target onnx --input-size 64 --window 7",
            "picture just covers 73×73",
            "a BatchNorm after a convolution is a factor and offset",
        ],
    );
    check(
        "",
        &format!("{tiny} {OWN}"),
        0,
        &["tiny.pth", "PyTorch (zip)"],
    );
    check("", &format!("--checkpoint {tiny} {OWN}"), 0, &["tiny.pth"]);
    let backbone = format!(
        "{} {OWN} --window 10 --batch dynamic",
        fixture("tiny_mmseg.pth")
    );
    check(
        "",
        &backbone,
        0,
        &["stage4", "several images", "--batch dynamic"],
    );
    check(
        &format!("{COMPILE} --precision f16 --output half.onnx"),
        "half.onnx",
        0,
        &[
            "ONNX file half.onnx; float16",
            "the outputs alone are judged",
            "In float32",
        ],
    );
    check(
        &format!(
            "compile --checkpoint {tiny} {OWN} --target tensorrt --precision f16 --islands auto --batch 1..4:2"
        ),
        &format!("emo_custom_64_tensorrt --checkpoint {tiny}"),
        0,
        &[
            "TensorRT bundle emo_custom_64_tensorrt",
            "--batch 1..4:2",
            "build.sh",
        ],
    );
    check(
        &format!("compile --checkpoint {tiny} {OWN} --target rust"),
        &format!("emo-custom-64 --checkpoint {tiny}"),
        5,
        &[
            "Rust crate emo-custom-64",
            "Not checked",
            "a crate does not show",
            "Cargo.toml",
        ],
    );
    check(
        &format!("{COMPILE} --output wrong.onnx"),
        "wrong.onnx --seed 1",
        1,
        &[
            "Disagrees with the reference",
            "not the weights that the artifact",
            "first divergence",
        ],
    );
}

#[test]
fn the_data_adds_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = data(folder.path(), "report --variant 1M");
    assert_eq!(names(folder.path()).len(), 0, "no page was asked for");
    assert_eq!(report["macs"], 284_756_712);
    assert_eq!(report["published"][0]["mmacs"], 285);
    let sum = |rows: &Value, field: &str| -> u64 {
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| row[field].as_u64().expect("a number")).sum()
    };
    for field in ["parameters", "macs"] {
        assert_eq!(sum(&report["graph"], field), report[field], "{field}");
        for stage in report["graph"].as_array().expect("stages") {
            assert_eq!(sum(&stage["blocks"], field), stage[field], "{field}");
            for block in stage["blocks"].as_array().expect("blocks") {
                assert_eq!(sum(&block["parts"], field), block[field], "{field}");
            }
        }
    }
    let block = &report["graph"][3]["blocks"][1];
    assert_eq!(block["name"], "stage3.1");
    assert_eq!(
        block["attention"],
        json!({"kind": "hybrid", "window": [7, 7], "windows": 4, "heads": 4})
    );
    // `inner_skip` reads the attention and the convolution, `skip` the input.
    let reads = |name: &str| {
        let mut parts = block["parts"].as_array().expect("parts").iter();
        parts.find(|part| part["name"] == name).expect(name)["reads"].clone()
    };
    assert_eq!(reads("inner_skip"), json!([1, 2]));
    assert_eq!(reads("skip"), json!([null, 5]));
    let passes = report["passes"].as_array().expect("passes");
    for pair in passes.windows(2) {
        assert_eq!(pair[0]["nodes_after"], pair[1]["nodes_before"]);
    }
    assert_eq!(report["checks"][0]["runtime"], "tract");
    assert_eq!(report["blocks"][0]["blocks"][0]["output"], "stage0.0");
}

#[test]
fn labels_and_names_are_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let hostile = [
        "<script>alert(1)</script>",
        "</ol></section></body>",
        "<img src=http://192.0.2.1/x>",
        "&amp; \" ' <!--",
        "\u{202e}reversed",
    ];
    let mut labels = hostile.map(str::to_owned).to_vec();
    labels.resize(1000, "a class".to_owned());
    fs::write(folder.path().join("labels.txt"), labels.join("\n")).expect("a file");
    let name = "<b>\"&.onnx";
    let made = format!("{COMPILE} --no-check --labels labels.txt --output {name}");
    exits(&emoc(folder.path(), &made), 0, &made);
    let output = emoc(folder.path(), &format!("report {name} --output page.html"));
    exits(&output, 0, name);
    let text = page(&folder.path().join("page.html")).text;
    for expected in [&hostile[..4], &["\\u{202e}reversed", name]].concat() {
        assert!(text.contains(expected), "no `{expected}`");
    }
    let report = data(folder.path(), &format!("report {name}"));
    assert_eq!(report["labels"].as_array().map(Vec::len), Some(1000));
}

#[test]
fn the_same_input_gives_the_same_page_but_for_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("emov2_1m_64.html");
    let run = |threads: &str| {
        let output = command(folder.path(), SEEDED)
            .env("RAYON_NUM_THREADS", threads)
            .output();
        let output = output.expect("emoc starts");
        exits(&output, 0, SEEDED);
        assert!(stdout(&output).contains("wrote emov2_1m_64.html"));
        page(&path).tokens
    };
    let (first, second) = (run("2"), run("1"));
    let differs = first.iter().zip(&second).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(first.len(), second.len());
    assert_eq!(names(folder.path()), ["emov2_1m_64.html"]);
    let timeless = || {
        let mut report = data(folder.path(), SEEDED);
        for row in report["checks"].as_array_mut().expect("checks") {
            row["inference_ms"] = Value::Null;
        }
        report
    };
    assert_eq!(timeless(), timeless());
}

/// The command on the page is typed into a shell, and makes what the report was about.
#[test]
fn the_command_makes_the_artifact_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let name = "tiny's $(weights).pth";
    for place in ["", "again"] {
        fs::create_dir_all(path(place)).expect("a folder");
        symlink(fixture("tiny_trainer_ckpt.pth"), path(place).join(name)).expect("a link");
    }
    symlink(path(name), path("link.pth")).expect("a link");
    let seeded = "--variant 1M --input-size 64x80";
    let own = format!("--checkpoint link.pth {OWN} --weights ema");
    let check = |made: &str, artifact: &str, file: &str, model: &str| {
        exits(
            &emoc(folder.path(), &format!("compile {made} --no-check")),
            0,
            made,
        );
        let mut run = command(folder.path(), &format!("report {artifact} {model} --json"));
        if !model.is_empty() {
            run.arg("--checkpoint").arg(name);
        }
        let output = run.output().expect("emoc starts");
        exits(&output, 0, made);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let line = report["commands"]["compile"].as_str().expect("a command");
        let script = format!(
            "emoc() {{ {} \"$@\" --no-check --quiet; }}; {line}",
            env!("CARGO_BIN_EXE_emoc")
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(path("again"))
            .output();
        exits(&output.expect("a shell"), 0, line);
        let [one, other] = ["", "again"].map(|place| fs::read(path(place).join(file)));
        let same = one.expect("an artifact") == other.expect("an artifact");
        assert!(same, "{line} makes another {file}");
    };
    let onnx = format!("{seeded} --window 5 --batch dynamic --opset 17 --stop-after layer-scale");
    check(&onnx, "emov2_1m_64x80.onnx", "emov2_1m_64x80.onnx", "");
    let half = format!("{own} --precision f16 --islands auto --output half.onnx --batch 2");
    check(&half, "half.onnx", "half.onnx", " ");
    let bundle = format!("{own} --target tensorrt --batch 1..4:2 --output bundle");
    check(&bundle, "bundle", "bundle/plan.json", " ");
}

/// An artifact whose checkpoint is elsewhere: everything but the checks.
#[test]
fn without_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = fixture("tiny.pth");
    let made = format!("compile --checkpoint {tiny} {OWN} --no-check");
    for (flags, artifact) in [
        ("--output tiny.onnx", "tiny.onnx"),
        ("--target rust --output crate", "crate"),
        ("--target tensorrt --output bundle", "bundle"),
    ] {
        let made = format!("{made} {flags}");
        exits(&emoc(folder.path(), &made), 0, &made);
        let report = format!("report {artifact} --output page.html --json");
        let output = expect(folder.path(), &report, 0, "nothing is checked");
        let data: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(data["weights"]["from"], "artifact", "{artifact}");
        assert_eq!(data["checks"].as_array().map(Vec::len), Some(0));
        let fired = data["passes"].as_array().expect("passes").iter();
        assert!(fired.filter(|pass| pass["fired"] != 0).count() > 3);
        let text = page(&folder.path().join("page.html")).text;
        for expected in [
            "Not checked: the weights",
            "stage3.1",
            "of a checkpoint that was not given",
        ] {
            assert!(
                text.contains(expected),
                "{artifact}: no {expected} in {text}"
            );
        }
    }
}

#[test]
fn what_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("text.pth"), "no checkpoint").expect("a file");
    fs::write(path("mine.html"), "<!DOCTYPE html><p>mine").expect("a file");
    fs::create_dir(path("empty")).expect("a folder");
    symlink("mine.html", path("link.html")).expect("a link");
    let tiny = fixture("tiny.pth");
    let made = format!("compile --checkpoint {tiny} {OWN} --no-check --output tiny.onnx");
    exits(&emoc(folder.path(), &made), 0, &made);
    let before = names(folder.path());
    let check = |arguments: &str, code: i32, message: &str| {
        expect(folder.path(), arguments, code, message);
        assert_eq!(names(folder.path()), before, "{arguments}");
    };
    check("report", 2, "MODEL");
    check("report text.pth", 3, "no checkpoint that emoc knows");
    check("report missing.onnx", 4, "missing.onnx");
    check(&format!("report missing --checkpoint {tiny}"), 4, "missing");
    check("report empty", 3, "no emoc.json");
    check(
        &format!("report {tiny} --checkpoint {tiny}"),
        2,
        "this is no artifact",
    );
    check(
        &format!("{SEEDED} --output mine.html"),
        4,
        "is no report of emoc",
    );
    check(&format!("{SEEDED} --output link.html"), 4, "symbolic link");
    check(&format!("{SEEDED} --output empty"), 4, "a folder");
    check(
        &format!("{SEEDED} --output /dev/full"),
        4,
        "no regular file",
    );
    check(
        &format!("{SEEDED} --output no/such.html"),
        4,
        "no/such.html",
    );
    check(
        &format!("{SEEDED} --tensorrt-rtx"),
        2,
        "for TensorRT bundles",
    );
    check(&format!("{SEEDED} --batch 1..8"), 2, "a range of batches");
    check("report text.pth --output text.pth", 2, "replace the input");
    let mine = fs::read_to_string(path("mine.html")).expect("the file");
    assert_eq!(mine, "<!DOCTYPE html><p>mine");
    let force = format!("{SEEDED} --output mine.html --force --quiet");
    let output = emoc(folder.path(), &force);
    exits(&output, 0, &force);
    assert_eq!(stdout(&output) + &stderr(&output), "");
    page(&path("mine.html"));
}
