//! Random well-typed graphs that use every op.

use emoc_ir::{
    DType, Digest, Dim, Graph, Shape, TensorType, Value, Weight,
    ops::{
        Act, Attention, Conv2d, Grouping, I2Rmb, Mixer, Norm, Op, Slot, WindowAttention, Windows,
    },
    seeded,
};
use proptest::prelude::*;

pub(crate) const ACTS: [Act; 3] = [Act::None, Act::Silu, Act::Gelu];
const ATTENTIONS: [Attention; 3] = [Attention::Close, Attention::Remote, Attention::Hybrid];

/// Which weights a generated graph has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weights {
    /// Elements for all, so that the graph can be evaluated.
    Owned,
    /// Elements for some, a digest or nothing for others.
    Mixed,
}

/// A verified graph grown by up to 24 steps.
pub(crate) fn graphs(weights: Weights) -> impl Strategy<Value = Graph> {
    let choices = proptest::collection::vec(any::<u16>(), 0..160);
    choices.prop_map(move |choices| grow(&choices, weights))
}

/// The graph that these choices lead to; what is not chosen is the first possibility.
pub(crate) fn grow(choices: &[u16], weights: Weights) -> Graph {
    let mut grower = Grower::new(choices.to_vec(), weights);
    while !grower.choices.is_empty() && grower.graph.len() < 40 {
        grower.step();
    }
    let count = 1 + grower.pick(3);
    for i in 0..count {
        let value = grower.any_value();
        let name = ["logits", "return", "graph"][i];
        grower.graph.add_output(name, value);
    }
    grower.graph
}

pub(crate) struct Grower {
    choices: Vec<u16>,
    weights: Weights,
    pub(crate) graph: Graph,
    /// Values of shape `[N, C, H, W]`.
    images: Vec<Value>,
    others: Vec<Value>,
}

impl Grower {
    pub(crate) fn new(choices: Vec<u16>, weights: Weights) -> Self {
        let mut grower = Self {
            choices,
            weights,
            graph: Graph::new("generated-1"),
            images: Vec::new(),
            others: Vec::new(),
        };
        let batches = [Dim::Fixed(1), Dim::Fixed(2), Dim::Batch(1), Dim::Batch(4)];
        let n = batches[grower.pick(4)];
        let c = [4, 8][grower.pick(2)];
        let [h, w] = [grower.size(), grower.size()];
        let ty = TensorType::f32([n, Dim::Fixed(c), h, w]);
        grower.images = vec![grower.graph.add_input("input", ty).expect("an input")];
        grower
    }

    /// A number below `n`.
    fn pick(&mut self, n: usize) -> usize {
        self.choices.pop().map_or(0, |choice| choice as usize % n)
    }

    fn flip(&mut self) -> bool {
        self.pick(2) == 1
    }

    fn size(&mut self) -> Dim {
        Dim::Fixed(4 + self.pick(5))
    }

    fn float(&mut self) -> f64 {
        [1.0, 1e-6, 0.1, 0.0, 3e7, 0.408_248_290_463_863][self.pick(6)]
    }

    fn act(&mut self) -> Act {
        ACTS[self.pick(3)]
    }

    pub(crate) fn image(&mut self) -> Value {
        let i = self.pick(self.images.len());
        self.images[self.images.len() - 1 - i]
    }

    fn any_value(&mut self) -> Value {
        let all: Vec<_> = self.images.iter().chain(&self.others).copied().collect();
        all[all.len() - 1 - self.pick(all.len())]
    }

    /// Channels, height and width of an image.
    fn chw(&self, image: Value) -> [usize; 3] {
        let shape = &self.graph.ty(image).shape;
        std::array::from_fn(|i| shape.0[i + 1].fixed().expect("a fixed axis"))
    }

    fn name(&mut self) -> String {
        let odd = [
            "stage1.0.x",
            "stage2.1.eops.0",
            "return",
            "weights",
            "-",
            ".",
            "_",
            "N",
            "0",
            "a..b",
        ];
        let name = odd[self.pick(odd.len())];
        format!("{name}{}", self.graph.len())
    }

    fn weight(&mut self, key: &str, dims: &[usize]) -> Weight {
        let owned = || Weight::owned(dims, seeded::values(key, dims, 0));
        let digest = Digest([0, 1, 0xab, 0xff, 9, 100]);
        let ty = || TensorType::f32(Shape::fixed(dims));
        match (self.weights, self.pick(3)) {
            (Weights::Owned, _) | (Weights::Mixed, 0) => owned(),
            (Weights::Mixed, 1) => Weight::declared(ty(), Some(digest)),
            (Weights::Mixed, _) => Weight::declared(ty(), None),
        }
    }

    /// Adds a node with weights of these shapes; optional ones are sometimes left out.
    pub(crate) fn node(
        &mut self,
        op: Op,
        inputs: &[Value],
        shape: impl Fn(&str) -> Vec<usize>,
    ) -> Vec<Value> {
        let name = self.name();
        let mut keys = Vec::new();
        for &Slot {
            name: slot,
            required,
        } in op.slots()
        {
            if unusable(&op, slot) || (!required && self.flip()) {
                continue;
            }
            let key = match self.pick(4) {
                0 | 1 => format!("{name}.{slot}"),
                2 => format!("{name}.inner.{slot}.folded"),
                _ => format!("elsewhere.{name}.{slot}"),
            };
            // The seeded rule makes a running variance positive by its key.
            let weight = self.weight(&key, &shape(slot));
            self.graph.weights.insert(&key, weight);
            keys.push((slot, key));
        }
        let keys: Vec<_> = keys
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let added = self.graph.add(&name, op, inputs, &keys);
        let node = added.unwrap_or_else(|e| panic!("{e}\n{}", self.graph));
        let outputs = self.graph.node(node).outputs.len();
        (0..outputs).map(|output| Value { node, output }).collect()
    }

    fn plain(&mut self, op: Op, inputs: &[Value]) -> Vec<Value> {
        self.node(op, inputs, |_| unreachable!("an op without weights"))
    }

    fn step(&mut self) {
        let x = self.image();
        let [c, h, w] = self.chw(x);
        let images = match self.pick(14) {
            0 => self.conv(x),
            1 => {
                let eps = self.float();
                self.node(Op::BatchNorm(Norm { eps }), &[x], |_| vec![c])
            }
            2 => {
                let eps = self.float();
                self.node(Op::LayerNorm(Norm { eps }), &[x], |_| vec![c])
            }
            3 => {
                let act = ACTS[1 + self.pick(2)];
                self.plain(Op::Activation(act), &[x])
            }
            4 => self.node(Op::LayerScale, &[x], |_| vec![1, c, 1, 1]),
            5 => {
                let same = |y: &&Value| self.graph.ty(**y) == self.graph.ty(x);
                let y = *self.images.iter().find(same).expect("x itself");
                self.plain(Op::Add, &[x, y])
            }
            6 => {
                let factor = self.float();
                self.plain(Op::Scale { factor }, &[x])
            }
            7 if h.max(w) < 12 => {
                let (bottom, right) = (self.pick(3), self.pick(3));
                self.plain(Op::Pad { bottom, right }, &[x])
            }
            7 | 8 => {
                let (height, width) = (h.div_ceil(2), w - self.pick(w));
                self.plain(Op::Crop { height, width }, &[x])
            }
            9 => {
                let first = 1 + self.pick(c);
                let sizes = [first, c - first];
                let sizes = sizes.into_iter().filter(|&size| size > 0).collect();
                self.plain(Op::Split { sizes }, &[x])
            }
            10 => self.windows(x),
            11 => self.classifier(x),
            12 => {
                let (op, mid) = self.attention(x);
                let op = Op::WindowAttention(op);
                self.node(op, &[x], |slot| block_shape(slot, c, mid, c, 1))
            }
            _ => self.block(x),
        };
        self.images.extend(images);
    }

    fn conv(&mut self, x: Value) -> Vec<Value> {
        let [c, h, w] = self.chw(x);
        let groups = [1, c][self.pick(2)];
        let kernel = if h.min(w) < 3 {
            1
        } else {
            [1, 3][self.pick(2)]
        };
        let conv = Conv2d {
            stride: 1 + self.pick(2),
            padding: self.pick(3),
            groups,
            act: self.act(),
        };
        let outputs = if groups == 1 { 4 + 4 * self.pick(2) } else { c };
        self.node(Op::Conv2d(conv), &[x], move |slot| match slot {
            "weight" => vec![outputs, c / groups, kernel, kernel],
            _ => vec![outputs],
        })
    }

    /// Partition, products of windows, softmax, merge: returns the merged image.
    fn windows(&mut self, x: Value) -> Vec<Value> {
        let [c, h, w] = self.chw(x);
        let mut side = |size: usize| {
            if size.is_multiple_of(2) && self.flip() {
                2
            } else {
                size
            }
        };
        let window = [side(h), side(w)];
        let windows = Windows {
            grouping: [Grouping::Close, Grouping::Remote][self.pick(2)],
            window,
            heads: if c % 2 == 0 { 1 + self.pick(2) } else { 1 },
        };
        let tokens = self.plain(Op::WindowPartition(windows), &[x])[0];
        let scores = self.plain(Op::MatMul { transpose_b: true }, &[tokens, tokens])[0];
        let soft = self.plain(Op::Softmax, &[scores])[0];
        let mixed = self.plain(Op::MatMul { transpose_b: false }, &[soft, tokens])[0];
        self.others.extend([tokens, scores, soft, mixed]);
        let merge = Op::WindowMerge {
            windows,
            height: h,
            width: w,
        };
        self.plain(merge, &[mixed])
    }

    fn classifier(&mut self, x: Value) -> Vec<Value> {
        let c = self.chw(x)[0];
        let pooled = self.plain(Op::GlobalAvgPool, &[x])[0];
        let classes = 1 + self.pick(3);
        let logits = self.node(Op::Linear, &[pooled], move |slot| match slot {
            "weight" => vec![classes, c],
            _ => vec![classes],
        });
        let constant = self.node(Op::Constant, &[], |_| vec![2, 3]);
        self.others.extend([pooled, logits[0], constant[0]]);
        Vec::new()
    }

    /// A window attention for this image, and the channels of its v.
    fn attention(&mut self, x: Value) -> (WindowAttention, usize) {
        let [_, h, w] = self.chw(x);
        let one_window = self.pick(4) == 3;
        let op = WindowAttention {
            attention: if one_window {
                Attention::CloseTwice
            } else {
                ATTENTIONS[self.pick(3)]
            },
            heads: 1 + self.pick(2),
            window: if one_window {
                [h, w]
            } else {
                [2 + self.pick(3), 1 + self.pick(4)]
            },
            scale: self.float(),
            act: self.act(),
            narrow_softmax: self.flip(),
        };
        let mid = 4 * op.heads;
        (op, mid)
    }

    fn block(&mut self, x: Value) -> Vec<Value> {
        let [c, ..] = self.chw(x);
        let (attention, mid) = self.attention(x);
        let stride = 1 + self.pick(2);
        let outputs = if self.flip() { c } else { 6 };
        let block = I2Rmb {
            norm: if self.flip() {
                Some(Norm { eps: self.float() })
            } else {
                None
            },
            mixer: if self.flip() {
                Mixer::Attention(attention)
            } else {
                Mixer::Expand(self.act())
            },
            stride,
            padding: 1,
            local_norm: if self.flip() {
                Some(Norm { eps: self.float() })
            } else {
                None
            },
            local_act: self.act(),
            inner_skip: stride == 1 && self.flip(),
            residual: stride == 1 && outputs == c && self.flip(),
        };
        self.node(Op::I2Rmb(block), &[x], move |slot| {
            block_shape(slot, c, mid, outputs, 3)
        })
    }
}

/// Whether the slot is that of a norm which the block has not.
pub(crate) fn unusable(op: &Op, slot: &str) -> bool {
    let Op::I2Rmb(block) = op else { return false };
    (block.norm.is_none() && slot.starts_with("norm."))
        || (block.local_norm.is_none() && slot.starts_with("local_norm."))
}

/// Shapes of the weights of the fused ops.
pub(crate) fn block_shape(
    slot: &str,
    input: usize,
    mid: usize,
    output: usize,
    kernel: usize,
) -> Vec<usize> {
    let (part, kind) = slot.split_once('.').expect("a slot of a fused op");
    let weight = kind == "weight";
    match part {
        "norm" => vec![input],
        "qk" if weight => vec![2 * mid, input, 1, 1],
        "qk" => vec![2 * mid],
        "v" | "expand" if weight => vec![mid, input, 1, 1],
        "local" if weight => vec![mid, 1, kernel, kernel],
        "proj" if weight => vec![output, mid, 1, 1],
        "proj" => vec![output],
        _ => vec![mid],
    }
}

/// A type as the text form spells it: `f32[N, 3, 8, 8]`.
pub(crate) fn ty(text: &str) -> TensorType {
    let (dtype, shape) = text
        .strip_suffix(']')
        .and_then(|t| t.split_once('['))
        .expect("a type");
    let dims = shape.split(", ").filter(|dim| !dim.is_empty());
    TensorType {
        dtype: dtype.parse::<DType>().expect("an element type"),
        shape: Shape(dims.map(|dim| dim.parse().expect("a dimension")).collect()),
    }
}
