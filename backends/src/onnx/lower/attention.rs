//! A whole window attention, on rows: one row of channels for every pixel.
//!
//! Pixels reach their windows, and head channels their heads, by one `Gather` of (pixel, head)
//! pieces each for q, k and v, and leave by another, so that a runtime copies contiguous pieces
//! and transposes nothing. Both attentions of a hybrid are one batch of windows. Three facts save
//! work:
//!
//! * The bias of k adds the same number to all scores of a query, and softmax ignores it.
//! * Padded tokens are all alike: one row of zeros in front of the projections stands for all of
//!   them, and cropping is not gathering them in the end.
//! * When one window covers the map, nothing has to be gathered; the projections then are 1x1
//!   convolutions whose results `[N, heads·d, H·W]` are split into heads as they stand, which
//!   runs faster than matrix products over as few rows as such a map has.

use std::sync::Arc;

use emoc_ir::{
    Node, NodeId, Result, Value,
    ops::{Attention, Conv2d, Grouping, WindowAttention},
};

use super::{
    Layout::{Plain, Rows},
    Lowering,
    layout::{Image, Stored},
    windows::{inverse, pixels_by_window},
};

/// Weight `[O, C]` and bias of the projection to q, k or v.
struct Projection {
    /// `q`, `k` or `v`.
    part: &'static str,
    /// Name of the weight, and of the bias.
    keys: [String; 2],
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

/// What an attention is computed over.
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
    /// Channels of a head of q and k, and of v.
    head: [usize; 2],
}

impl Plan<'_> {
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

    /// Channels of the result.
    fn mid(&self) -> usize {
        self.op.heads * self.head[1]
    }

    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// Says in the names of index tensors what they depend on.
    fn signature(&self) -> String {
        let [window_h, window_w] = self.op.window;
        let Image { h, w, .. } = self.image;
        let kind = match self.groupings {
            [Grouping::Close] => "close",
            [Grouping::Remote] => "remote",
            _ => "both",
        };
        format!(
            "{kind}_{window_h}x{window_w}_of_{h}x{w}_heads_{}",
            self.op.heads
        )
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
        self.bind(id, Rows, y);
        Ok(())
    }

    /// Lowers an attention whose weights are in the slots of `node`, with parts named
    /// `<name>.<part>`. The result is rows.
    pub(super) fn attend(
        &mut self,
        node: &Node,
        name: &str,
        op: &WindowAttention,
        x: &Stored,
    ) -> Result<String> {
        let image = x.image()?;
        let [bottom, right] = op.padding(image.h, image.w);
        let padded = [image.h + bottom, image.w + right];
        let one_window = padded == op.window;
        let (groupings, twice): (&'static [_], _) = match op.attention {
            // With one window over the map both groupings are the same.
            Attention::Hybrid if one_window => (&[Grouping::Close], true),
            Attention::Hybrid => (&[Grouping::Close, Grouping::Remote], false),
            Attention::CloseTwice => (&[Grouping::Close], true),
            Attention::Remote if !one_window => (&[Grouping::Remote], false),
            Attention::Remote | Attention::Close => (&[Grouping::Close], false),
        };
        let channels = |slot| Ok::<_, Box<_>>(self.dims(node, slot)?[0] / op.heads);
        let plan = Plan {
            name,
            op,
            image,
            padded,
            groupings,
            twice,
            head: [channels("qk.weight")? / 2, channels("v.weight")?],
        };
        let projections = self.projections(node, op)?;
        if one_window && !plan.is_padded() {
            self.attend_in_one_window(&plan, &projections, x)
        } else {
            self.attend_in_windows(&plan, &projections, x)
        }
    }

    /// The projections to q, k and v; the factor on the scores is in q.
    fn projections(&self, node: &Node, op: &WindowAttention) -> Result<[Projection; 3]> {
        let empty = || Arc::from([]);
        let weight = self.values(node, "qk.weight")?.unwrap_or_else(empty);
        let bias = self.values(node, "qk.bias")?;
        let key = |slot: &str| node.weight(slot).unwrap_or_default().to_string();
        let half_keys = |half: &str| ["qk.weight", "qk.bias"].map(|s| format!("{}.{half}", key(s)));
        let scaled = |values: &[f32]| -> Vec<f32> {
            let scale = |&x: &f32| (f64::from(x) * op.scale) as f32;
            values.iter().map(scale).collect()
        };
        let (q, k) = weight.split_at(weight.len() / 2);
        let v = self.values(node, "v.weight")?.unwrap_or_else(empty);
        let v_bias = self.values(node, "v.bias")?;
        Ok([
            Projection {
                part: "q",
                keys: half_keys("q"),
                weight: scaled(q),
                bias: bias.map(|bias| scaled(&bias[..bias.len() / 2])),
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

    /// Weight and bias of a projection as initializers; `kernel` is what follows `[O, C]`.
    fn parameters(&mut self, p: &Projection, channels: usize, kernel: &[usize]) -> Vec<String> {
        let outputs = p.weight.len() / channels;
        let dims = [&[outputs, channels], kernel].concat();
        let weight = self.builder.floats(&p.keys[0], &dims, &p.weight);
        let bias = p.bias.as_ref();
        let bias = bias.map(|bias| self.builder.floats(&p.keys[1], &[outputs], bias));
        [weight].into_iter().chain(bias).collect()
    }

    fn attend_in_one_window(
        &mut self,
        plan: &Plan,
        projections: &[Projection; 3],
        x: &Stored,
    ) -> Result<String> {
        let (n, c, pixels) = (plan.image.n, plan.image.c, plan.image.pixels());
        let x = x.get(&mut self.builder, Plain)?;
        let [head, _, head_v] = [plan.head[0], plan.head[0], plan.head[1]];
        let [q, k, v] = projections.each_ref().map(|p| {
            let name = plan.part(p.part);
            let weights = self.parameters(p, c, &[1, 1]);
            let weights: Vec<_> = weights.iter().map(String::as_str).collect();
            let conv = Conv2d::pointwise();
            let mut y = self.builder.conv(&name, &x, &weights, [1, 1], &conv);
            let mut channels = head;
            if p.part == "v" {
                y = self
                    .builder
                    .activation(&format!("{name}.act"), &y, plan.op.act);
                channels = head_v;
            }
            let dims = [n, plan.op.heads.into(), channels.into(), pixels.into()];
            self.builder.reshape(&format!("{name}.heads"), &y, &dims)
        });
        // Pixels are the last axis of all three: [N, heads, d, H·W].
        let q = self
            .builder
            .transpose(&plan.part("q.transpose"), &q, &[0, 1, 3, 2]);
        let v = self
            .builder
            .transpose(&plan.part("v.transpose"), &v, &[0, 1, 3, 2]);
        let y = self.mix(plan, &q, &k, &v);
        let y = self
            .builder
            .transpose(&plan.part("pixels"), &y, &[0, 2, 1, 3]);
        let dims = [n.times(pixels), plan.mid().into()];
        Ok(self.builder.reshape(plan.name, &y, &dims))
    }

    fn attend_in_windows(
        &mut self,
        plan: &Plan,
        projections: &[Projection; 3],
        x: &Stored,
    ) -> Result<String> {
        let mut rows = x.get(&mut self.builder, Rows)?;
        let mut pixels = plan.image.pixels();
        if plan.is_padded() {
            rows = self.append_zero_row(plan, &rows);
            pixels += 1;
        }
        let into = self.indices_into_windows(plan);
        let [q, k, v] = projections.each_ref().map(|p| {
            let (name, heads) = (plan.part(p.part), plan.op.heads);
            let weights = self.parameters(p, plan.image.c, &[]);
            let bias = weights.get(1).map(String::as_str);
            let mut y = self.builder.gemm(&name, &rows, &weights[0], bias);
            let mut channels = plan.head[0];
            if p.part == "v" {
                y = self
                    .builder
                    .activation(&format!("{name}.act"), &y, plan.op.act);
                channels = plan.head[1];
            }
            let dims = [plan.image.n, (pixels * heads).into(), channels.into()];
            y = self.builder.reshape(&format!("{name}.heads"), &y, &dims);
            self.builder
                .gather(&format!("{name}.windows"), &y, &into, 1)
        });
        // [N, windows·heads, tokens, d]
        let k = self
            .builder
            .transpose(&plan.part("k.transpose"), &k, &[0, 1, 3, 2]);
        let y = self.mix(plan, &q, &k, &v);
        let pieces = plan.groupings.len() * plan.padded[0] * plan.padded[1] * plan.op.heads;
        let dims = [plan.image.n, pieces.into(), plan.head[1].into()];
        let y = self.builder.reshape(&plan.part("pieces"), &y, &dims);
        let terms = self.gather_from_windows(plan, &y);
        let sum = match &terms[..] {
            [close, remote] => self.builder.add(&plan.part("sum"), close, remote),
            _ => terms.into_iter().next().unwrap_or(y),
        };
        let dims = [plan.image.n.times(plan.image.pixels()), plan.mid().into()];
        Ok(self.builder.reshape(plan.name, &sum, &dims))
    }

    /// `softmax(q · k) · v`, doubled if the plan says so; `k` has its tokens in the last axis.
    fn mix(&mut self, plan: &Plan, q: &str, k: &str, v: &str) -> String {
        let scores = self.builder.matmul(&plan.part("scores"), q, k);
        let weights = self.builder.softmax(&plan.part("softmax"), &scores);
        let mixed = self.builder.matmul(&plan.part("mix"), &weights, v);
        if !plan.twice {
            return mixed;
        }
        let two = self.builder.number(2.0);
        self.builder.mul(&plan.part("twice"), &mixed, &two)
    }

    /// Adds a row of zeros after the pixels of every image: the padded token.
    fn append_zero_row(&mut self, plan: &Plan, rows: &str) -> String {
        let Image { n, c, .. } = plan.image;
        let pixels = plan.image.pixels();
        let dims = [n, pixels.into(), c.into()];
        let x = self.builder.reshape(&plan.part("pad.images"), rows, &dims);
        let x = self.builder.pad(&plan.part("pad"), &x, &[0, 0, 0, 0, 1, 0]);
        let dims = [n.times(pixels + 1), c.into()];
        self.builder.reshape(&plan.part("pad.rows"), &x, &dims)
    }

    /// For every window of every grouping, head and token: the number of its (pixel, head).
    fn indices_into_windows(&mut self, plan: &Plan) -> String {
        let (heads, tokens) = (plan.op.heads, plan.tokens());
        let Image { h, w, .. } = plan.image;
        let mut indices = Vec::new();
        for &grouping in plan.groupings {
            let order = pixels_by_window(grouping, plan.op.window, plan.padded);
            for window in order.chunks(tokens) {
                for head in 0..heads {
                    indices.extend(window.iter().map(|&pixel| {
                        let (y, x) = (pixel / plan.padded[1], pixel % plan.padded[1]);
                        let row = if y < h && x < w { y * w + x } else { h * w };
                        row * heads + head
                    }));
                }
            }
        }
        let name = format!("const.into_{}", plan.signature());
        let windows = plan.groupings.len() * plan.windows();
        self.builder
            .indices(&name, &[windows * heads, tokens], &indices)
    }

    /// Picks every pixel's pieces, one for each head, out of the windows of each grouping.
    fn gather_from_windows(&mut self, plan: &Plan, pieces: &str) -> Vec<String> {
        let (heads, tokens) = (plan.op.heads, plan.tokens());
        let Image { h, w, .. } = plan.image;
        let mut terms = Vec::new();
        for (number, &grouping) in plan.groupings.iter().enumerate() {
            let places = inverse(&pixels_by_window(grouping, plan.op.window, plan.padded));
            let mut indices = Vec::with_capacity(h * w * heads);
            for pixel in 0..h * w {
                let place = places[pixel / w * plan.padded[1] + pixel % w];
                let window = number * plan.windows() + place / tokens;
                let piece = |head| (window * heads + head) * tokens + place % tokens;
                indices.extend((0..heads).map(piece));
            }
            let which = match grouping {
                Grouping::Close => "close",
                Grouping::Remote => "remote",
            };
            let name = format!("const.{which}_from_{}", plan.signature());
            let indices = self.builder.indices(&name, &[h * w, heads], &indices);
            terms.push(self.builder.gather(&plan.part(which), pieces, &indices, 1));
        }
        terms
    }
}
