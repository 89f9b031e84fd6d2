//! [`StateDict`]: the weights of one network, by key, in file order; [`ContentDigest`] of them.

use std::path::{Path, PathBuf};

use emoc_ir::{Diagnostic, Result};
use sha2::{Digest, Sha256};

use crate::{
    checkpoint::{Checkpoint, Group},
    source::hex,
    tensor::Tensor,
};

/// Which weights of a checkpoint to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The network itself.
    #[default]
    Net,
    /// The exponential moving average of its weights, `net_E`.
    Ema,
}

/// Keys under which trainers store the network.
const NET: [&str; 4] = ["net", "state_dict", "model", "model_state_dict"];
const EMA: &str = "net_E";
/// Prefixes that wrappers put before every key: data parallelism and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// The network's place inside a detector or segmentor.
const BACKBONE: &str = "backbone.";

/// Where a state_dict came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The checkpoint file.
    pub file: Option<PathBuf>,
    /// Keys from the root to the state_dict, joined with `/`; empty if the root is the state_dict.
    pub root: String,
    /// Prefixes removed from every key, in this order.
    pub stripped: Vec<&'static str>,
    /// Keys that do not belong to the backbone: first path element and number, in file order.
    pub ignored: Vec<(String, usize)>,
    /// Values of the state_dict that are not tensors.
    pub non_tensors: usize,
}

/// The weights of one network. Tensors stay in the file until they are read, and keep it open.
#[derive(Debug, Clone)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    /// Indices of `entries`, sorted by key.
    sorted: Vec<usize>,
    origin: Origin,
}

impl StateDict {
    /// Finds the state_dict of a checkpoint: the root itself, `net` (for [`Choice::Ema`]: `net_E`),
    /// `state_dict`, `model` or `model_state_dict`, in the root or one dict below it. Prefixes
    /// `module.`, `_orig_mod.` and `backbone.` are removed.
    ///
    /// # Errors
    /// No state_dict is found, or several are.
    pub fn choose(checkpoint: &Checkpoint, choice: Choice) -> Result<Self> {
        let error = |error: Box<Diagnostic>| match checkpoint.path() {
            Some(path) => error.file(path),
            None => error,
        };
        let group = find(checkpoint, choice).map_err(error)?;
        let skip = match group.path.len() {
            0 => 0,
            len => len + 1,
        };
        let tensors = &checkpoint.listing.tensors[group.tensors.clone()];
        let entries = tensors.iter().map(|tensor| {
            let key = tensor.name()[skip..].to_owned();
            (key, tensor.clone())
        });
        let origin = Origin {
            file: checkpoint.path().map(Path::to_owned),
            root: group.path.clone(),
            non_tensors: group.others,
            ..Origin::default()
        };
        strip(entries.collect(), origin).map_err(error)
    }

    /// A state_dict that comes from no file; the order of the tensors is kept.
    ///
    /// # Errors
    /// Two tensors have the same key.
    pub fn from_tensors(entries: Vec<(String, Tensor)>, origin: Origin) -> Result<Self> {
        let mut sorted: Vec<usize> = (0..entries.len()).collect();
        sorted.sort_by(|&a, &b| entries[a].0.cmp(&entries[b].0));
        let twice = |pair: &&[usize]| entries[pair[0]].0 == entries[pair[1]].0;
        if let Some(pair) = sorted.windows(2).find(twice) {
            let key = entries[pair[0]].0.clone();
            return Err(Diagnostic::input("two tensors have the same key").key(key));
        }
        Ok(Self {
            entries,
            sorted,
            origin,
        })
    }

    /// The tensor of a key.
    pub fn get(&self, key: &str) -> Option<&Tensor> {
        let order = |&at: &usize| self.entries[at].0.as_str().cmp(key);
        let at = self.sorted.binary_search_by(order).ok()?;
        Some(&self.entries[self.sorted[at]].1)
    }

    /// All keys and tensors, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(key, tensor)| (&**key, tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// SHA-256 of the content, in lower-case hexadecimal: the same weights have the same digest
    /// in every container, layout and order. Per tensor, sorted by key, it covers, each behind
    /// its length in 8 little-endian bytes, the key, the name of the element type, the shape (8
    /// bytes per axis) and the contiguous bytes.
    ///
    /// # Errors
    /// As [`Tensor::bytes`].
    pub fn sha256(&self) -> Result<String> {
        let mut digest = ContentDigest::default();
        for (key, tensor) in self.sorted.iter().map(|&at| &self.entries[at]) {
            digest.add(key, tensor)?;
        }
        Ok(digest.finish())
    }
}

/// The digest of [`StateDict::sha256`], tensor by tensor, for weights that are never there all
/// at once.
#[derive(Default)]
pub struct ContentDigest(Sha256);

impl ContentDigest {
    /// Adds a tensor. They come sorted by key, each once.
    ///
    /// # Errors
    /// As [`Tensor::bytes`].
    pub fn add(&mut self, key: &str, tensor: &Tensor) -> Result<()> {
        let Self(hasher) = self;
        let shape: Vec<u8> = tensor
            .shape()
            .iter()
            .flat_map(|&size| (size as u64).to_le_bytes())
            .collect();
        for part in [key.as_bytes(), tensor.dtype().name().as_bytes(), &shape] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update((tensor.byte_len() as u64).to_le_bytes());
        tensor.digest_into(hasher)
    }

    /// The digest of all that was added, in lower-case hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// A dict of tensors, none of them deeper.
fn is_state_dict(group: &Group) -> bool {
    group.direct > 0 && group.nested == 0
}

/// The group to take.
fn find(checkpoint: &Checkpoint, choice: Choice) -> Result<&Group> {
    let groups = &checkpoint.listing.groups;
    let names: &[&str] = match choice {
        Choice::Net => &NET,
        Choice::Ema => &[EMA],
    };
    // The root has depth 0 and the empty key.
    let takes = |group: &&Group| match group.depth {
        0 => choice == Choice::Net,
        _ => names.contains(&group.key.as_str()),
    };
    for depth in 0..=2 {
        let candidates = groups.iter().filter(|group| group.depth == depth);
        let found: Vec<_> = candidates
            .filter(takes)
            .filter(|group| is_state_dict(group))
            .collect();
        match found[..] {
            [] => {}
            [group] if group.closed => {
                return Err(Diagnostic::input(
                    "a value of the state_dict is an object that holds tensors and cannot be \
                     opened",
                )
                .at(place(group))
                .help("load it in Python and save a state_dict of plain tensors"));
            }
            [group] => return Ok(group),
            _ => {
                return Err(candidates_of(
                    Diagnostic::input("it is ambiguous which state_dict is meant"),
                    found,
                ));
            }
        }
    }
    Err(not_found(checkpoint, choice))
}

fn place(group: &Group) -> String {
    match group.path.as_str() {
        "" => "the root".to_owned(),
        path => format!("`{path}`"),
    }
}

fn candidates_of<'a>(
    error: Box<Diagnostic>,
    groups: impl IntoIterator<Item = &'a Group>,
) -> Box<Diagnostic> {
    let mut error = error;
    for group in groups.into_iter().take(20) {
        error = error.detail(format!("{}: {} tensors", place(group), group.direct));
    }
    error.help("save the one that is meant alone: `torch.save(state_dict, path)`")
}

/// Says what is there instead.
fn not_found(checkpoint: &Checkpoint, choice: Choice) -> Box<Diagnostic> {
    let entry = |key: &str| {
        let mut entries = checkpoint.entries().iter();
        entries.find(|entry| entry.key == key)
    };
    if choice == Choice::Ema {
        return match entry(EMA) {
            Some(entry) if entry.description == "None" => {
                Diagnostic::usage("the checkpoint has no EMA weights: `net_E` is None")
            }
            Some(entry) => {
                Diagnostic::input(format!("`net_E` is no state_dict: {}", entry.description))
            }
            None => Diagnostic::usage("the checkpoint has no EMA weights: there is no `net_E`"),
        }
        .help("leave out `--weights ema` to take the network itself");
    }
    let groups = checkpoint.listing.groups.iter();
    let others: Vec<_> = groups.filter(|group| is_state_dict(group)).collect();
    if !others.is_empty() {
        return candidates_of(
            Diagnostic::input("no state_dict is found where one is expected"),
            others,
        )
        .detail(format!("expected: the root, or one of {}", NET.join(", ")));
    }
    let known = NET.into_iter().find_map(|key| Some((key, entry(key)?)));
    let what = match known {
        Some((key, entry)) => format!("`{key}` is no state_dict: {}", entry.description),
        None => match checkpoint.entries() {
            [root] if root.key == "(root)" => {
                format!("the checkpoint is no state_dict: {}", root.description)
            }
            _ => match checkpoint.tensors() {
                [] => "the checkpoint holds no tensors".to_owned(),
                [first, ..] => format!(
                    "the checkpoint holds no state_dict: its first tensor is `{}`",
                    first.name()
                ),
            },
        },
    };
    Diagnostic::input(what)
        .help("load it in Python and save its weights: `torch.save(model.state_dict(), path)`")
}

/// Removes the prefixes that all keys carry; where some carry `backbone.`, the others are
/// counted and dropped.
fn strip(mut entries: Vec<(String, Tensor)>, mut origin: Origin) -> Result<StateDict> {
    loop {
        let carry = |prefix: &str| {
            let keys = entries.iter();
            keys.filter(|(key, _)| key.starts_with(prefix)).count()
        };
        let prefixes = WRAPPERS.into_iter().chain([BACKBONE]);
        let Some(prefix) = prefixes.into_iter().find(|prefix| carry(prefix) > 0) else {
            return StateDict::from_tensors(entries, origin);
        };
        if prefix == BACKBONE {
            entries.retain(|(key, _)| {
                let inside = key.starts_with(BACKBONE);
                if !inside {
                    ignore(&mut origin.ignored, key);
                }
                inside
            });
        } else if carry(prefix) < entries.len() {
            let mut error = Diagnostic::input(format!("only some keys begin with `{prefix}`"));
            let without = entries.iter().filter(|(key, _)| !key.starts_with(prefix));
            for (key, _) in without.take(5) {
                error = error.detail(format!("without: {key}"));
            }
            return Err(error.help("save the state_dict of one module alone"));
        }
        for (key, _) in &mut entries {
            key.drain(..prefix.len());
            if key.is_empty() {
                let what = format!("a key is nothing but the prefix `{prefix}`");
                return Err(Diagnostic::input(what).help("rename it in Python"));
            }
        }
        origin.stripped.push(prefix);
    }
}

/// Counts a key by its first path element.
fn ignore(ignored: &mut Vec<(String, usize)>, key: &str) {
    let first = key.split('.').next().unwrap_or_default();
    match ignored.iter_mut().find(|(name, _)| name == first) {
        Some((_, count)) => *count += 1,
        None => ignored.push((first.to_owned(), 1)),
    }
}
