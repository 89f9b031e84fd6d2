//! The pictures, and which class of the network each belongs to.

use std::{collections::BTreeMap, path::Path};

use emoc_ir::{Diagnostic, Result};
use emoc_pictures::{ImageFolder, Sample};

use super::evaluation::DataFacts;
use crate::{labels::Labels, manifest, ui::Ui};

/// One part of the pictures: `number` of `of`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    pub number: usize,
    pub of: usize,
}

/// Nobody has more machines.
pub const MAX_SHARDS: usize = 100_000;

/// Reads `1/4`.
pub fn shard(text: &str) -> Result<Shard, String> {
    let number = |text: &str| text.parse().ok();
    let parts = text.split_once('/');
    let shard = parts.and_then(|(i, n)| {
        let (number, of) = (number(i)?, number(n)?);
        ((1..=of).contains(&number) && of <= MAX_SHARDS).then_some(Shard { number, of })
    });
    shard.ok_or_else(|| "a shard is 1/4, 2/4, 3/4 or 4/4".to_owned())
}

/// The pictures to evaluate.
pub struct Dataset {
    pub facts: DataFacts,
    pub shard: Shard,
    /// Those of the shard. `class` is the network's.
    pub samples: Vec<Sample>,
    /// For each of the folder's classes, in its order, the network's.
    pub classes: Vec<usize>,
    /// And its name.
    pub names: Vec<String>,
}

impl Dataset {
    /// Lists the pictures and finds out which classes of the network they show.
    ///
    /// # Errors
    /// The folder is none of pictures, or its classes are not the network's.
    pub fn open(
        path: &Path,
        labels: &Labels,
        classes: usize,
        shard: Option<Shard>,
        ui: &Ui,
    ) -> Result<Self> {
        let folder = ImageFolder::open(path)?;
        let mapping = mapping(&folder, labels, classes).map_err(|error| error.file(path))?;
        if folder.classes.len() < classes {
            let found = folder.classes.len();
            ui.note(format_args!(
                "the folder has {found} of the network's {classes} classes, told by their names"
            ));
        }
        let shard = shard.unwrap_or(Shard { number: 1, of: 1 });
        let facts = DataFacts {
            classes: folder.classes.clone(),
            pictures: folder.samples.len(),
            sha256: digest(&folder),
            labels: labels.names().to_vec(),
        };
        let named = folder.classes.iter().zip(&mapping);
        let names = named.map(|(folder, &class)| match labels.names().get(class) {
            Some(name) => name.clone(),
            None => folder.clone(),
        });
        let names = names.collect();
        let samples = folder.samples.into_iter().skip(shard.number - 1);
        let samples = samples.step_by(shard.of).map(|sample| Sample {
            class: mapping[sample.class],
            ..sample
        });
        Ok(Self {
            facts,
            shard,
            samples: in_turn(samples.collect()),
            classes: mapping,
            names,
        })
    }
}

/// The first picture of each class, then the second of each: whoever interrupts the work has seen
/// every class.
fn in_turn(samples: Vec<Sample>) -> Vec<Sample> {
    let mut seen = BTreeMap::new();
    let mut placed: Vec<_> = samples
        .into_iter()
        .map(|sample| {
            let place = seen.entry(sample.class).or_insert(0_usize);
            *place += 1;
            (*place, sample)
        })
        .collect();
    // Stable: classes stay in their order.
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, sample)| sample).collect()
}

/// For each class of the folder, the network's: by name where all names are the network's, by
/// their order, as torchvision has it, where none is or those that are say the same.
fn mapping(folder: &ImageFolder, labels: &Labels, classes: usize) -> Result<Vec<usize>> {
    let named = folder.classes.iter().map(|name| labels.class(name));
    let named: Vec<_> = named.collect();
    if let Some(mapping) = named.iter().copied().collect::<Option<Vec<_>>>() {
        let mut places = BTreeMap::new();
        for (name, &class) in folder.classes.iter().zip(&mapping) {
            if let Some(other) = places.insert(class, name) {
                let message = format!("`{other}` and `{name}` are the same class of the network");
                return Err(Diagnostic::input(message));
            }
        }
        return Ok(mapping);
    }
    let found = folder.classes.len();
    let in_order =
        |(place, class): (usize, &Option<usize>)| class.is_none_or(|class| class == place);
    if found == classes && named.iter().enumerate().all(in_order) {
        return Ok((0..classes).collect());
    }
    let fault = match found == classes {
        true => Diagnostic::input("some of the folders are named after classes, others are not"),
        false => Diagnostic::input(format!(
            "the folder has {found} classes and the network {classes}"
        )),
    };
    let named = folder.classes.iter().zip(&named);
    let unknown = named.filter(|(_, class)| class.is_none() && !labels.names().is_empty());
    let fault = unknown.take(5).fold(fault, |fault, (name, _)| {
        fault.detail(format!("`{name}` is none of the network's classes"))
    });
    Err(fault.help(
        "there must be a folder for each class, or --labels must name the network's classes, \
         and the folders some of them",
    ))
}

/// Tells two folders apart by their classes and names of pictures.
fn digest(folder: &ImageFolder) -> String {
    let mut text = String::new();
    for name in &folder.classes {
        text.push_str(name);
        text.push('\0');
    }
    for sample in &folder.samples {
        text.push_str(&sample.name);
        text.push('\n');
    }
    manifest::sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn shards() {
        let check = |text: &str, expected: Option<(usize, usize)>| {
            let found = shard(text).ok().map(|shard| (shard.number, shard.of));
            assert_eq!(found, expected, "--shard {text}");
        };
        check("1/1", Some((1, 1)));
        check("4/4", Some((4, 4)));
        check("0/4", None);
        check("5/4", None);
        check("1", None);
        check("1/", None);
        check("-1/4", None);
        check("1/99999999999999999999", None);
    }

    #[test]
    fn classes_by_name_or_order() {
        let check =
            |names: &[&str], labels: Option<&[&str]>, classes, expected: Option<&[usize]>| {
                let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
                let folder = ImageFolder {
                    root: PathBuf::new(),
                    classes: owned(names),
                    samples: Vec::new(),
                };
                let labels = Labels::new(labels.map(owned), Some(classes));
                let found = mapping(&folder, &labels, classes).ok();
                assert_eq!(found.as_deref(), expected, "{names:?} of {classes}");
            };
        check(&["a", "b"], None, 2, Some(&[0, 1]));
        check(&["a", "b"], None, 3, None);
        check(&["a", "b"], Some(&["b", "a"]), 2, Some(&[1, 0]));
        check(&["c", "a"], Some(&["a", "b", "c"]), 3, Some(&[2, 0]));
        check(&["x", "y"], Some(&["a", "b"]), 2, Some(&[0, 1]));
        check(&["x", "a"], Some(&["a", "b", "c"]), 3, None);
        // The order would put `a` first.
        check(&["-b", "a"], Some(&["a", "b"]), 2, None);
        check(&["a", "z"], Some(&["a", "b"]), 2, Some(&[0, 1]));
        check(&["n02123045", "tabby"], None, 1000, None);
        // A name of two classes names none.
        check(&["a"], Some(&["a", "a"]), 2, None);
        check(&["n01440764", "n02123045"], None, 1000, Some(&[0, 281]));
        check(&["tabby", "pizza"], None, 1000, Some(&[281, 963]));
    }
}
