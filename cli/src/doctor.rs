//! `emoc doctor`: what is found on this machine, and what it is good for.

use std::{fmt::Write, fs, path::Path, thread};

use emoc_ir::Result;
use emoc_kernels::cpu::Isa;
use emoc_runtimes::{Found, Missing, Program, rust_crate::Cargo};
use serde::Serialize;

use crate::{
    agreement,
    args::RuntimeArgs,
    json,
    output::CHILDREN,
    table::{Cell, Side, Table, counted},
    ui::{BOLD, GOOD, Ui, WARNING, printable},
};

pub const EXAMPLES: &str = "\
Examples:
  emoc doctor
  emoc doctor --json

Nothing that is missing is an error: the exit code is 0.";

/// What is found.
#[derive(Serialize)]
struct Report {
    emoc: &'static str,
    system: String,
    cpu: Cpu,
    found: Vec<Item>,
}

#[derive(Serialize)]
struct Cpu {
    /// None where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    cores: usize,
    /// The instruction set that an emitted crate chooses.
    isa: &'static str,
    /// All that it can be told to use, fastest first.
    available: Vec<&'static str>,
}

/// Something that emoc makes use of.
#[derive(Serialize)]
struct Item {
    name: &'static str,
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Where it is; nothing if it is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// What it is good for.
    gives: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Missing>,
}

impl Item {
    fn found(name: &'static str, version: &str, path: Option<&Path>) -> Self {
        Self {
            name,
            found: true,
            version: Some(version.to_owned()),
            path: path.map(|path| path.display().to_string()),
            gives: gives(name),
            missing: None,
        }
    }

    fn missing(name: &'static str, missing: Missing) -> Self {
        Self {
            name,
            found: false,
            version: None,
            path: None,
            gives: gives(name),
            missing: Some(missing),
        }
    }
}

/// What each is good for, in half a line.
fn gives(name: &str) -> &'static str {
    match name {
        emoc_runtimes::TRACT => "runs ONNX files; built in",
        emoc_runtimes::ONNX_RUNTIME => "runs ONNX files, as most people deploy them",
        "cargo" => "builds, checks and runs Rust crates",
        "python3" => "build.py of TensorRT bundles; loads TensorRT-RTX",
        "TensorRT-RTX" => "checks bundles and builds engines, without a GPU",
        _ => "",
    }
}

pub fn run(ui: &Ui) -> Result<()> {
    ui.step("looking around");
    let report = Report {
        emoc: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: cpu(),
        found: items()?,
    };
    json::show(&report, || text(&report), ui)
}

fn items() -> Result<Vec<Item>> {
    let path = std::env::var_os("PATH");
    // Nothing is demanded, so that nothing fails.
    let runtimes = agreement::runtimes(&RuntimeArgs {
        onnxruntime_lib: None,
        tensorrt_rtx: false,
    })?;
    let mut items = Vec::new();
    for found in runtimes {
        items.push(match found {
            Found::Ready(runtime) => {
                Item::found(runtime.name(), &runtime.version(), runtime.library())
            }
            Found::Missing(missing) => Item::missing(missing.name, missing),
        });
    }
    let program = |name, found: Result<Program, Missing>| match found {
        Ok(program) => Item::found(name, program.version(), Some(program.path())),
        Err(missing) => Item::missing(name, missing),
    };
    let cargo = Cargo::find(path.as_deref(), &CHILDREN);
    items.push(program("cargo", cargo.map(|cargo| cargo.program().clone())));
    let python = Program::python(path.as_deref(), &CHILDREN);
    items.push(program("python3", python));
    items.push(match agreement::tensorrt_rtx(false)? {
        Ok(builder) => Item::found("TensorRT-RTX", builder.version(), builder.wheels()),
        Err(missing) => Item::missing("TensorRT-RTX", missing),
    });
    Ok(items)
}

fn cpu() -> Cpu {
    Cpu {
        model: fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| cpu_model(&text)),
        cores: thread::available_parallelism().map_or(1, |cores| cores.get()),
        isa: Isa::best().name(),
        available: Isa::available().iter().map(|isa| isa.name()).collect(),
    }
}

/// The model's name in what Linux says about its processors; Arm's have none there.
fn cpu_model(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    let words: Vec<_> = model.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn text(report: &Report) -> String {
    let Report {
        emoc, system, cpu, ..
    } = report;
    let mut text = format!("emoc {emoc}, {system}\n");
    let model = cpu.model.as_deref().unwrap_or("a CPU without a name");
    let cores = counted(cpu.cores, "core");
    let _ = writeln!(text, "{}, {cores}", printable(model));
    let _ = writeln!(text, "Rust crates use {} here\n", cpu.isa);

    let mut table = Table::new(&[
        ("", Side::Left),
        ("version", Side::Left),
        ("what it gives", Side::Left),
    ]);
    for item in &report.found {
        let version = match &item.version {
            Some(version) => Cell::styled(printable(version), GOOD),
            None => Cell::styled("missing", WARNING),
        };
        table.row([item.name.into(), version, item.gives.into()]);
    }
    let _ = write!(text, "{table}");

    let located = report.found.iter().filter_map(|item| {
        let path = item.path.as_deref()?;
        Some((item.name, path))
    });
    let mut heading = format!("\n{BOLD}where{BOLD:#}\n");
    for (name, path) in located {
        let _ = writeln!(text, "{heading}{name:<12}  {}", printable(path));
        heading.clear();
    }
    let missing = report
        .found
        .iter()
        .filter_map(|item| item.missing.as_ref().map(|m| (item.name, m)));
    let mut heading = format!("\n{BOLD}to get what is missing{BOLD:#}\n");
    for (name, missing) in missing {
        let _ = writeln!(
            text,
            "{heading}{name:<12}  {}: {}",
            printable(&missing.reason),
            missing.help
        );
        for why in &missing.refused {
            let _ = writeln!(text, "{:<12}  {}", "", printable(why));
        }
        heading.clear();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processors() {
        for (text, expected) in [
            (
                "processor\t: 0\nmodel name\t: Intel(R)  Xeon(R)\n",
                Some("Intel(R) Xeon(R)"),
            ),
            ("processor\t: 0\nBogoMIPS\t: 243.75\n", None),
            ("model name\t:  \n", None),
            ("model name", None),
            ("", None),
        ] {
            assert_eq!(cpu_model(text).as_deref(), expected, "{text:?}");
        }
    }
}
