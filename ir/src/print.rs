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
//! A slot alone stands for the weight `<node>.<slot>`; any other key is spelt `slot=@key`.

use std::fmt;

use crate::{
    Graph, Node, NodeId, Value,
    ops::{AttributeValue, to_text},
    tensor_type::list,
};

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
        write!(f, "  %{} = {mnemonic}", node.name)?;
        let operands = self.operands(id);
        if !operands.is_empty() {
            let operands: Vec<_> = operands
                .into_iter()
                .map(|value| self.spell(value))
                .collect();
            write!(f, "({})", operands.join(", "))?;
        }
        let slots: Vec<_> = node
            .op
            .slots()
            .iter()
            .filter_map(|slot| spell_weight(node, slot.name))
            .collect();
        if !slots.is_empty() {
            write!(f, " [{}]", slots.join(", "))?;
        }
        for (name, value) in attributes {
            write!(f, " {name}={value}")?;
        }
        writeln!(f, " : {}", list(&node.outputs))
    }
}

fn spell_weight(node: &Node, slot: &str) -> Option<String> {
    let key = node.weight(slot)?;
    let own = key
        .strip_prefix(&node.name)
        .and_then(|rest| rest.strip_prefix('.'));
    Some(match own {
        Some(own) if own == slot => slot.to_string(),
        _ => format!("{slot}=@{key}"),
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
