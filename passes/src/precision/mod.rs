//! Float16: which nodes compute in it, and where the casts are.
//!
//! Unlike the passes of the pipeline this one is not exact, so it runs last and only where it is
//! asked for. It works on parts: the stem (`stage0`), each block (`stage3.1`), and what follows
//! the last block (`head`). A part is narrow, with float16 weights and values, or an *island* of
//! float32; an attention's softmax is an island of its own inside a narrow block. Statistics of
//! LayerNorm are float32 everywhere. A cast stands on every value that crosses a border, once for
//! all its readers; the graph's inputs and results stay float32.

mod choose;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use emoc_ir::{
    DType, Graph, Node, NodeId, Result, Value, Verified,
    ops::{Mixer, Op},
};

pub use choose::{Choice, Gain, choose};

/// The part with the convolutions before the first block.
const STEM: &str = "stage0";
/// The part after the last block.
const HEAD: &str = "head";

/// Something that stays float32.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Island {
    /// A whole part.
    Part(String),
    /// The softmax of a block's attention.
    Softmax(String),
}

/// What a softmax is called, before the name of its part.
const SOFTMAX_OF: &str = "softmax of ";

impl Island {
    /// The island that is displayed like this.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix(SOFTMAX_OF) {
            Some(part) => Island::Softmax(part.into()),
            None => Island::Part(text.into()),
        }
    }
}

impl fmt::Display for Island {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Island::Part(part) => f.write_str(part),
            Island::Softmax(part) => write!(f, "{SOFTMAX_OF}{part}"),
        }
    }
}

/// A set of islands.
pub type Islands = BTreeSet<Island>;

/// Everything that could be an island, in the order of the graph.
pub fn candidates(graph: &Graph) -> Vec<Island> {
    let mut all = Vec::new();
    for id in graph.topological_order() {
        let node = graph.node(id);
        if node.op == Op::Input {
            continue;
        }
        let part = part(&node.name);
        let softmax = has_softmax(&node.op).then(|| Island::Softmax(part.clone()));
        for island in softmax.into_iter().chain([Island::Part(part)]) {
            if !all.contains(&island) {
                all.push(island);
            }
        }
    }
    all
}

/// The islands that cost little and that float16 needs most: the stem, whose few weights make
/// most of the error, every softmax, and the last norm, pool and classifier.
pub fn standard(graph: &Graph) -> Islands {
    let wanted = |island: &Island| match island {
        Island::Part(part) => [STEM, HEAD].contains(&&**part),
        Island::Softmax(_) => true,
    };
    candidates(graph).into_iter().filter(wanted).collect()
}

/// A graph in float16.
#[derive(Debug)]
pub struct Narrowed {
    /// The graph.
    pub graph: Verified,
    /// What stays float32: the islands asked for, and parts with weights that float16 cannot
    /// hold.
    pub islands: Islands,
    /// Keys of weights that are beyond float16's range, which ends at 65504.
    pub overflowing: Vec<String>,
    /// Weights of which some elements are nothing in float16 although they are not 0.
    pub flushed: Vec<Flushed>,
}

/// A weight with elements too small for float16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// Its key.
    pub key: String,
    /// How many become 0.
    pub elements: usize,
    /// Out of how many.
    pub of: usize,
}

/// The graph with float16 weights and values outside of `islands`.
///
/// # Errors
/// A weight that cannot be read.
pub fn to_f16(graph: &Verified, islands: &Islands) -> Result<Narrowed> {
    let (overflowing, forced) = overflowing(graph)?;
    let islands: Islands = islands.iter().cloned().chain(forced).collect();
    let mut narrowing = Narrowing {
        graph,
        islands: &islands,
        narrow: Graph::new(&graph.name),
        values: BTreeMap::new(),
        flushed: BTreeMap::new(),
    };
    for id in graph.topological_order() {
        narrowing.node(id)?;
    }
    for output in graph.outputs() {
        let value = narrowing.read(output.value, DType::F32)?;
        narrowing.narrow.add_output(&output.name, value);
    }
    let Narrowing {
        narrow, flushed, ..
    } = narrowing;
    Ok(Narrowed {
        graph: narrow.verify()?,
        islands,
        overflowing,
        flushed: flushed.into_values().collect(),
    })
}

/// The part a node is in, by its module path.
fn part(name: &str) -> String {
    let mut path = name.splitn(3, '.');
    match (path.next(), path.next()) {
        (Some(STEM), _) => STEM.into(),
        (Some(stage), Some(block)) if stage.starts_with("stage") => format!("{stage}.{block}"),
        _ => HEAD.into(),
    }
}

fn has_softmax(op: &Op) -> bool {
    match op {
        Op::I2Rmb(block) => matches!(block.mixer, Mixer::Attention(_)),
        op => matches!(op, Op::Softmax | Op::WindowAttention(_)),
    }
}

/// Keys of weights beyond float16's range, and the parts that they keep wide.
fn overflowing(graph: &Graph) -> Result<(Vec<String>, Islands)> {
    let (mut keys, mut parts) = (Vec::new(), Islands::new());
    for (key, weight) in graph.weights.iter() {
        let cast = weight.cast(DType::F16).map_err(|e| e.key(key))?;
        if cast.values()?.iter().any(|x| x.is_infinite()) {
            keys.push(key.to_owned());
            let users = graph.weight_users(key).into_iter();
            parts.extend(users.map(|id| Island::Part(part(&graph.node(id).name))));
        }
    }
    Ok((keys, parts))
}

/// A graph in the making.
struct Narrowing<'a> {
    graph: &'a Graph,
    islands: &'a Islands,
    narrow: Graph,
    /// Where the values of `graph` are, by element type: as computed, and cast.
    values: BTreeMap<(Value, DType), Value>,
    flushed: BTreeMap<String, Flushed>,
}

impl Narrowing<'_> {
    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        if node.op == Op::Input {
            let value = self.narrow.add_input(&node.name, node.outputs[0].clone())?;
            self.values.insert((id.into(), DType::F32), value);
            return Ok(());
        }
        let part = part(&node.name);
        let keeps_softmax = self.islands.contains(&Island::Softmax(part.clone()));
        let wide =
            self.islands.contains(&Island::Part(part)) || node.op == Op::Softmax && keeps_softmax;
        let dtype = if wide { DType::F32 } else { DType::F16 };
        let operands = self.graph.operands(id).into_iter();
        let operands = operands.map(|value| self.read(value, dtype));
        let operands: Vec<_> = operands.collect::<Result<_>>()?;
        let keys = self.weights(node, dtype)?;
        let keys: Vec<_> = keys.iter().map(|(slot, key)| (*slot, &**key)).collect();
        let op = with_softmax(&node.op, !wide && !keeps_softmax);
        let copy = self.narrow.add(&node.name, op, &operands, &keys)?;
        for output in 0..node.outputs.len() {
            let (from, to) = (Value { node: id, output }, Value { node: copy, output });
            self.values.insert((from, dtype), to);
        }
        Ok(())
    }

    /// The value in an element type, cast if it has another.
    fn read(&mut self, value: Value, dtype: DType) -> Result<Value> {
        if let Some(&known) = self.values.get(&(value, dtype)) {
            return Ok(known);
        }
        let other = match dtype {
            DType::F32 => DType::F16,
            _ => DType::F32,
        };
        let name = &self.graph.node(value.node).name;
        let output = match value.output {
            0 => String::new(),
            output => format!("{output}."),
        };
        // Not `<module>.cast`: a cast is no part of the module, nor the end of its block.
        let name = format!("cast.{name}.{output}{}", dtype.name().to_lowercase());
        let op = Op::Cast { to: dtype };
        let cast = self
            .narrow
            .add(&name, op, &[self.values[&(value, other)]], &[])?;
        self.values.insert((value, dtype), cast.into());
        Ok(cast.into())
    }

    /// Adds a node's weights to the graph; slots and keys.
    fn weights(&mut self, node: &Node, dtype: DType) -> Result<Vec<(&'static str, String)>> {
        let mut keys = Vec::new();
        for slot in node.op.slots() {
            let Some(key) = node.weight(slot.name) else {
                continue;
            };
            let weight = self.graph.weights.get(key)?;
            let (key, weight) = match dtype {
                DType::F16 => {
                    let narrow = weight.cast(dtype).map_err(|e| e.key(key))?;
                    self.count_flushed(key, &weight.values()?, &narrow.values()?);
                    (self.narrow_key(key), narrow)
                }
                _ => (key.to_owned(), weight.clone()),
            };
            self.narrow.weights.insert(&key, weight);
            keys.push((slot.name, key));
        }
        Ok(keys)
    }

    /// Another key where an island uses the weight too.
    fn narrow_key(&self, key: &str) -> String {
        let is_wide = |id: &NodeId| {
            let part = part(&self.graph.node(*id).name);
            self.islands.contains(&Island::Part(part))
        };
        match self.graph.weight_users(key).iter().any(is_wide) {
            true => format!("{key}.f16"),
            false => key.to_owned(),
        }
    }

    fn count_flushed(&mut self, key: &str, wide: &[f32], narrow: &[f32]) {
        let pairs = wide.iter().zip(narrow);
        let elements = pairs.filter(|(wide, narrow)| **wide != 0.0 && **narrow == 0.0);
        let flushed = Flushed {
            key: key.to_owned(),
            elements: elements.count(),
            of: wide.len(),
        };
        if flushed.elements > 0 {
            self.flushed.insert(key.to_owned(), flushed);
        }
    }
}

/// The op with a narrow softmax or a wide one.
fn with_softmax(op: &Op, narrow: bool) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::WindowAttention(attention) => attention.narrow_softmax = narrow,
        Op::I2Rmb(block) => {
            if let Mixer::Attention(attention) = &mut block.mixer {
                attention.narrow_softmax = narrow;
            }
        }
        _ => {}
    }
    op
}
