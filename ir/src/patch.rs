//! The only way to edit a graph.
//!
//! A [`Patch`] is written against a graph, may add nodes, redirects values and removes nodes,
//! and is applied whole: every redirected value keeps its type, and no removed node's value is
//! still read.

use crate::{Diagnostic, Graph, NodeId, Result, Value, ops::Op, weights::Weight};

/// An edit in progress. Dropping it without [`Patch::finish`] leaves the graph half edited, so
/// passes propagate errors and the graph is discarded with them.
#[must_use = "a patch takes effect through `finish`"]
pub struct Patch<'g> {
    graph: &'g mut Graph,
    removed: Vec<NodeId>,
    redirected: Vec<(Value, Value)>,
    /// Keys of weights that may be unused afterwards.
    weights: Vec<String>,
}

impl<'g> Patch<'g> {
    /// Starts an edit that replaces the nodes in `removed`; their names are free at once.
    pub fn replacing(graph: &'g mut Graph, removed: &[NodeId]) -> Self {
        let mut weights = Vec::new();
        for &id in removed {
            let node = graph.node(id);
            let name = format!("{}~", node.name);
            weights.extend(node.weights.values().cloned());
            graph.rename(id, name);
        }
        Self {
            graph,
            removed: removed.to_vec(),
            redirected: Vec::new(),
            weights,
        }
    }

    /// The graph as it stands.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// Adds a node; see [`Graph::add`].
    ///
    /// # Errors
    /// Those of [`Graph::add`].
    pub fn add(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[Value],
        weights: &[(&str, &str)],
    ) -> Result<NodeId> {
        self.graph.add(name, op, inputs, weights)
    }

    /// Adds a weight computed from the weight `key` and returns its key: the old one with
    /// `.folded`, so that a reader sees it is no longer the checkpoint's tensor. A weight that
    /// only the replaced nodes use is overwritten, any other kept.
    pub fn fold_weight(&mut self, key: &str, weight: Weight) -> String {
        let mut folded = format!("{}{FOLDED}", key.strip_suffix(FOLDED).unwrap_or(key));
        let kept = |graph: &Graph, removed: &[NodeId], key: &str| {
            let users = graph.weight_users(key);
            users.iter().any(|user| !removed.contains(user))
        };
        while kept(self.graph, &self.removed, &folded) {
            folded.push_str(FOLDED);
        }
        self.graph.weights.insert(folded.clone(), weight);
        self.weights.push(folded.clone());
        folded
    }

    /// Makes the users of `from` read `to`.
    pub fn redirect(&mut self, from: impl Into<Value>, to: impl Into<Value>) {
        self.redirected.push((from.into(), to.into()));
    }

    /// Applies the edit.
    ///
    /// # Errors
    /// A redirected value changes its type, an input is removed, or a removed node's value would
    /// still be read.
    pub fn finish(self) -> Result<()> {
        let graph = self.graph;
        for &(from, to) in &self.redirected {
            let (old, new) = (graph.ty(from), graph.ty(to));
            if old != new {
                return Err(Diagnostic::internal(format!(
                    "a patch replaces a value of type {old} by one of type {new}"
                ))
                .node(&graph.node(to.node).name));
            }
            graph.redirect(from, to);
        }
        for &id in &self.removed {
            let node = graph.node(id);
            let name = node.name.trim_end_matches('~');
            if node.op == Op::Input {
                return Err(Diagnostic::internal("a patch removes an input").node(name));
            }
            let values = (0..node.outputs.len()).map(|output| Value { node: id, output });
            for value in values {
                let escapes = |user: &NodeId| !self.removed.contains(user);
                if graph.is_output(value) || graph.users(value).iter().any(escapes) {
                    return Err(Diagnostic::internal(
                        "a patch removes a node whose value is still read",
                    )
                    .node(name));
                }
            }
        }
        for id in self.removed {
            graph.remove(id);
        }
        for key in self.weights {
            if graph.weight_users(&key).is_empty() {
                graph.weights.remove(&key);
            }
        }
        Ok(())
    }
}

/// Marks the key of a weight that a pass computed.
const FOLDED: &str = ".folded";
