//! The dataflow graph: named nodes over a [`StableDiGraph`], values between them, weights by key.

use std::collections::{BTreeMap, HashMap, HashSet};

use petgraph::{
    Direction,
    stable_graph::{NodeIndex, StableDiGraph},
    visit::EdgeRef,
};

use crate::{
    Diagnostic, Result, TensorType,
    ops::{Op, WeightTypes, check_type, to_text},
    weights::Weights,
};

/// Identifies a node for as long as the node is in its graph.
pub type NodeId = NodeIndex<u32>;

/// One output of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub output: usize,
}

impl From<NodeId> for Value {
    fn from(node: NodeId) -> Self {
        let output = 0;
        Self { node, output }
    }
}

/// An operation applied to values and weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The PyTorch module path, unique in the graph.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Weight keys by slot (see [`Op::slots`]).
    pub weights: BTreeMap<&'static str, String>,
    /// Types of the outputs.
    pub outputs: Vec<TensorType>,
}

impl Node {
    /// The key of the weight in a slot.
    pub fn weight(&self, slot: &str) -> Option<&str> {
        self.weights.get(slot).map(String::as_str)
    }

    /// All weights as the `(slot, key)` pairs that [`Graph::add`] takes.
    pub fn weight_pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.weights.iter();
        pairs.map(|(slot, key)| (*slot, key.as_str())).collect()
    }
}

/// Data flow from one node's output to another's input.
#[derive(Debug, Clone, Copy)]
struct Edge {
    output: usize,
    input: usize,
}

/// A named result of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name in every artifact, for example `logits`.
    pub name: String,
    /// The value.
    pub value: Value,
}

/// A typed dataflow graph.
///
/// Nodes are added in topological order, so a graph cannot hold a cycle until a
/// [`Patch`](crate::Patch) rewires it; the verifier checks all invariants.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Short name, for example `emov2_5m_224`.
    pub name: String,
    dag: StableDiGraph<Node, Edge>,
    by_name: HashMap<String, NodeId>,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    /// Constant tensors by key.
    pub weights: Weights,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            dag: StableDiGraph::new(),
            by_name: HashMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            weights: Weights::default(),
        }
    }

    /// Adds an input.
    ///
    /// # Errors
    /// The name is taken, or no value can have the type.
    pub fn add_input(&mut self, name: &str, ty: TensorType) -> Result<Value> {
        check_type(&ty)
            .map_err(|why| Diagnostic::input(format!("an input's type {why}")).node(name))?;
        let id = self.insert(Node {
            name: name.into(),
            op: Op::Input,
            weights: BTreeMap::new(),
            outputs: vec![ty],
        })?;
        self.inputs.push(id);
        Ok(id.into())
    }

    /// Adds a node and infers its output types. Weights are `(slot, key)` pairs.
    ///
    /// # Errors
    /// The name is taken, a slot or key is unknown, or the operands do not fit the op.
    ///
    /// # Panics
    /// If an operand is not a value of this graph.
    pub fn add(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[Value],
        weights: &[(&str, &str)],
    ) -> Result<NodeId> {
        let mut keys = BTreeMap::new();
        for &(slot, key) in weights {
            let known = op.slots().iter().find(|known| known.name == slot);
            let inserted = known.map(|known| keys.insert(known.name, key.to_string()));
            let fault = match inserted {
                None => "takes no weight",
                Some(Some(_)) => "is given twice the weight",
                Some(None) => continue,
            };
            let (mnemonic, _) = to_text(&op);
            return Err(Diagnostic::input(format!("{mnemonic} {fault} `{slot}`")).node(name));
        }
        let node = Node {
            name: name.into(),
            outputs: Vec::new(),
            weights: keys,
            op,
        };
        let outputs = self.infer(&node, inputs)?;
        let id = self.insert(Node { outputs, ..node })?;
        for (input, value) in inputs.iter().enumerate() {
            let output = value.output;
            self.dag.add_edge(value.node, id, Edge { output, input });
        }
        Ok(id)
    }

    fn insert(&mut self, node: Node) -> Result<NodeId> {
        if self.by_name.contains_key(&node.name) {
            return Err(Diagnostic::input("two nodes have the same name").node(node.name));
        }
        let name = node.name.clone();
        let id = self.dag.add_node(node);
        self.by_name.insert(name, id);
        Ok(id)
    }

    /// The output types that `node` would have on these inputs.
    ///
    /// # Errors
    /// The operands do not fit the op.
    pub fn infer(&self, node: &Node, inputs: &[Value]) -> Result<Vec<TensorType>> {
        let types: Vec<_> = inputs.iter().map(|&value| self.ty(value)).collect();
        let weights = self.weight_types(node)?;
        let outputs = node.op.infer(&types, &weights);
        outputs.map_err(|why| {
            let (mnemonic, _) = to_text(&node.op);
            Diagnostic::input(format!("{mnemonic} {why}")).node(&node.name)
        })
    }

    /// The types of a node's weights by slot.
    ///
    /// # Errors
    /// A key that the graph does not have.
    pub fn weight_types(&self, node: &Node) -> Result<WeightTypes<'_>> {
        let slot_type = |(&slot, key): (&&'static str, &String)| {
            let weight = self.weights.get(key).map_err(|e| e.node(&node.name))?;
            Ok((slot, weight.ty()))
        };
        let types = node.weights.iter().map(slot_type);
        Ok(WeightTypes(types.collect::<Result<_>>()?))
    }

    /// Declares a result.
    pub fn add_output(&mut self, name: &str, value: impl Into<Value>) {
        self.outputs.push(Output {
            name: name.into(),
            value: value.into(),
        });
    }

    /// The inputs in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// The results in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The node with this id.
    ///
    /// # Panics
    /// If the node was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.dag[id]
    }

    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.dag.contains_node(id)
    }

    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// Number of nodes, inputs included.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether the graph has no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All nodes in order of their ids: the order of insertion, but for the ids of removed nodes,
    /// which later nodes take.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.dag.node_indices()
    }

    /// The type of a value.
    ///
    /// # Panics
    /// If the value is not in the graph.
    pub fn ty(&self, value: impl Into<Value>) -> &TensorType {
        let value = value.into();
        &self.dag[value.node].outputs[value.output]
    }

    /// The values a node reads, in order.
    pub fn operands(&self, id: NodeId) -> Vec<Value> {
        let mut operands: Vec<_> = self
            .dag
            .edges_directed(id, Direction::Incoming)
            .map(|edge| {
                let (node, output) = (edge.source(), edge.weight().output);
                (edge.weight().input, Value { node, output })
            })
            .collect();
        operands.sort_unstable();
        operands.into_iter().map(|(_, value)| value).collect()
    }

    /// The nodes that read a value, each as often as it reads it, in order of ids.
    pub fn users(&self, value: impl Into<Value>) -> Vec<NodeId> {
        let value = value.into();
        let mut users: Vec<_> = self
            .dag
            .edges_directed(value.node, Direction::Outgoing)
            .filter(|edge| edge.weight().output == value.output)
            .map(|edge| edge.target())
            .collect();
        users.sort_unstable();
        users
    }

    /// Whether the value is a result of the graph.
    pub fn is_output(&self, value: impl Into<Value>) -> bool {
        let value = value.into();
        self.outputs.iter().any(|output| output.value == value)
    }

    /// The only reader of a value that is not itself a result of the graph.
    pub fn sole_user(&self, value: impl Into<Value>) -> Option<NodeId> {
        let value = value.into();
        match self.users(value)[..] {
            [user] if !self.is_output(value) => Some(user),
            _ => None,
        }
    }

    /// All nodes, operands before their users: depth first from the results, then whatever the
    /// results do not need. The order depends on structure and insertion alone.
    ///
    /// In a graph with a cycle some node comes before its operand; the verifier reports that.
    pub fn topological_order(&self) -> Vec<NodeId> {
        let mut order = Vec::with_capacity(self.len());
        let mut seen = HashSet::new();
        let results = self.outputs.iter().map(|output| output.value.node);
        let roots: Vec<_> = self.inputs.iter().copied().chain(results).collect();
        for root in roots.into_iter().chain(self.ids()) {
            let mut stack = vec![(root, false)];
            while let Some((id, operands_done)) = stack.pop() {
                if operands_done {
                    order.push(id);
                } else if seen.insert(id) {
                    stack.push((id, true));
                    let operands = self.operands(id);
                    stack.extend(operands.iter().rev().map(|value| (value.node, false)));
                }
            }
        }
        order
    }

    /// The last value of every block (`stage1.0`) or of the stem's parts, in topological order:
    /// where two versions of a graph can be compared. Nodes outside any stage are left out.
    pub fn block_outputs(&self) -> Vec<(String, Value)> {
        let mut blocks: Vec<(String, Value)> = Vec::new();
        for id in self.topological_order() {
            let mut path = self.node(id).name.splitn(3, '.');
            let (Some(stage), Some(block)) = (path.next(), path.next()) else {
                continue;
            };
            if !stage.starts_with("stage") {
                continue;
            }
            let name = format!("{stage}.{block}");
            blocks.retain(|(known, _)| *known != name);
            blocks.push((name, id.into()));
        }
        blocks
    }

    /// Makes the users of `from` read `to` instead, except `to` itself; results follow.
    pub(crate) fn redirect(&mut self, from: Value, to: Value) {
        let edges: Vec<_> = self
            .dag
            .edges_directed(from.node, Direction::Outgoing)
            .filter(|edge| edge.weight().output == from.output && edge.target() != to.node)
            .map(|edge| (edge.id(), edge.target(), edge.weight().input))
            .collect();
        for (edge, user, input) in edges {
            let output = to.output;
            self.dag.remove_edge(edge);
            self.dag.add_edge(to.node, user, Edge { output, input });
        }
        for output in self.outputs.iter_mut().filter(|o| o.value == from) {
            output.value = to;
        }
    }

    /// Removes a node and the edges that enter or leave it.
    pub(crate) fn remove(&mut self, id: NodeId) {
        if let Some(node) = self.dag.remove_node(id) {
            self.by_name.remove(&node.name);
        }
    }

    /// Frees a node's name for its replacement.
    pub(crate) fn rename(&mut self, id: NodeId, name: String) {
        let old = std::mem::replace(&mut self.dag[id].name, name.clone());
        self.by_name.remove(&old);
        self.by_name.insert(name, id);
    }

    /// The nodes that use a weight, in order of ids.
    pub fn weight_users(&self, key: &str) -> Vec<NodeId> {
        let uses = |id: &NodeId| self.dag[*id].weights.values().any(|used| used == key);
        self.ids().filter(uses).collect()
    }
}

/// Structural equality: the same nodes, operands, types and weights under the same names, inputs
/// and results in the same order, whatever the ids. Weights are compared by type and digest.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        let inputs = |graph: &Graph| -> Vec<_> {
            let name = |&id: &NodeId| graph.node(id).name.clone();
            graph.inputs.iter().map(name).collect()
        };
        let outputs = |graph: &Graph| -> Vec<_> {
            let named = |o: &Output| (o.name.clone(), graph.value_name(o.value));
            graph.outputs.iter().map(named).collect()
        };
        let nodes = |graph: &Graph| -> BTreeMap<String, (Node, Vec<(String, usize)>)> {
            let row = |id| {
                let operands = graph.operands(id).into_iter();
                let operands = operands.map(|value| graph.value_name(value)).collect();
                let node = graph.node(id).clone();
                (node.name.clone(), (node, operands))
            };
            graph.ids().map(row).collect()
        };
        self.name == other.name
            && inputs(self) == inputs(other)
            && outputs(self) == outputs(other)
            && nodes(self) == nodes(other)
            && self.weights == other.weights
    }
}

impl Graph {
    fn value_name(&self, value: Value) -> (String, usize) {
        (self.node(value.node).name.clone(), value.output)
    }
}
