//! The text form `.emir`, written for people and read back by [`parse`](crate::parse).
//!
//! ```text
//! graph emov2_1m_224 {
//!   %input = input : f32[N, 3, 224, 224]
//!
//!   // stage0
//!   %stage0.0.conv = conv2d(%input) [weight, bias] stride=2 padding=1 : f32[N, 16, 112, 112]
//!   ...
//!   return logits = %head
//! }
//!
//! weights {
//!   @stage0.0.conv.weight : f32[16, 3, 3, 3] 52fdfc072182
//! }
//! ```
//!
//! A node reads: its name, the op with its operands, the slots of its weights, attributes that
//! differ from their defaults, and the types of its results. `%node#1` is a node's second result.
//!
//! A weight's key is spelt as briefly as it can be. A slot alone stands for the key
//! `<node>.<slot>`, `slot=.rest` for `<node>.rest`, and `slot=@key` for any key in full; the
//! parser takes each of them everywhere. Where a line would be long, the slots that belong
//! together have a line of their own: a statement goes on until its brackets are closed.
//!
//! ```text
//!   %stage4.0 = i2rmb(%stage3.7) [
//!     expand.weight=.eops.0.net.conv.weight.folded, expand.bias=.eops.0.net.conv.bias.folded,
//!     local.weight=.conv_local.conv.weight.folded, local.bias=.conv_local.conv.bias.folded,
//!     proj.weight=.proj.conv.weight.folded
//!   ] eps=1e-6 act=gelu stride=2 padding=2 local_act=silu : f32[N, 180, 7, 7]
//! ```

use std::fmt::{self, Write as _};

use crate::{
    Graph, Node, NodeId, Value,
    ops::{AttributeValue, to_text},
    tensor_type::list,
};

/// A node on a longer line is broken at its weights.
const WIDTH: usize = 150;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {} {{", self.name)?;
        let mut section = None;
        for id in self.topological_order() {
            let stage = self.node(id).name.split('.').next();
            let stage = stage.filter(|first| first.starts_with("stage"));
            if stage != section {
                writeln!(f)?;
                if let Some(stage) = stage {
                    writeln!(f, "  // {stage}")?;
                }
                section = stage;
            }
            self.write_node(f, id)?;
        }
        writeln!(f)?;
        for output in self.outputs() {
            writeln!(f, "  return {} = {}", output.name, self.spell(output.value))?;
        }
        writeln!(f, "}}")?;
        if self.weights.iter().next().is_some() {
            writeln!(f, "\nweights {{")?;
            for (key, weight) in self.weights.iter() {
                write!(f, "  @{key} : {}", weight.ty())?;
                if let Some(digest) = weight.digest().ok().flatten() {
                    write!(f, " {digest}")?;
                }
                writeln!(f)?;
            }
            writeln!(f, "}}")?;
        }
        Ok(())
    }
}

impl Graph {
    fn spell(&self, value: Value) -> String {
        let name = &self.node(value.node).name;
        match value.output {
            0 => format!("%{name}"),
            output => format!("%{name}#{output}"),
        }
    }

    fn write_node(&self, f: &mut fmt::Formatter<'_>, id: NodeId) -> fmt::Result {
        let node = self.node(id);
        let (mnemonic, attributes) = to_text(&node.op);
        let mut head = format!("  %{} = {mnemonic}", node.name);
        let operands = self.operands(id);
        if !operands.is_empty() {
            let operands: Vec<_> = operands
                .into_iter()
                .map(|value| self.spell(value))
                .collect();
            let _ = write!(head, "({})", operands.join(", "));
        }
        let mut rest = String::new();
        for (name, value) in attributes {
            let _ = write!(rest, " {name}={value}");
        }
        let _ = write!(rest, " : {}", list(&node.outputs));
        writeln!(
            f,
            "{head}{}{rest}",
            weights_list(node, head.len() + rest.len())
        )
    }
}

/// The weights of a node in brackets, on a line or several by what else is on the line.
fn weights_list(node: &Node, others: usize) -> String {
    let slots = node.op.slots().iter();
    let slots: Vec<_> = slots
        .filter_map(|slot| Some((slot.name, spell_weight(node, slot.name)?)))
        .collect();
    let join = |slots: &[(&str, String)]| {
        let spelt: Vec<_> = slots.iter().map(|(_, spelt)| spelt.as_str()).collect();
        spelt.join(", ")
    };
    if slots.is_empty() {
        return String::new();
    }
    let line = format!(" [{}]", join(&slots));
    if others + line.len() <= WIDTH {
        return line;
    }
    // `qk.weight` and `qk.bias` are of one part.
    let part = |name: &'static str| name.split_once('.').map(|(part, _)| part);
    let lines = slots.chunk_by(|a, b| part(a.0) == part(b.0)).map(join);
    format!(" [\n    {}\n  ]", lines.collect::<Vec<_>>().join(",\n    "))
}

fn spell_weight(node: &Node, slot: &str) -> Option<String> {
    let key = node.weight(slot)?;
    let rest = key.strip_prefix(&node.name);
    Some(match rest.and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) if rest == slot => slot.to_string(),
        Some(rest) => format!("{slot}=.{rest}"),
        None => format!("{slot}=@{key}"),
    })
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttributeValue::Int(n) => write!(f, "{n}"),
            // Debug prints the shortest digits that read back to the same float64.
            AttributeValue::Float(x) => write!(f, "{x:?}"),
            AttributeValue::Ints(ints) => {
                let ints: Vec<_> = ints.iter().map(ToString::to_string).collect();
                f.write_str(&ints.join("x"))
            }
            AttributeValue::Word(word) => f.write_str(word),
        }
    }
}
