//! Where a value's elements are: the same image in several layouts, each made when first asked
//! for and kept.
//!
//! Convolutions want channels first, LayerNorm and matrix products want channels last. A
//! lowering asks for its operands in the layout it computes in and binds its result in the
//! layout it has it in, so a chain of nodes of one kind moves no data between them.

use emoc_ir::{Diagnostic, Dim, Result, Value};

use super::Lowering;

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As the graph has it; images `[N, C, H, W]`.
    Plain,
    /// An image as `[N, H, W, C]`.
    ChannelsLast,
    /// An image as a matrix with a row for every pixel, `[N·H·W, C]`.
    Rows,
}

/// Sizes of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub(super) n: Dim,
    pub(super) c: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl Image {
    pub(super) fn dims(self, layout: Layout) -> Vec<Dim> {
        let Self { n, c, h, w } = self;
        match layout {
            Layout::Plain => vec![n, c.into(), h.into(), w.into()],
            Layout::ChannelsLast => vec![n, h.into(), w.into(), c.into()],
            Layout::Rows => vec![n.times(h * w), c.into()],
        }
    }
}

impl Lowering<'_> {
    /// Declares that `tensor` holds `value` in this layout.
    pub(super) fn bind(&mut self, value: impl Into<Value>, layout: Layout, tensor: String) {
        let known = self.layouts.entry(value.into()).or_default();
        known.push((layout, tensor));
    }

    /// The layouts a value is at hand in, the one it was computed in first.
    pub(super) fn at_hand(&self, value: Value) -> Vec<Layout> {
        let known = self.layouts.get(&value).into_iter().flatten();
        known.map(|(layout, _)| *layout).collect()
    }

    /// The tensor of a value in a layout; converts if need be.
    pub(super) fn get(&mut self, value: Value, layout: Layout) -> Result<String> {
        let known = self.layouts.get(&value).map_or(&[][..], Vec::as_slice);
        if let Some((_, tensor)) = known.iter().find(|(known, _)| *known == layout) {
            return Ok(tensor.clone());
        }
        let computed = self.at_hand(value).first().copied();
        let name = self.name(value);
        let b = |lowering: &mut Self, from: Layout, suffix: &str, perm: Option<&[i64]>| {
            let x = lowering.get(value, from)?;
            let name = format!("{name}.{suffix}");
            Ok::<_, Box<Diagnostic>>(match perm {
                Some(perm) => lowering.builder.transpose(&name, &x, perm),
                None => {
                    let dims = lowering.image(value)?.dims(layout);
                    lowering.builder.reshape(&name, &x, &dims)
                }
            })
        };
        let tensor = match (computed, layout) {
            (None, _) => {
                let message = "an operand was not lowered before its user";
                return Err(Diagnostic::internal(message).node(name));
            }
            (Some(_), Layout::Plain) => b(self, Layout::ChannelsLast, "nchw", Some(&[0, 3, 1, 2]))?,
            (Some(Layout::Plain), Layout::ChannelsLast) => {
                b(self, Layout::Plain, "nhwc", Some(&[0, 2, 3, 1]))?
            }
            (Some(_), Layout::ChannelsLast) => b(self, Layout::Rows, "nhwc", None)?,
            (Some(_), Layout::Rows) => b(self, Layout::ChannelsLast, "rows", None)?,
        };
        self.bind(value, layout, tensor.clone());
        Ok(tensor)
    }

    /// The sizes of an image.
    pub(super) fn image(&self, value: Value) -> Result<Image> {
        let ty = self.graph.ty(value);
        match ty.shape.0[..] {
            [n, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] => Ok(Image { n, c, h, w }),
            _ => Err(
                Diagnostic::internal(format!("{ty} is not an image, yet is lowered as one"))
                    .node(self.name(value)),
            ),
        }
    }
}
