//! A whole window attention. Three forms, each the fastest measured where it applies:
//!
//! | module | when | how tokens reach windows and heads |
//! |---|---|---|
//! | `one_window.rs` | one window is the map | not at all: `[N, heads·d, H·W]` as it stands |
//! | `one_picture.rs` | batch 1, whole windows | rows are ordered by token: a head is a view |
//! | `pieces.rs` | any batch, padded windows | (pixel, head) pieces are gathered |
//!
//! Two facts save work in all of them: the bias of k adds the same number to all scores of a
//! query, which softmax ignores; and when one window covers the map, both groupings are the same.

mod one_picture;
mod one_window;
mod pieces;

use emoc_ir::{
    DType, Dim, Node, NodeId, Result, Value,
    ops::{Attention, Grouping, WindowAttention},
};

use super::{
    super::operators::Matrix,
    Layout, Lowering,
    layout::{Image, Stored},
};

/// Weight `[O, C]` and bias of the projection to q, k or v.
struct Projection {
    /// `q`, `k` or `v`.
    part: &'static str,
    /// Names of the weight and the bias.
    keys: [String; 2],
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

/// What an attention computes.
struct Plan<'a> {
    name: &'a str,
    op: &'a WindowAttention,
    /// The normed image.
    image: Image,
    /// Sizes of the map in whole windows.
    padded: [usize; 2],
    /// Groupings that are computed.
    groupings: &'static [Grouping],
    /// Whether the result counts twice.
    twice: bool,
    /// Channels of a head of v.
    head_v: usize,
    /// Projections to q, k and v; the factor on the scores is in q.
    projections: [Projection; 3],
}

impl Plan<'_> {
    /// Tokens of a window.
    fn tokens(&self) -> usize {
        self.op.window[0] * self.op.window[1]
    }

    /// Windows of one grouping.
    fn windows(&self) -> usize {
        self.padded[0] * self.padded[1] / self.tokens()
    }

    fn is_padded(&self) -> bool {
        self.padded != [self.image.h, self.image.w]
    }

    /// The resulting image.
    fn wide(&self) -> Image {
        Image {
            c: self.op.heads * self.head_v,
            ..self.image
        }
    }

    /// Output and input channels of a projection.
    fn dims(&self, projection: &Projection) -> [usize; 2] {
        let inputs = self.image.c;
        [projection.weight.len() / inputs, inputs]
    }

    /// Channels of a head of a projection.
    fn head(&self, projection: &Projection) -> usize {
        self.dims(projection)[0] / self.op.heads
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// The name of an index tensor, which says what it depends on.
    fn index_name(&self, what: &str) -> String {
        let [window_h, window_w] = self.op.window;
        let Image { h, w, .. } = self.image;
        let heads = self.op.heads;
        format!("const.{what}_{window_h}x{window_w}_of_{h}x{w}_heads_{heads}")
    }
}

fn word(grouping: Grouping) -> &'static str {
    match grouping {
        Grouping::Close => "close",
        Grouping::Remote => "remote",
    }
}

impl Lowering<'_> {
    pub(super) fn window_attention(
        &mut self,
        id: NodeId,
        node: &Node,
        op: &WindowAttention,
        x: Value,
    ) -> Result<()> {
        let x = self.stored(x)?.clone();
        let y = self.attend(node, &node.name, op, &x)?;
        self.values.insert(id.into(), y);
        Ok(())
    }

    /// Lowers an attention whose weights are in the slots of `node`, with parts named
    /// `<name>.<part>`.
    pub(super) fn attend(
        &mut self,
        node: &Node,
        name: &str,
        op: &WindowAttention,
        x: &Stored,
    ) -> Result<Stored> {
        let image = x.image()?;
        let [bottom, right] = op.padding(image.h, image.w);
        let padded = [image.h + bottom, image.w + right];
        let one_window = padded == op.window;
        let (groupings, twice): (&'static [_], _) = match op.attention {
            Attention::Hybrid if one_window => (&[Grouping::Close], true),
            Attention::Hybrid => (&[Grouping::Close, Grouping::Remote], false),
            Attention::CloseTwice => (&[Grouping::Close], true),
            Attention::Remote if !one_window => (&[Grouping::Remote], false),
            Attention::Remote | Attention::Close => (&[Grouping::Close], false),
        };
        let plan = Plan {
            name,
            op,
            image,
            padded,
            groupings,
            twice,
            head_v: self.dims(node, "v.weight")?[0] / op.heads,
            projections: self.projections(node, op)?,
        };
        let (layout, y) = if plan.is_padded() || !(one_window || image.n == Dim::Fixed(1)) {
            (Layout::Rows, self.attend_in_pieces(&plan, x)?)
        } else if one_window {
            (Layout::Plain, self.attend_in_one_window(&plan, x)?)
        } else {
            (Layout::Rows, self.attend_in_one_picture(&plan, x)?)
        };
        Ok(Stored::new(name, Some(plan.wide()), layout, y))
    }

    fn projections(&self, node: &Node, op: &WindowAttention) -> Result<[Projection; 3]> {
        let values = |slot| Ok::<_, Box<_>>(self.values(node, slot)?.unwrap_or_default());
        let (qk, v) = (values("qk.weight")?, values("v.weight")?);
        let (q, k) = qk.split_at(qk.len() / 2);
        let scaled = |values: &[f32]| -> Vec<f32> {
            let scale = |&x: &f32| (f64::from(x) * op.scale) as f32;
            values.iter().map(scale).collect()
        };
        let q_bias = self.values(node, "qk.bias")?;
        let v_bias = self.values(node, "v.bias")?;
        let key = |slot: &str| node.weight(slot).unwrap_or_default().to_string();
        let half_keys = |half: &str| ["qk.weight", "qk.bias"].map(|s| format!("{}.{half}", key(s)));
        Ok([
            Projection {
                part: "q",
                keys: half_keys("q"),
                weight: scaled(q),
                bias: q_bias.map(|bias| scaled(&bias[..bias.len() / 2])),
            },
            Projection {
                part: "k",
                keys: half_keys("k"),
                weight: k.to_vec(),
                bias: None,
            },
            Projection {
                part: "v",
                keys: ["v.weight", "v.bias"].map(key),
                weight: v.to_vec(),
                bias: v_bias.map(|bias| bias.to_vec()),
            },
        ])
    }

    fn bias(&mut self, p: &Projection) -> Option<String> {
        let bias = p.bias.as_ref();
        bias.map(|bias| self.builder.floats(&p.keys[1], &[bias.len()], bias))
    }

    /// A projection of rows, and the activation if it is v's.
    fn project(&mut self, plan: &Plan, p: &Projection, rows: &str) -> String {
        let name = plan.part(p.part);
        let bias = self.bias(p);
        let weight = Matrix {
            key: &p.keys[0],
            dims: plan.dims(p),
            values: &p.weight,
        };
        let y = self.builder.product(&name, rows, &weight, bias.as_deref());
        self.activated(plan, p, y)
    }

    fn activated(&mut self, plan: &Plan, p: &Projection, y: String) -> String {
        if p.part != "v" {
            return y;
        }
        self.builder
            .activation(&plan.part("v.act"), &y, plan.op.act)
    }

    /// Softmax over the last axis of `q · k`, whose rows are queries; in float32 unless the op
    /// says otherwise.
    fn probabilities(&mut self, plan: &Plan, name: &str, q: &str, k: &str) -> String {
        let dtype = self.builder.dtype;
        let part = |part: &str| format!("{name}.{part}");
        let mut scores = self.builder.matmul(&part("scores"), q, k);
        if plan.op.narrow_softmax || dtype == DType::F32 {
            return self.builder.softmax(&part("softmax"), &scores);
        }
        scores = self.builder.cast(&part("scores.f32"), &scores, DType::F32);
        let wide = self.builder.softmax(&part("softmax.f32"), &scores);
        self.builder.cast(&part("softmax"), &wide, dtype)
    }

    /// Doubles what counts twice. Runtimes fold the factor into the product before it.
    fn counted(&mut self, plan: &Plan, y: String) -> String {
        if !plan.twice {
            return y;
        }
        let two = self.builder.number(2.0);
        self.builder.mul(&plan.part("twice"), &y, &two)
    }

    /// The sum of the groupings' results, as rows.
    fn sum_rows(&mut self, plan: &Plan, terms: Vec<String>) -> String {
        let add = |a: String, b: String| self.builder.add(&plan.part("sum"), &a, &b);
        let sum = terms.into_iter().reduce(add).unwrap_or_default();
        let dims = plan.wide().dims(Layout::Rows);
        self.builder.reshape(plan.name, &sum, &dims)
    }
}
