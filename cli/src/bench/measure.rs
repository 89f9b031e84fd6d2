//! Rounds, in which every candidate runs once, and what they tell.

use std::{
    thread,
    time::{Duration, Instant},
};

use emoc_ir::Result;
use serde::Serialize;

use super::candidates::{Candidate, Candidates, Facts, Failed};
use crate::ui::Ui;

/// Rounds, if nothing is said.
const ROUNDS: usize = 25;

/// Fewer are no measurement.
const FEWEST: usize = 5;

/// How long the rounds take, about, if nothing is said.
const BUDGET: Duration = Duration::from_secs(10);

/// Runs before the first round.
const WARM_UP: usize = 2;

/// What is fast is run so often in a round that it takes this long.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
const MOST_RUNS: usize = 20;

/// Threads of a pool go on looking for work for a while after a run.
const REST: Duration = Duration::from_millis(3);

/// Quartiles farther apart than this share of the median.
const MOST_SPREAD: f64 = 0.1;

/// On one thread, less than this share of the time spent computing.
const LEAST_CPU: f64 = 0.9;

/// A candidate, measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    #[serde(flatten)]
    pub facts: Facts,
    pub median_ms: f64,
    /// The first and third quartile.
    pub quartiles_ms: [f64; 2],
    pub min_ms: f64,
    pub images_per_second: f64,
    /// To the fastest candidate, round by round: see [`rank`].
    pub ratio: f64,
    /// From the start of the process to the end of the first inference, its files in memory.
    pub cold_start_ms: f64,
    /// The most memory that the process used, in bytes.
    pub peak_memory: Option<u64>,
    /// The median of the CPU time of an inference, of all threads together: what the time would
    /// be on one thread if nothing else ran.
    pub cpu_ms: Option<f64>,
    /// The share of the time that its threads computed, of all of them together.
    pub cpu_share: Option<f64>,
    /// One for each round.
    pub times_ms: Vec<f64>,
}

impl Measured {
    /// Distance of the quartiles, as a share of the median.
    pub fn spread(&self) -> f64 {
        let [first, third] = self.quartiles_ms;
        (third - first) / self.median_ms
    }
}

/// Times of one candidate.
struct Times {
    rounds: Vec<f64>,
    /// Runs of one round.
    runs: usize,
    /// CPU time of an inference in each round, in milliseconds; not where the system does not
    /// tell.
    cpu: Vec<f64>,
    /// All runs together, and what they computed.
    total: Duration,
    computed: Duration,
}

/// Runs the rounds: their number, and what was measured, the fastest first. A candidate that fails
/// on the way is listed as failed.
pub fn rounds(
    candidates: &mut Candidates,
    demanded: Option<u32>,
    ui: &Ui,
) -> (usize, Vec<Measured>) {
    let Candidates {
        running, failed, ..
    } = candidates;
    ui.step("warming up");
    let mut times = Vec::new();
    retain(running, failed, |candidate| {
        times.push(warm_up(candidate)?);
        Ok(())
    });
    let most = demanded.map_or(ROUNDS, |runs| runs as usize);
    ui.count("measuring", most);
    let start = Instant::now();
    let mut done = 0;
    while done < most && !running.is_empty() {
        let late = start.elapsed() > BUDGET && demanded.is_none();
        if late && done >= FEWEST {
            break;
        }
        let count = running.len();
        let mut broken = None;
        for offset in 0..count {
            // Nobody always follows the same one.
            let index = (done + offset) % count;
            if let Err(error) = round(&mut running[index], &mut times[index]) {
                broken = Some((index, error));
                break;
            }
        }
        match broken {
            None => {
                done += 1;
                ui.advance();
            }
            // The others run this round again.
            Some((index, error)) => {
                times.remove(index);
                times
                    .iter_mut()
                    .for_each(|times| times.rounds.truncate(done));
                failed.push(failure(&running.remove(index), error));
            }
        }
    }
    let measured = running.iter().zip(&times).map(measured);
    let mut measured: Vec<_> = measured.collect();
    rank(&mut measured);
    (done, measured)
}

/// Puts the fastest first and gives the others their ratio to it. Each round is a comparison of its
/// own, since the machine is slower in some than in others: a time counts as a multiple of the
/// round's geometric mean, and the median of these multiples decides.
fn rank(measured: &mut [Measured]) {
    let rounds = measured.iter().map(|row| row.times_ms.len()).min();
    let means = (0..rounds.unwrap_or(0)).map(|round| {
        let logarithms = measured.iter().map(|row| row.times_ms[round].ln());
        (logarithms.sum::<f64>() / measured.len() as f64).exp()
    });
    let means: Vec<_> = means.collect();
    for row in measured.iter_mut() {
        let multiples = row.times_ms.iter().zip(&means);
        row.ratio = quartiles(multiples.map(|(time, mean)| time / mean).collect())[1];
    }
    measured.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let fastest = measured.first().map_or(1.0, |row| row.ratio);
    for row in measured {
        row.ratio /= fastest;
    }
}

/// Takes out the candidates that fail.
fn retain(
    running: &mut Vec<Candidate>,
    failed: &mut Vec<Failed>,
    mut work: impl FnMut(&mut Candidate) -> Result<()>,
) {
    for mut candidate in std::mem::take(running) {
        match work(&mut candidate) {
            Ok(()) => running.push(candidate),
            Err(error) => failed.push(failure(&candidate, error)),
        }
    }
}

fn failure(candidate: &Candidate, error: Box<emoc_ir::Diagnostic>) -> Failed {
    Failed {
        model: candidate.facts.model.clone(),
        runtime: candidate.facts.runtime,
        threads: Some(candidate.facts.threads),
        error,
    }
}

fn warm_up(candidate: &mut Candidate) -> Result<Times> {
    let last = candidate.worker.times(WARM_UP)?.pop().unwrap_or_default();
    let runs = LONG_ENOUGH.as_secs_f64() / last.as_secs_f64().max(1e-6);
    Ok(Times {
        rounds: Vec::new(),
        runs: (runs as usize).clamp(1, MOST_RUNS),
        cpu: Vec::new(),
        total: Duration::ZERO,
        computed: Duration::ZERO,
    })
}

/// One run that does not count, because others have used the caches, and those that do.
fn round(candidate: &mut Candidate, times: &mut Times) -> Result<()> {
    let before = candidate.worker.cpu_time();
    let runs = candidate.worker.times(1 + times.runs)?;
    if let Some((before, after)) = before.zip(candidate.worker.cpu_time()) {
        let computed = after.saturating_sub(before);
        times.total += runs.iter().sum::<Duration>();
        times.computed += computed;
        times
            .cpu
            .push(1e3 * computed.as_secs_f64() / runs.len() as f64);
    }
    let counted = runs.iter().skip(1).map(|run| 1e3 * run.as_secs_f64());
    times.rounds.push(quartiles(counted.collect())[1]);
    if candidate.facts.threads > 1 {
        thread::sleep(REST);
    }
    Ok(())
}

fn measured((candidate, times): (&Candidate, &Times)) -> Measured {
    let Candidate {
        facts,
        worker,
        cold_start_ms,
    } = candidate;
    let [first, median, third] = quartiles(times.rounds.clone());
    let known = !times.cpu.is_empty();
    let offered = times.total.as_secs_f64() * facts.threads as f64;
    Measured {
        median_ms: median,
        quartiles_ms: [first, third],
        min_ms: times.rounds.iter().copied().fold(f64::INFINITY, f64::min),
        images_per_second: 1e3 * facts.images as f64 / median,
        ratio: 1.0,
        cold_start_ms: *cold_start_ms,
        peak_memory: worker.peak_memory(),
        cpu_ms: known.then(|| quartiles(times.cpu.clone())[1]),
        cpu_share: known.then(|| (times.computed.as_secs_f64() / offered).min(1.0)),
        times_ms: times.rounds.clone(),
        facts: facts.clone(),
    }
}

/// First quartile, median, third quartile, between the values where they fall there.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let place = share * values.len().saturating_sub(1) as f64;
        let (below, part) = (place as usize, place.fract());
        let at = |index: usize| values.get(index).or(values.last()).copied();
        match (at(below), at(below + 1)) {
            (Some(low), Some(high)) => low + part * (high - low),
            _ => f64::NAN,
        }
    })
}

/// A sign that the machine was busy with other things.
#[derive(Debug, PartialEq, Serialize)]
pub struct Noise {
    pub model: String,
    pub runtime: &'static str,
    pub threads: usize,
    /// See [`Measured::spread`].
    pub spread: f64,
    pub cpu_ms: Option<f64>,
    pub cpu_share: Option<f64>,
}

/// The results that are not to be trusted.
pub fn noise(results: &[Measured]) -> Vec<Noise> {
    let is_noisy = |measured: &&Measured| {
        // On several threads, waiting for one another is part of the work.
        let waited = measured.cpu_share.filter(|_| measured.facts.threads == 1);
        measured.spread() > MOST_SPREAD || waited.is_some_and(|share| share < LEAST_CPU)
    };
    let noisy = results.iter().filter(is_noisy);
    noisy
        .map(|measured| Noise {
            model: measured.facts.model.clone(),
            runtime: measured.facts.runtime,
            threads: measured.facts.threads,
            spread: measured.spread(),
            cpu_ms: measured.cpu_ms,
            cpu_share: measured.cpu_share,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_the_values() {
        for (values, expected) in [
            (&[4.0][..], [4.0, 4.0, 4.0]),
            (&[3.0, 1.0], [1.5, 2.0, 2.5]),
            (&[5.0, 1.0, 2.0, 4.0, 3.0], [2.0, 3.0, 4.0]),
        ] {
            assert_eq!(quartiles(values.to_vec()), expected, "{values:?}");
        }
        assert!(quartiles(Vec::new()).iter().all(|value| value.is_nan()));
    }

    fn measured(threads: usize, times_ms: &[f64]) -> Measured {
        Measured {
            facts: Facts {
                model: "A".into(),
                runtime: "tract",
                version: None,
                isa: None,
                threads,
                images: 1,
            },
            median_ms: 10.0,
            quartiles_ms: [9.8, 10.2],
            min_ms: 9.0,
            images_per_second: 100.0,
            ratio: 1.0,
            cold_start_ms: 50.0,
            peak_memory: None,
            cpu_ms: None,
            cpu_share: None,
            times_ms: times_ms.to_vec(),
        }
    }

    /// The first wins two of the three rounds, and has the larger median.
    #[test]
    fn rounds_are_compared_and_not_medians() {
        let mut rows = [
            measured(2, &[2.0, 3.0, 5.0]),
            measured(1, &[1.0, 10.0, 4.0]),
        ];
        rank(&mut rows);
        let found = rows.each_ref().map(|row| (row.facts.threads, row.ratio));
        let [(1, 1.0), (2, ratio)] = found else {
            panic!("{found:?}");
        };
        assert!((ratio - 1.25).abs() < 1e-12, "{ratio}");
    }

    #[test]
    fn noise_is_a_spread_or_a_wait() {
        let check = |threads: usize, third: f64, cpu_share: Option<f64>, noisy: bool| {
            let measured = Measured {
                quartiles_ms: [9.8, third],
                cpu_share,
                ..measured(threads, &[])
            };
            let found = noise(&[measured]);
            assert_eq!(
                !found.is_empty(),
                noisy,
                "{threads}, {third}, {cpu_share:?}"
            );
        };
        check(1, 10.2, Some(0.99), false);
        check(1, 10.2, None, false);
        check(1, 11.0, Some(0.99), true);
        check(1, 10.2, Some(0.8), true);
        check(2, 10.2, Some(0.8), false);
    }
}
