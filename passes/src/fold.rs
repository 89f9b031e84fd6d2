//! Arithmetic on weights, in float64, with the checks that every fold needs.

use std::sync::Arc;

use emoc_ir::{
    Diagnostic, Graph, NodeId, Patch, Result, Value, Weight,
    ops::{Act, Conv2d, Op},
};

/// Weights read for one fold, and whether all of them were finite.
pub(crate) struct Folder {
    finite: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { finite: true }
    }

    /// The elements of a node's weight.
    pub(crate) fn read(&mut self, graph: &Graph, id: NodeId, slot: &str) -> Result<Arc<[f64]>> {
        let node = graph.node(id);
        let key = node.weight(slot).ok_or_else(|| {
            Diagnostic::internal(format!("the weight `{slot}` is missing")).node(&node.name)
        })?;
        let values = graph.weights.get(key)?.exact().map_err(|e| e.key(key))?;
        self.finite &= values.iter().all(|x| x.is_finite());
        Ok(values)
    }

    /// The elements of an optional weight, `count` copies of `default` where it is absent.
    pub(crate) fn read_or(
        &mut self,
        graph: &Graph,
        id: NodeId,
        slot: &str,
        default: f64,
        count: usize,
    ) -> Result<Arc<[f64]>> {
        match graph.node(id).weight(slot) {
            Some(_) => self.read(graph, id, slot),
            None => Ok(vec![default; count].into()),
        }
    }

    /// Stores a result under a key derived from `key` and returns the new key.
    ///
    /// # Errors
    /// The result is not finite in float32 although every weight read was finite.
    pub(crate) fn write(
        &self,
        patch: &mut Patch,
        key: &str,
        shape: &[usize],
        values: Vec<f64>,
    ) -> Result<String> {
        if self.finite && !values.iter().all(|&x| (x as f32).is_finite()) {
            return Err(Diagnostic::input("folding overflows float32")
                .key(key)
                .help("`--passes none` compiles the network without folding"));
        }
        Ok(patch.fold_weight(key, Weight::folded(shape, values)))
    }
}

/// The attributes of a convolution node.
pub(crate) fn conv(graph: &Graph, id: NodeId) -> Option<&Conv2d> {
    match &graph.node(id).op {
        Op::Conv2d(conv) => Some(conv),
        _ => None,
    }
}

/// Whether a node is a 1x1 convolution of every pixel by itself, over all channels.
pub(crate) fn is_pointwise(graph: &Graph, id: NodeId) -> bool {
    conv(graph, id).is_some_and(|conv| {
        let pointwise = Conv2d {
            act: conv.act,
            ..Conv2d::pointwise()
        };
        *conv == pointwise && kernel(graph, id)[2..] == [1, 1]
    })
}

/// The shape of a convolution's weight.
pub(crate) fn kernel(graph: &Graph, id: NodeId) -> [usize; 4] {
    let key = graph.node(id).weight("weight").unwrap_or_default();
    let dims = graph.weights.get(key).map(Weight::dims).unwrap_or_default();
    std::array::from_fn(|axis| dims.get(axis).copied().unwrap_or(0))
}

/// The convolution that computes a value, if it has no activation and no other reader.
pub(crate) fn linear_conv_before(graph: &Graph, value: Value) -> Option<NodeId> {
    let plain = conv(graph, value.node)?.act == Act::None;
    (plain && graph.sole_user(value).is_some()).then_some(value.node)
}

/// Replaces the convolution `id` and the nodes in `with` by one convolution of the same name
/// that computes `result`: its output channels scaled by `scale`, then shifted by `shift`.
pub(crate) fn scale_outputs(
    graph: &mut Graph,
    id: NodeId,
    with: NodeId,
    mut folder: Folder,
    scale: &[f64],
    shift: Option<&[f64]>,
) -> Result<()> {
    let shape = kernel(graph, id);
    let weight = folder.read(graph, id, "weight")?;
    let per_output = weight.len() / shape[0];
    let weight = weight
        .iter()
        .enumerate()
        .map(|(i, w)| w * scale[i / per_output]);
    let bias = folder.read_or(graph, id, "bias", 0.0, shape[0])?;
    let bias = (0..shape[0]).map(|o| bias[o] * scale[o] + shift.map_or(0.0, |shift| shift[o]));
    let has_bias = shift.is_some() || graph.node(id).weight("bias").is_some();
    let new = NewConv {
        shape,
        weight: weight.collect(),
        bias: has_bias.then(|| bias.collect()),
    };
    replace_conv(graph, id, &[with], with.into(), &folder, new)
}

/// Weights of a convolution that takes another's place.
pub(crate) struct NewConv {
    pub(crate) shape: [usize; 4],
    pub(crate) weight: Vec<f64>,
    pub(crate) bias: Option<Vec<f64>>,
}

/// Replaces the convolution `id` by one with new weights, under its name, reading what the first
/// of the replaced nodes read; `others` go with it, and readers of `result` read the new one.
pub(crate) fn replace_conv(
    graph: &mut Graph,
    id: NodeId,
    others: &[NodeId],
    result: Value,
    folder: &Folder,
    new: NewConv,
) -> Result<()> {
    let node = graph.node(id).clone();
    let removed: Vec<_> = [id].into_iter().chain(others.iter().copied()).collect();
    let inside = |value: &Value| removed.contains(&value.node);
    let reads = removed.iter().flat_map(|&id| graph.operands(id));
    let input: Vec<_> = reads.filter(|value| !inside(value)).take(1).collect();
    let mut patch = Patch::replacing(graph, &removed);
    let key = node.weight("weight").unwrap_or_default();
    let weight = folder.write(&mut patch, key, &new.shape, new.weight)?;
    let mut keys = vec![("weight", weight)];
    if let Some(bias) = new.bias {
        let key = format!("{}.bias", node.name);
        let key = node.weight("bias").unwrap_or(&key);
        keys.push(("bias", folder.write(&mut patch, key, &[bias.len()], bias)?));
    }
    let keys: Vec<_> = keys
        .iter()
        .map(|(slot, key)| (*slot, key.as_str()))
        .collect();
    let replacement = patch.add(&node.name, node.op, &input, &keys)?;
    patch.redirect(result, replacement);
    patch.finish()
}

/// Whether no value of the matched nodes is read outside them, except those of `result`.
pub(crate) fn is_closed(graph: &Graph, matched: &[NodeId], result: NodeId) -> bool {
    let inner = matched.iter().filter(|&&id| id != result);
    inner.into_iter().all(|&node| {
        let outputs = graph.node(node).outputs.len();
        (0..outputs)
            .map(|output| Value { node, output })
            .all(|value| {
                let users = graph.users(value);
                !graph.is_output(value) && users.iter().all(|user| matched.contains(user))
            })
    })
}

/// Runs `rewrite` on every node that is still there; it returns whether it fired.
pub(crate) fn for_each_node(
    graph: &mut Graph,
    mut rewrite: impl FnMut(&mut Graph, NodeId) -> Result<bool>,
) -> Result<usize> {
    let mut fired = 0;
    for id in graph.topological_order() {
        if graph.contains(id) && rewrite(graph, id)? {
            fired += 1;
        }
    }
    Ok(fired)
}

/// Replaces every match of `find`, users before their operands.
pub(crate) fn replace_backward<Match>(
    graph: &mut Graph,
    find: impl Fn(&Graph, NodeId) -> Option<Match>,
    replace: impl Fn(&mut Graph, NodeId, Match) -> Result<()>,
) -> Result<usize> {
    let mut fired = 0;
    for id in graph.topological_order().into_iter().rev() {
        if !graph.contains(id) {
            continue;
        }
        if let Some(found) = find(graph, id) {
            replace(graph, id, found)?;
            fired += 1;
        }
    }
    Ok(fired)
}
