//! The report for people.

use std::fmt::Write;

use super::{
    Report,
    candidates::Failed,
    measure::{Measured, Noise},
};
use crate::{
    table::{Cell, Side, Table, counted},
    ui::{BOLD, DIM, GOOD, WARNING, one_line},
};

pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let several = report.models.len() > 1;
    for model in &report.models {
        let line = format!("{}: {}", model.path, model.facts.name());
        let line = one_line(&line);
        let _ = match several {
            true => writeln!(text, "{BOLD}{}{BOLD:#}  {line}", model.name),
            false => writeln!(text, "{BOLD}{line}{BOLD:#}"),
        };
    }
    if !report.results.is_empty() {
        let _ = write!(text, "\n{}", table(&report.results, several));
        text.push_str(&footer(report));
    }
    for failed in &report.failed {
        text.push_str(&failure(failed, several));
    }
    text.push_str(&noise(&report.noise, several));
    text
}

fn table(results: &[Measured], several: bool) -> Table {
    let columns = [
        ("model", Side::Left),
        ("runtime", Side::Left),
        ("threads", Side::Right),
        ("median", Side::Right),
        ("spread", Side::Right),
        ("images/s", Side::Right),
        ("ratio", Side::Right),
        ("start", Side::Right),
        ("memory", Side::Right),
    ];
    let skipped = usize::from(!several);
    let mut table = Table::new(&columns[skipped..]);
    for (place, row) in results.iter().enumerate() {
        let median = time(row.median_ms);
        let cells: [Cell; 9] = [
            row.facts.model.clone().into(),
            row.facts.runtime.into(),
            row.facts.threads.to_string().into(),
            match place {
                0 => Cell::styled(median, GOOD),
                _ => median.into(),
            },
            format!("{:.0} %", 100.0 * row.spread()).into(),
            rate(row.images_per_second).into(),
            format!("{:.2}", row.ratio).into(),
            format!("{:.0} ms", row.cold_start_ms).into(),
            row.peak_memory
                .map_or("-".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6))
                .into(),
        ];
        table.row(cells.into_iter().skip(skipped));
    }
    table
}

fn rate(per_second: f64) -> String {
    match per_second {
        ..100.0 => format!("{per_second:.1}"),
        _ => format!("{per_second:.0}"),
    }
}

fn time(ms: f64) -> String {
    match ms {
        ..1.0 => format!("{ms:.3} ms"),
        1.0..100.0 => format!("{ms:.2} ms"),
        _ => format!("{ms:.0} ms"),
    }
}

fn footer(report: &Report) -> String {
    let mut versions: Vec<String> = Vec::new();
    for Measured { facts, .. } in &report.results {
        let version = match (&facts.isa, &facts.version) {
            (Some(isa), _) => format!("{} in {isa}", facts.runtime),
            (None, Some(version)) => format!("{} {version}", facts.runtime),
            (None, None) => continue,
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let (rounds, cores) = (
        counted(report.rounds, "round"),
        counted(report.cores, "core"),
    );
    let images = report.results.iter().map(|row| row.facts.images).max();
    let images = match images {
        Some(images @ 2..) => format!("; {images} images at a time at most"),
        _ => String::new(),
    };
    format!(
        "{DIM}{}; {cores}{images}\n{rounds} in turn; spread: from quartile to quartile, of the \
         median\nratio: to the fastest, round by round; start: to the first result\n{DIM:#}",
        one_line(&versions.join(", "))
    )
}

fn of(model: &str, several: bool) -> String {
    match several {
        true => format!(" of {model}"),
        false => String::new(),
    }
}

fn failure(failed: &Failed, several: bool) -> String {
    let Failed {
        model,
        runtime,
        threads: on,
        error,
    } = failed;
    let of = of(model, several);
    let on = on.map_or(String::new(), |count| {
        format!(" on {}", counted(count, "thread"))
    });
    let mut text = format!(
        "{WARNING}not measured{WARNING:#}: {runtime}{of}{on}: {}",
        one_line(&error.message)
    );
    let why = error.details.iter().chain(&error.help);
    if let Some(why) = why.map(|why| one_line(why)).next() {
        let _ = write!(text, "; {why}");
    }
    text.push('\n');
    text
}

fn noise(noise: &[Noise], several: bool) -> String {
    let mut text = String::new();
    if noise.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "{WARNING}too noisy to trust{WARNING:#}: close what runs beside, or go \
         by the CPU time"
    );
    let mut table = Table::new(&[
        ("", Side::Left),
        ("spread", Side::Right),
        ("computing", Side::Right),
        ("CPU time", Side::Right),
    ]);
    for row in noise {
        let of = of(&row.model, several);
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        table.row([
            format!("  {}{of}, {}", row.runtime, counted(row.threads, "thread")).into(),
            percent(row.spread).into(),
            row.cpu_share.map_or("-".into(), percent).into(),
            row.cpu_ms.map_or("-".into(), time).into(),
        ]);
    }
    let _ = write!(text, "{table}");
    text
}

#[cfg(test)]
mod tests {
    use emoc_ir::Diagnostic;

    use super::*;

    #[test]
    fn failures_stay_in_their_line() {
        let check = |threads: Option<usize>, several: bool, expected: &str| {
            let failed = Failed {
                model: "A".into(),
                runtime: "tract",
                threads,
                error: Diagnostic::input("bad\nname \u{1b}[2J").detail("node\t1"),
            };
            let text = anstream::adapter::strip_str(&failure(&failed, several)).to_string();
            assert_eq!(text, format!("not measured: tract{expected}\n"));
        };
        let why = ": bad name \\u{1b}[2J; node\\u{9}1";
        check(None, false, why);
        check(Some(1), false, &format!(" on 1 thread{why}"));
        check(Some(4), true, &format!(" of A on 4 threads{why}"));
    }
}
