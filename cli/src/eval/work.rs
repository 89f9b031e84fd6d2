//! Every core takes pictures, one group after the other, until there are none.

use std::{
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
};

use emoc_ir::Result;
use emoc_pictures::Sample;
use emoc_preprocess::Transform;

use super::dataset::Dataset;
use crate::{
    model::{Engine, Model, Predictor, Take, open_picture},
    output,
    ui::Ui,
};

/// One of the models that are evaluated together.
pub struct Side<'a> {
    /// The name of the model's file or folder.
    pub file: String,
    pub model: &'a Model,
    pub engine: &'a Engine<'a>,
    transform: Transform,
}

impl<'a> Side<'a> {
    pub fn new(path: &Path, model: &'a Model, engine: &'a Engine<'a>) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Self {
            file: name.to_string_lossy().into_owned(),
            model,
            engine,
            transform: model.transform()?,
        })
    }
}

/// The logits of each side, or why the picture cannot be used.
pub type Outcome = Result<Vec<Vec<f32>>, String>;

/// What workers say.
enum Said {
    /// What became of a sample.
    Done(usize, Outcome),
    /// A model cannot be run.
    Failed(Box<emoc_ir::Diagnostic>),
}

/// Evaluates the pictures on all cores and gives each outcome to `each`, in no order. Returns
/// the number of workers.
///
/// # Errors
/// A model cannot be run. Pictures that cannot be used are outcomes.
pub fn run(
    dataset: &Dataset,
    sides: &[Side],
    ui: &Ui,
    each: &mut dyn FnMut(&Sample, Outcome),
) -> Result<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let group = sides.iter().map(|side| match side.engine.take() {
        Take::Exactly(pictures) | Take::UpTo(pictures) => pictures,
    });
    let group = group.max().unwrap_or(1);
    let workers = cores.min(dataset.samples.len().div_ceil(group)).max(1);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = Work {
        dataset,
        sides,
        group,
        next: &next,
        stop: &stop,
        ui,
    };
    let mut failure = None;
    thread::scope(|scope| {
        let (said, hear) = mpsc::channel();
        for _ in 0..workers {
            let (work, said) = (&work, said.clone());
            scope.spawn(move || {
                if let Err(error) = work.go(&said) {
                    let _ = said.send(Said::Failed(error));
                }
            });
        }
        drop(said);
        for said in hear {
            match said {
                Said::Done(sample, outcome) => {
                    each(&dataset.samples[sample], outcome);
                    ui.advance();
                }
                Said::Failed(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(workers),
    }
}

struct Work<'a> {
    dataset: &'a Dataset,
    sides: &'a [Side<'a>],
    /// Pictures that a worker takes at once.
    group: usize,
    next: &'a AtomicUsize,
    stop: &'a AtomicBool,
    ui: &'a Ui,
}

impl Work<'_> {
    fn go(&self, said: &Sender<Said>) -> Result<()> {
        let predictors = self
            .sides
            .iter()
            .map(|side| Predictor::new(side.model, side.engine));
        let mut predictors: Vec<_> = predictors.collect::<Result<_>>()?;
        let samples = self.dataset.samples.len();
        while !self.stop.load(Ordering::Relaxed) && !output::interrupted() {
            let from = self.next.fetch_add(self.group, Ordering::Relaxed);
            if from >= samples {
                break;
            }
            self.group(from..samples.min(from + self.group), &mut predictors, said)?;
        }
        Ok(())
    }

    fn group(
        &self,
        indices: std::ops::Range<usize>,
        predictors: &mut [Predictor],
        said: &Sender<Said>,
    ) -> Result<()> {
        // For each side the inputs, and which samples they are of.
        let mut inputs = vec![Vec::new(); self.sides.len()];
        let mut usable = Vec::new();
        for index in indices {
            match self.inputs(&self.dataset.samples[index]) {
                Ok(made) => {
                    usable.push(index);
                    for (inputs, input) in inputs.iter_mut().zip(made) {
                        inputs.push(input);
                    }
                }
                Err(reason) => {
                    let _ = said.send(Said::Done(index, Err(reason)));
                }
            }
        }
        let sides = predictors.iter_mut().zip(&inputs);
        let logits = sides.map(|(predictor, inputs)| predictor.logits(inputs));
        let logits: Vec<_> = logits.collect::<Result<_>>()?;
        for (place, index) in usable.into_iter().enumerate() {
            let rows = logits.iter().map(|side| match side.get(place) {
                Some(Ok(row)) => Ok(row.clone()),
                Some(Err(error)) => Err(error.message.clone()),
                None => Err("the logits are missing".to_owned()),
            });
            let _ = said.send(Said::Done(index, rows.collect()));
        }
        Ok(())
    }

    /// The input that each side has of a picture.
    fn inputs(&self, sample: &Sample) -> Result<Vec<Vec<f32>>, String> {
        let picture = open_picture(&sample.path, self.ui).map_err(|error| error.message)?;
        let view = picture.picture().map_err(|error| error.message)?;
        let sides = self.sides.iter();
        Ok(sides.map(|side| side.transform.apply(&view)).collect())
    }
}
