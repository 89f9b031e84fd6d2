//! Where a value's elements are: the same image in several layouts, each made when first asked
//! for.
//!
//! Convolutions want channels first, LayerNorm and matrix products want channels last. A
//! lowering asks for its operands in the layout it computes in and stores its result in the
//! layout it has it in, so a chain of nodes of one kind moves no data between them.

use emoc_ir::{Dim, Result, TensorType};

use super::not_an_image;
use crate::onnx::builder::Builder;

/// How a value is laid out.
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
    pub(super) fn of(ty: &TensorType) -> Option<Self> {
        match ty.shape.0[..] {
            [n, Dim::Fixed(c), Dim::Fixed(h), Dim::Fixed(w)] => Some(Self { n, c, h, w }),
            _ => None,
        }
    }

    pub(super) fn pixels(self) -> usize {
        self.h * self.w
    }

    /// The shape in a layout.
    pub(super) fn dims(self, layout: Layout) -> Vec<Dim> {
        let Self { n, c, h, w } = self;
        match layout {
            Layout::Plain => vec![n, c.into(), h.into(), w.into()],
            Layout::ChannelsLast => vec![n, h.into(), w.into(), c.into()],
            Layout::Rows => vec![n.times(h * w), c.into()],
        }
    }
}

/// A value and the tensor it was computed as.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    name: String,
    image: Option<Image>,
    layout: Layout,
    tensor: String,
}

impl Stored {
    /// A value that `tensor` holds. `name` is what conversions are named after.
    pub(super) fn new(name: &str, image: Option<Image>, layout: Layout, tensor: String) -> Self {
        Self {
            name: name.to_string(),
            image,
            layout,
            tensor,
        }
    }

    /// The layout it was computed in.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Its sizes as an image.
    pub(super) fn image(&self) -> Result<Image> {
        self.image.ok_or_else(|| not_an_image(&self.name))
    }

    /// The tensor in a layout; converts if need be, in steps
    /// plain - channels last - rows.
    pub(super) fn get(&self, b: &mut Builder, layout: Layout) -> Result<String> {
        if layout == self.layout {
            return Ok(self.tensor.clone());
        }
        let name = |suffix: &str| format!("{}.{suffix}", self.name);
        let image = self.image()?;
        Ok(match (layout, self.layout) {
            (Layout::Plain, _) => {
                let x = self.get(b, Layout::ChannelsLast)?;
                b.transpose(&name("nchw"), &x, &[0, 3, 1, 2])
            }
            (Layout::ChannelsLast, Layout::Rows) => {
                b.reshape(&name("nhwc"), &self.tensor, &image.dims(layout))
            }
            (Layout::ChannelsLast, _) => b.transpose(&name("nhwc"), &self.tensor, &[0, 2, 3, 1]),
            (Layout::Rows, _) => {
                let x = self.get(b, Layout::ChannelsLast)?;
                b.reshape(&name("rows"), &x, &image.dims(layout))
            }
        })
    }
}
