//! How long a loaded model takes.

use std::time::Duration;

use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use crate::{NamedTensor, Session};

/// Wall-clock times of several runs of one session.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timing {
    /// The median.
    #[serde(rename = "median_ms", serialize_with = "milliseconds")]
    pub median: Duration,
    /// The fastest: what the machine can do when nothing else runs.
    #[serde(rename = "min_ms", serialize_with = "milliseconds")]
    pub min: Duration,
    /// How many runs were measured.
    pub runs: usize,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64() * 1e3)
}

impl Timing {
    fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let runs = times.len();
        let min = *times.first()?;
        let median = (times[(runs - 1) / 2] + times[runs / 2]) / 2;
        Some(Self { median, min, runs })
    }
}

/// Runs `session` `runs` times and says how long it took. Runtimes prepare memory in their first
/// run: let one precede (the run whose outputs are compared).
///
/// # Errors
/// Those of [`Session::times`]; and when `runs` is 0.
pub fn time_runs(session: &mut dyn Session, inputs: &[NamedTensor], runs: usize) -> Result<Timing> {
    Timing::of(session.times(inputs, runs)?)
        .ok_or_else(|| Diagnostic::usage("at least one run is needed for a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_two_middles() {
        let cases: &[(&[u64], Option<u64>)] = &[
            (&[], None),
            (&[7], Some(7)),
            (&[9, 1], Some(5)),
            (&[9, 1, 2], Some(2)),
            (&[9, 1, 4, 2], Some(3)),
        ];
        for (times, median) in cases {
            let durations = times.iter().map(|&ms| Duration::from_millis(ms)).collect();
            let timing = Timing::of(durations);
            let found = timing.map(|timing| timing.median);
            assert_eq!(found, median.map(Duration::from_millis), "{times:?}");
            assert_eq!(timing.map_or(0, |timing| timing.runs), times.len());
        }
    }
}
