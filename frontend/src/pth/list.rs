//! Names every tensor of a pickle by its path from the root, in file order.

use std::sync::Arc;

use emoc_ir::{Diagnostic, Result};

use super::{
    arena::{Arena, END, Handle, NAMELESS, Node, RawTensor},
    pickle::{MAX_DEPTH, MAX_NAME, Unpickled, is_name},
    rebuild::MAX_EXPANDED,
};
use crate::{
    checkpoint::{Entry, Group, Listing, MAX_TENSORS},
    source::Source,
    tensor::{Tensor, View},
};

/// Values met on the way. Shared containers are met once per path, so a small file can describe
/// more paths than there are atoms.
const MAX_VISITS: usize = 1 << 22;
/// How often, on average, the bytes of all storages may be read to read every tensor. Views
/// share storages, but not thousands of times.
const MAX_REREADS: u64 = 16;
/// Entries of the root that are described one by one.
const MAX_ENTRIES: usize = 4096;
/// Containers this far below the root may be a state_dict.
const GROUP_DEPTH: usize = 2;

/// Lists the tensors, the candidates for a state_dict, and what else is in the root.
pub(super) fn list(
    unpickled: &Unpickled,
    pickle: &[u8],
    record_of: &[usize],
    source: &Arc<Source>,
) -> Result<Listing> {
    let arena = &unpickled.arena;
    refuse_duplicate_keys(arena, pickle)?;
    let mut lister = Lister {
        arena,
        pickle,
        record_of,
        source,
        frames: Vec::new(),
        open: vec![false; arena.nodes.len()],
        path: String::new(),
        key_start: 0,
        visits: 0,
        reading: 0,
        last_record: None,
        unnamed: 0,
        listing: Listing::default(),
    };
    lister.value(unpickled.root, Key::Good)?;
    while !lister.frames.is_empty() {
        lister.advance()?;
    }
    lister.check_budget()?;
    lister.describe_root(unpickled.root);
    Ok(lister.listing)
}

/// A dict with the same key twice says two things; Python would keep the last.
fn refuse_duplicate_keys(arena: &Arena, pickle: &[u8]) -> Result<()> {
    // Sorted, not hashed: nothing in the file can make this slow.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Key<'a> {
        Int(i64),
        Str(&'a [u8]),
    }
    let mut keys = Vec::new();
    for node in &arena.nodes {
        let Node::Dict(chain) = node else { continue };
        keys.clear();
        keys.extend(
            arena
                .links(*chain)
                .filter_map(|link| match arena.node(link.key) {
                    Node::Int(int) => Some(Key::Int(int)),
                    // A longer one names nothing, and comparing it again and again is slow.
                    Node::Str(span) if span.len as usize <= MAX_NAME => {
                        Some(Key::Str(&pickle[span.range()]))
                    }
                    _ => None,
                }),
        );
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            let key = match pair[0] {
                Key::Int(int) => int.to_string(),
                Key::Str(text) => text[..text.len().min(80)].escape_ascii().to_string(),
            };
            return Err(Diagnostic::input("a dict has the same key twice").key(key));
        }
    }
    Ok(())
}

/// Whether a tensor below can be named.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key {
    Good,
    /// Too long, not UTF-8, or with control characters: harmless until a tensor is below it.
    Bad,
    /// Neither str nor int.
    Other,
}

/// A container whose items are being visited.
struct Frame {
    handle: Handle,
    /// The next link of a list or dict, or item of a tuple.
    next: u32,
    index: usize,
    /// Length of its path.
    path: usize,
    key: Key,
    /// Its entry in [`Listing::groups`].
    group: Option<usize>,
    /// How many tensors were listed before it.
    first: usize,
}

struct Lister<'a> {
    arena: &'a Arena,
    pickle: &'a [u8],
    record_of: &'a [usize],
    source: &'a Arc<Source>,
    frames: Vec<Frame>,
    /// Containers that are being visited: meeting one again closes a cycle.
    open: Vec<bool>,
    path: String,
    /// Where the last key of `path` begins.
    key_start: usize,
    visits: usize,
    /// Bytes that reading all tensors once would read.
    reading: u64,
    last_record: Option<usize>,
    /// Tensors under keys that are neither str nor int.
    unnamed: usize,
    listing: Listing,
}

impl<'a> Lister<'a> {
    /// Visits the next item of the innermost container, or leaves it.
    fn advance(&mut self) -> Result<()> {
        let arena = self.arena;
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        let item = match arena.node(frame.handle) {
            Node::Tuple(span) => {
                let item = arena.tuple(span).get(frame.next as usize);
                frame.next += 1;
                item.map(|&value| (None, value))
            }
            Node::Dict(_) if frame.next != END => {
                let link = arena.links[frame.next as usize];
                frame.next = link.next;
                Some((Some(link.key), link.value))
            }
            Node::List(_) if frame.next != END => {
                let link = arena.links[frame.next as usize];
                frame.next = link.next;
                Some((None, link.value))
            }
            _ => None,
        };
        let Some((key, value)) = item else {
            self.leave();
            return Ok(());
        };
        self.path.truncate(frame.path);
        let (index, mut state) = (frame.index, frame.key);
        frame.index += 1;
        if self.frames.len() > 1 {
            self.path.push('/');
        }
        self.key_start = self.path.len();
        let own = match key.map(|key| (arena.node(key), self.text(key))) {
            None => self.push_number(index as i64),
            Some((Node::Int(number), _)) => self.push_number(number),
            Some((_, Some(text))) if is_name(text) => {
                self.path.push_str(text);
                Key::Good
            }
            Some((Node::Str(_), _)) => Key::Bad,
            Some(_) => Key::Other,
        };
        if state == Key::Good {
            state = own;
        }
        self.value(value, state)
    }

    fn push_number(&mut self, number: i64) -> Key {
        self.path.push_str(&number.to_string());
        Key::Good
    }

    fn text(&self, handle: Handle) -> Option<&'a str> {
        let pickle = self.pickle;
        match self.arena.node(handle) {
            Node::Str(span) if span.len as usize <= MAX_NAME => {
                std::str::from_utf8(&pickle[span.range()]).ok()
            }
            _ => None,
        }
    }

    /// Meets a value, whose path is `self.path`.
    fn value(&mut self, value: Handle, key: Key) -> Result<()> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(Diagnostic::input(format!(
                "the checkpoint holds more than {MAX_VISITS} values, shared ones counted each time"
            )));
        }
        match self.arena.node(value) {
            Node::Tensor(tensor) => self.tensor(tensor, key),
            Node::List(_) | Node::Dict(_) | Node::Tuple(_) => self.enter(value, key),
            _ => {
                let holds_tensors = self.arena.facts(value).tensor;
                if let Some(group) = self.group() {
                    group.others += 1;
                    group.closed |= holds_tensors;
                }
                Ok(())
            }
        }
    }

    /// The group of the innermost container, if it may be a state_dict.
    fn group(&mut self) -> Option<&mut Group> {
        let group = self.frames.last()?.group?;
        Some(&mut self.listing.groups[group])
    }

    fn enter(&mut self, value: Handle, key: Key) -> Result<()> {
        if std::mem::replace(&mut self.open[value as usize], true) {
            // A cycle: everything in it has been met on the way here.
            return Ok(());
        }
        let depth = self.frames.len();
        if depth >= MAX_DEPTH {
            return Err(Diagnostic::input(format!(
                "objects nest deeper than {MAX_DEPTH}"
            )));
        }
        let first = self.listing.tensors.len();
        let is_dict = matches!(self.arena.node(value), Node::Dict(_));
        let group = (is_dict && key == Key::Good && depth <= GROUP_DEPTH).then(|| {
            self.listing.groups.push(Group {
                path: self.path.clone(),
                key: self.path[self.key_start..].to_owned(),
                depth,
                tensors: first..first,
                ..Group::default()
            });
            self.listing.groups.len() - 1
        });
        let next = match self.arena.node(value) {
            Node::List(chain) | Node::Dict(chain) => chain.head,
            _ => 0,
        };
        self.frames.push(Frame {
            handle: value,
            next,
            index: 0,
            path: self.path.len(),
            key,
            group,
            first,
        });
        Ok(())
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        self.open[frame.handle as usize] = false;
        let end = self.listing.tensors.len();
        if let Some(group) = frame.group {
            self.listing.groups[group].tensors = frame.first..end;
            // Keep those that matter; all later groups are inside this one and were kept.
            if frame.first == end && group + 1 == self.listing.groups.len() {
                self.listing.groups.pop();
            }
        }
        if let Some(parent) = self.group() {
            match frame.first == end {
                true => parent.others += 1,
                false => parent.nested += 1,
            }
        }
    }

    fn tensor(&mut self, tensor: u32, key: Key) -> Result<()> {
        match key {
            Key::Good if self.path.len() <= MAX_NAME => {}
            Key::Other => {
                self.unnamed += 1;
                return Ok(());
            }
            _ => {
                return Err(Diagnostic::input(
                    "the key of a tensor is longer than 1 KiB, not UTF-8, or holds control \
                     characters",
                ));
            }
        }
        if self.listing.tensors.len() >= MAX_TENSORS {
            return Err(Diagnostic::input(format!(
                "the checkpoint holds more than {MAX_TENSORS} tensors"
            )));
        }
        let raw = self.arena.tensors[tensor as usize];
        let record = self.record_of[raw.storage as usize];
        self.reading = self.reading.saturating_add(self.cost(raw, record));
        self.last_record = Some(record);
        let RawTensor { dims, rank, .. } = raw;
        let (dims, rank) = (dims as usize, usize::from(rank));
        let sizes = |from: usize| {
            let dims = &self.arena.dims[from..from + rank];
            dims.iter().map(|&size| size as usize).collect::<Vec<_>>()
        };
        let shape = sizes(dims);
        let mut strides = sizes(dims + rank);
        for (stride, &size) in strides.iter_mut().zip(&shape) {
            // No step is ever taken along such an axis, and its stride may be anything.
            if size <= 1 {
                *stride = 0;
            }
        }
        let view = View {
            source: self.source.clone(),
            record,
            offset: raw.offset as usize * raw.dtype.size(),
            strides,
        };
        let tensor = Tensor::stored(self.path.clone(), raw.dtype, shape, view);
        self.listing.tensors.push(tensor);
        if let Some(group) = self.group() {
            group.direct += 1;
        }
        Ok(())
    }

    /// Bytes touched to read a tensor: its own, and those of a deflated record that has to be
    /// inflated for it.
    fn cost(&self, raw: RawTensor, record: usize) -> u64 {
        let own = raw.numel * raw.dtype.size() as u64;
        let row = self.source.record(record);
        match row.inflated {
            Some(size) if self.last_record != Some(record) => own.saturating_add(size as u64),
            _ => own,
        }
    }

    /// Refuses files whose tensors, taken together, repeat their storages beyond reason.
    fn check_budget(&self) -> Result<()> {
        let mut used = self.record_of.to_vec();
        used.sort_unstable();
        used.dedup();
        let records = used
            .iter()
            .map(|&record| self.source.record(record).len() as u64);
        let stored = records.fold(0, u64::saturating_add);
        let limit = stored.saturating_mul(MAX_REREADS).max(MAX_EXPANDED);
        match self.reading > limit {
            true => Err(Diagnostic::input(format!(
                "the tensors repeat their storages beyond reason: {} bytes from {stored}",
                self.reading
            ))),
            false => Ok(()),
        }
    }

    // Describing what is beside the tensors

    fn describe_root(&mut self, root: Handle) {
        let chain = match self.arena.node(root) {
            Node::Dict(chain) => chain,
            Node::Tensor(_) => return,
            _ => {
                let description = self.describe(root);
                self.push_entry("(root)", description);
                return;
            }
        };
        let entries: Vec<_> = self.arena.links(chain).collect();
        let others = entries.into_iter();
        let mut others =
            others.filter(|link| !matches!(self.arena.node(link.value), Node::Tensor(_)));
        let shown: Vec<_> = others.by_ref().take(MAX_ENTRIES).collect();
        let rest = others.count();
        for link in shown {
            let key = match (self.arena.node(link.key), self.text(link.key)) {
                (_, Some(text)) => shorten(text),
                (Node::Int(number), _) => number.to_string(),
                _ => self.describe(link.key),
            };
            let description = self.describe(link.value);
            self.push_entry(&key, description);
        }
        if rest > 0 {
            self.push_entry("(more)", format!("{rest} further entries"));
        }
        if self.unnamed > 0 {
            let count = self.unnamed;
            self.push_entry(
                "(not listed)",
                format!("{count} tensors under keys that are neither str nor int"),
            );
        }
    }

    fn push_entry(&mut self, key: &str, description: String) {
        self.listing.entries.push(Entry {
            key: key.to_owned(),
            description,
        });
    }

    fn describe(&self, value: Handle) -> String {
        let class = |global: u32| self.arena.global_name(self.pickle, global);
        match self.arena.node(value) {
            Node::None => "None".to_owned(),
            Node::Bool(true) => "True".to_owned(),
            Node::Bool(false) => "False".to_owned(),
            Node::Int(number) => number.to_string(),
            Node::BigInt => "an integer beyond 64 bits".to_owned(),
            Node::Float(number) => format!("{number:?}"),
            Node::Str(span) => {
                let bytes = &self.pickle[span.range()];
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]);
                format!("\"{}\"", shorten(&start))
            }
            Node::Bytes(span) => format!("{} bytes", span.len),
            Node::Tuple(span) => format!("tuple of {}", span.len),
            Node::List(chain) => format!("list of {}", chain.len),
            Node::Dict(chain) => format!("dict of {}", chain.len),
            Node::Global(global) => format!("class `{}`", class(global)),
            Node::Storage(_) => "a storage without a tensor".to_owned(),
            Node::Tensor(_) => "a tensor".to_owned(),
            Node::Inert(NAMELESS) => "a set".to_owned(),
            Node::Inert(global) => {
                let tensors = match self.arena.facts(value).tensor {
                    true => ", holding tensors that are not listed",
                    false => "",
                };
                format!("object of `{}`, not opened{tensors}", class(global))
            }
        }
    }
}

/// A text for one line of output.
fn shorten(text: &str) -> String {
    let end = text.char_indices().nth(60).map_or(text.len(), |(at, _)| at);
    let dots = if end < text.len() { "..." } else { "" };
    format!("{}{dots}", text[..end].escape_debug())
}
