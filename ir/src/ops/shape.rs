//! The shape rule of every op.

use std::collections::BTreeMap;

use super::{Act, Attention, Conv2d, I2Rmb, Mixer, Norm, Op, WindowAttention, Windows};
use crate::{DType, Dim, Shape, TensorType};

/// Most elements a value or weight may have per picture. Graphs come from hostile files and
/// flags; below this bound sums and products of two sizes of one tensor cannot overflow, nor,
/// where addresses have 32 bits, the bytes of a tensor.
const MAX_ELEMENTS: usize = 1 << if usize::BITS < 64 { 28 } else { 40 };

type Rule<T = Vec<TensorType>> = Result<T, String>;

/// The types of a node's weights, by slot.
#[derive(Debug, Default)]
pub struct WeightTypes<'a>(pub BTreeMap<&'a str, &'a TensorType>);

impl WeightTypes<'_> {
    /// The sizes of the weight's axes; every weight's axes are fixed.
    fn dims(&self, slot: &str) -> Rule<Vec<usize>> {
        let ty = self
            .0
            .get(slot)
            .ok_or(format!("lacks the weight `{slot}`"))?;
        let dims = ty.shape.0.iter().map(|dim| dim.fixed());
        dims.collect::<Option<_>>()
            .ok_or(format!("weight `{slot}` depends on the batch: {ty}"))
    }

    /// Checks an optional weight's shape.
    fn expect(&self, slot: &str, expected: &[usize]) -> Rule<()> {
        match self.0.contains_key(slot).then(|| self.dims(slot)) {
            Some(dims) if dims.clone()? != expected => Err(format!(
                "weight `{slot}` should have shape {expected:?}, not {:?}",
                dims?
            )),
            _ => Ok(()),
        }
    }

    /// Output channels, channels per group and kernel size of a convolution's weight.
    fn kernel(&self, slot: &str) -> Rule<[usize; 4]> {
        let dims = self.dims(slot)?;
        <[usize; 4]>::try_from(dims)
            .map_err(|dims| format!("weight `{slot}` should be [O, I, H, W], not {dims:?}"))
    }
}

/// An image `[N, C, H, W]`.
#[derive(Clone, Copy)]
struct Image {
    n: Dim,
    c: usize,
    h: usize,
    w: usize,
}

impl Image {
    fn of(ty: &TensorType) -> Rule<Self> {
        match ty.shape.0[..] {
            [n, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] => Ok(Self { n, c, h, w }),
            _ => Err(format!("needs an image [N, C, H, W], not {ty}")),
        }
    }

    fn ty(self) -> TensorType {
        TensorType::f32([self.n, self.c.into(), self.h.into(), self.w.into()])
    }

    /// The image, unless it is too large or empty. Images inside fused ops are checked too, so
    /// that their decomposition and cost never meet a size that the whole op hides.
    fn checked(self) -> Rule<Self> {
        check_type(&self.ty()).map_err(|why| format!("computes an image whose type {why}"))?;
        Ok(self)
    }
}

/// Refuses a type that no value or weight of a graph may have.
pub(crate) fn check_type(ty: &TensorType) -> Rule<()> {
    if !matches!(ty.dtype, DType::F32 | DType::F16) {
        return Err(format!("{ty} is neither float32 nor float16"));
    }
    if ty.shape.numel(1) == 0 {
        return Err(format!("{ty} has no elements"));
    }
    if ty.shape.numel(1) > MAX_ELEMENTS {
        return Err(format!("{ty} has too many elements"));
    }
    Ok(())
}

impl Op {
    /// Types of the outputs, from the types of inputs and weights. All are float32 or float16,
    /// like the inputs and weights unless the op is a cast, and hold between 1 and 2^40 elements
    /// per picture (2^28 where addresses have 32 bits).
    ///
    /// # Errors
    /// One sentence that says which operand does not fit.
    pub fn infer(&self, inputs: &[&TensorType], weights: &WeightTypes) -> Rule {
        if inputs.len() != self.arity() {
            let (expected, found) = (self.arity(), inputs.len());
            return Err(format!("takes {expected} inputs, not {found}"));
        }
        self.check_slots(weights)?;
        for ty in inputs {
            check_type(ty).map_err(|why| format!("reads a value whose type {why}"))?;
        }
        for (slot, ty) in &weights.0 {
            check_type(ty).map_err(|why| format!("has a weight `{slot}` whose type {why}"))?;
        }
        let dtype = common_dtype(inputs, weights)?;
        let mut outputs = self.rule(inputs, weights)?;
        for ty in &mut outputs {
            ty.dtype = match self {
                Op::Cast { to } => *to,
                _ => dtype,
            };
            check_type(ty).map_err(|why| format!("has a result whose type {why}"))?;
        }
        Ok(outputs)
    }

    fn check_slots(&self, weights: &WeightTypes) -> Rule<()> {
        for slot in self.slots().iter().filter(|slot| slot.required) {
            if !weights.0.contains_key(slot.name) {
                return Err(format!("lacks the weight `{}`", slot.name));
            }
        }
        for name in weights.0.keys() {
            if !self.slots().iter().any(|slot| slot.name == *name) {
                return Err(format!("takes no weight `{name}`"));
            }
        }
        Ok(())
    }

    fn rule(&self, inputs: &[&TensorType], weights: &WeightTypes) -> Rule {
        let one = |ty: &TensorType| Ok(vec![ty.clone()]);
        match self {
            Op::Input => Err("an input's type is given, not inferred".into()),
            Op::Constant => one(weights.0["value"]),
            Op::Conv2d(conv) => {
                let weight = weights.kernel("weight")?;
                weights.expect("bias", &weight[..1])?;
                one(&convolved(Image::of(inputs[0])?, weight, conv)?.ty())
            }
            Op::BatchNorm(_) | Op::LayerNorm(_) => {
                let x = Image::of(inputs[0])?;
                for slot in self.slots() {
                    weights.expect(slot.name, &[x.c])?;
                }
                one(inputs[0])
            }
            Op::Activation(Act::None) => Err("names no function".into()),
            Op::Activation(_) | Op::Cast { .. } | Op::Scale { .. } | Op::Softmax => one(inputs[0]),
            Op::LayerScale => {
                weights.expect("gamma", &[1, Image::of(inputs[0])?.c, 1, 1])?;
                one(inputs[0])
            }
            Op::Add if inputs[0] == inputs[1] => one(inputs[0]),
            Op::Add => Err(format!("cannot add {} and {}", inputs[0], inputs[1])),
            Op::Pad { bottom, right } => {
                let x = Image::of(inputs[0])?;
                one(&padded(x, [*bottom, *right])?.ty())
            }
            Op::Crop { height, width } => {
                let Image { n, c, h, w } = Image::of(inputs[0])?;
                if *height > h || *width > w {
                    return Err(format!("cannot crop {h}x{w} to {height}x{width}"));
                }
                let (h, w) = (*height, *width);
                one(&Image { n, c, h, w }.ty())
            }
            Op::Split { sizes } => {
                let x = Image::of(inputs[0])?;
                let total = sizes.iter().copied().try_fold(0, usize::checked_add);
                if total != Some(x.c) {
                    return Err(format!("parts {sizes:?} do not make up {} channels", x.c));
                }
                Ok(sizes.iter().map(|&c| Image { c, ..x }.ty()).collect())
            }
            Op::WindowPartition(windows) => one(&partitioned(windows, Image::of(inputs[0])?)?),
            Op::WindowMerge {
                windows,
                height,
                width,
            } => one(&merged(windows, [*height, *width], inputs[0])?),
            Op::MatMul { transpose_b } => one(&multiplied(inputs[0], inputs[1], *transpose_b)?),
            Op::GlobalAvgPool => {
                let Image { n, c, .. } = Image::of(inputs[0])?;
                one(&TensorType::f32([n, c.into()]))
            }
            Op::Linear => one(&linear(inputs[0], weights)?),
            Op::WindowAttention(attention) => {
                one(&attended(attention, Image::of(inputs[0])?, weights)?.ty())
            }
            Op::I2Rmb(block) => one(&mixed(block, Image::of(inputs[0])?, weights)?.ty()),
        }
    }
}

/// The element type that all inputs and weights have.
fn common_dtype(inputs: &[&TensorType], weights: &WeightTypes) -> Rule<DType> {
    let inputs = inputs.iter().map(|ty| ("an input", ty.dtype));
    let weights = weights.0.iter().map(|(slot, ty)| (*slot, ty.dtype));
    let mut all = inputs.chain(weights);
    let Some((first, dtype)) = all.next() else {
        return Ok(DType::F32);
    };
    match all.find(|(_, other)| *other != dtype) {
        None => Ok(dtype),
        Some((name, other)) => Err(format!(
            "mixes element types: {first} is {dtype}, {name} {other}; a cast is needed"
        )),
    }
}

fn convolved(x: Image, weight: [usize; 4], conv: &Conv2d) -> Rule<Image> {
    let [c, per_group, kh, kw] = weight;
    if conv.stride == 0 {
        return Err("needs a stride of at least 1".into());
    }
    if per_group.checked_mul(conv.groups) != Some(x.c) || !c.is_multiple_of(conv.groups) {
        return Err(format!(
            "weight {weight:?} in {} groups does not fit {} channels",
            conv.groups, x.c
        ));
    }
    let size = |size: usize, kernel: usize| {
        let padded = conv.padding.checked_mul(2)?.checked_add(size)?;
        Some(padded.checked_sub(kernel)? / conv.stride + 1)
    };
    match (size(x.h, kh), size(x.w, kw)) {
        (Some(h), Some(w)) => Image { c, h, w, ..x }.checked(),
        _ => Err(format!(
            "a {kh}x{kw} kernel does not fit a {}x{} map with padding {}",
            x.h, x.w, conv.padding
        )),
    }
}

fn padded(x: Image, [bottom, right]: [usize; 2]) -> Rule<Image> {
    let h = x.h.checked_add(bottom).ok_or("pads too much")?;
    let w = x.w.checked_add(right).ok_or("pads too much")?;
    Image { h, w, ..x }.checked()
}

/// Windows per map of this size. Neither their count nor the pixels of one overflow.
fn window_counts(windows: &Windows, [h, w]: [usize; 2]) -> Rule<usize> {
    let [wh, ww] = windows.window;
    let tiles = |size: usize, window: usize| window != 0 && size.is_multiple_of(window);
    if h.checked_mul(w).is_none_or(|pixels| pixels == 0) || !tiles(h, wh) || !tiles(w, ww) {
        return Err(format!("{wh}x{ww} windows do not tile a {h}x{w} map"));
    }
    Ok((h / wh) * (w / ww))
}

fn partitioned(windows: &Windows, x: Image) -> Rule<TensorType> {
    let count = window_counts(windows, [x.h, x.w])?;
    let heads = windows.heads;
    if !x.c.is_multiple_of(heads) {
        return Err(format!("{} channels do not split into {heads} heads", x.c));
    }
    let tokens = windows.window[0] * windows.window[1];
    let head = x.c / heads;
    Ok(TensorType::f32([
        x.n.times(count),
        heads.into(),
        tokens.into(),
        head.into(),
    ]))
}

fn merged(windows: &Windows, [h, w]: [usize; 2], x: &TensorType) -> Rule<TensorType> {
    let count = window_counts(windows, [h, w])?;
    let tokens = windows.window[0] * windows.window[1];
    match x.shape.0[..] {
        [n, Dim::Fixed(heads), Dim::Fixed(t), Dim::Fixed(head)]
            if heads == windows.heads && t == tokens =>
        {
            let n = n.divided(count);
            let n = n.ok_or(format!("{x} does not hold whole maps of {count} windows"))?;
            let c = heads * head;
            Ok(Image { n, c, h, w }.ty())
        }
        _ => Err(format!(
            "needs [windows, {}, {tokens}, channels], not {x}",
            windows.heads
        )),
    }
}

fn multiplied(a: &TensorType, b: &TensorType, transpose_b: bool) -> Rule<TensorType> {
    let misfit = || format!("cannot multiply {a} by {b}");
    let rank = a.shape.rank();
    if rank < 2 || b.shape.rank() != rank || a.shape.0[..rank - 2] != b.shape.0[..rank - 2] {
        return Err(misfit());
    }
    let (mut k, mut n) = (b.shape.0[rank - 2], b.shape.0[rank - 1]);
    if transpose_b {
        std::mem::swap(&mut k, &mut n);
    }
    if a.shape.0[rank - 1] != k {
        return Err(misfit());
    }
    let mut dims = a.shape.0.clone();
    dims[rank - 1] = n;
    Ok(TensorType::f32(Shape(dims)))
}

fn linear(x: &TensorType, weights: &WeightTypes) -> Rule<TensorType> {
    match (&x.shape.0[..], &weights.dims("weight")?[..]) {
        ([n, Dim::Fixed(c)], [classes, inputs]) if c == inputs => {
            weights.expect("bias", &[*classes])?;
            Ok(TensorType::f32([*n, (*classes).into()]))
        }
        (_, dims) => Err(format!("weight {dims:?} does not fit {x}")),
    }
}

/// A 1x1 convolution inside a fused op, with its weights under `name.weight` and `name.bias`.
fn pointwise(x: Image, name: &str, weights: &WeightTypes) -> Rule<Image> {
    let weight = weights.kernel(&format!("{name}.weight"))?;
    if weight[2..] != [1, 1] {
        return Err(format!("weight `{name}.weight` should be 1x1: {weight:?}"));
    }
    weights.expect(&format!("{name}.bias"), &weight[..1])?;
    convolved(x, weight, &Conv2d::pointwise())
}

fn attended(op: &WindowAttention, x: Image, weights: &WeightTypes) -> Rule<Image> {
    let [wh, ww] = op.window;
    if wh == 0 || ww == 0 || wh > MAX_ELEMENTS || ww > MAX_ELEMENTS {
        return Err(format!("cannot use {wh}x{ww} windows"));
    }
    let map = padded(x, op.padding(x.h, x.w))?;
    if op.attention == Attention::CloseTwice && [map.h, map.w] != op.window {
        return Err("close_twice needs one window over the whole map".into());
    }
    let qk = pointwise(map, "qk", weights)?;
    let v = pointwise(map, "v", weights)?;
    if !qk.c.is_multiple_of(op.heads.saturating_mul(2)) || !v.c.is_multiple_of(op.heads) {
        return Err(format!(
            "{} channels of qk and {} of v do not split into {} heads",
            qk.c, v.c, op.heads
        ));
    }
    let pixels = map.n.times(map.h * map.w);
    let scores = TensorType::f32([pixels, op.heads.into(), (wh * ww).into()]);
    check_type(&scores).map_err(|why| format!("computes scores whose type {why}"))?;
    Ok(Image { c: v.c, ..x })
}

/// Weights of a block's norm, which are there only if it is.
fn normed(name: &str, norm: Option<&Norm>, channels: usize, weights: &WeightTypes) -> Rule<()> {
    for slot in ["weight", "bias"].map(|part| format!("{name}.{part}")) {
        if norm.is_none() && weights.0.contains_key(&*slot) {
            return Err(format!("has `{slot}` but no norm"));
        }
        weights.expect(&slot, &[channels])?;
    }
    Ok(())
}

fn mixed(block: &I2Rmb, x: Image, weights: &WeightTypes) -> Rule<Image> {
    normed("norm", block.norm.as_ref(), x.c, weights)?;
    let wide = match &block.mixer {
        Mixer::Expand(_) => pointwise(x, "expand", weights)?,
        Mixer::Attention(attention) => attended(attention, x, weights)?,
    };
    let kernel = weights.kernel("local.weight")?;
    weights.expect("local.bias", &kernel[..1])?;
    normed("local_norm", block.local_norm.as_ref(), wide.c, weights)?;
    let depthwise = Conv2d {
        stride: block.stride,
        padding: block.padding,
        groups: wide.c,
        act: block.local_act,
    };
    let local = convolved(wide, kernel, &depthwise)?;
    let skips =
        |on: bool, from: Image, to: Image| !on || (from.c, from.h, from.w) == (to.c, to.h, to.w);
    let out = pointwise(local, "proj", weights)?;
    if !skips(block.inner_skip, wide, local) || !skips(block.residual, x, out) {
        return Err("a skip connects maps of different shape".into());
    }
    Ok(out)
}
