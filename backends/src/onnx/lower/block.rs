//! A whole i2RMB block.
//!
//! Blocks without attention stay `[N, C, H, W]` from end to end: a runtime with a blocked layout
//! of its own then keeps it through all of them. Blocks with attention are computed on rows, and
//! leave them only around the depthwise convolution; their residual is the addend of the
//! projection's `Gemm`.

use emoc_ir::{
    Node, NodeId, Result, Value,
    ops::{Conv2d, I2Rmb, Mixer},
};

use super::{
    Layout::{Plain, Rows},
    Lowering,
    layout::{Image, Stored},
};

impl Lowering<'_> {
    pub(super) fn block(&mut self, id: NodeId, node: &Node, block: &I2Rmb, x: Value) -> Result<()> {
        let image = self.image(x)?;
        let normed = self.normed(node, block, x)?;
        let part = |part: &str| format!("{}.{part}", node.name);
        let wide_channels = self.dims(node, "local.weight")?[0];
        let wide_image = Image {
            c: wide_channels,
            ..image
        };
        let (layout, wide) = match &block.mixer {
            Mixer::Expand(act) => {
                let x = normed.get(&mut self.builder, Plain)?;
                let conv = Conv2d {
                    act: *act,
                    ..Conv2d::pointwise()
                };
                (Plain, self.slot_conv(node, "expand", &conv, &x)?)
            }
            Mixer::Attention(op) => (Rows, self.attend(node, &part("attention"), op, &normed)?),
        };
        let wide = Stored::new(&part("wide"), Some(wide_image), layout, wide);
        let local = self.local(id, node, block, &wide)?;
        let y = match layout {
            Rows => self.project_rows(node, block, x, &local)?,
            _ => self.project_image(node, block, x, &local)?,
        };
        self.bind(id, layout, y);
        Ok(())
    }

    /// The block's input after its norm, if it has one.
    fn normed(&mut self, node: &Node, block: &I2Rmb, x: Value) -> Result<Stored> {
        let Some(norm) = &block.norm else {
            return self.stored(x).cloned();
        };
        let layout = match block.mixer {
            Mixer::Expand(_) => self.channels_last(x)?,
            Mixer::Attention(_) => Rows,
        };
        let image = self.image(x)?;
        let x = self.get(x, layout)?;
        let name = format!("{}.norm", node.name);
        let slots = ["norm.weight", "norm.bias"];
        let y = self.normalise(node, slots, image.c, norm, &name, &x)?;
        Ok(Stored::new(&name, Some(image), layout, y))
    }

    /// A convolution with the weights in `<slot>.weight` and `<slot>.bias`, named `<node>.<slot>`.
    fn slot_conv(&mut self, node: &Node, slot: &str, conv: &Conv2d, x: &str) -> Result<String> {
        let slots = [format!("{slot}.weight"), format!("{slot}.bias")];
        let dims = self.dims(node, &slots[0])?;
        let weight = self.weight(node, &slots[0])?;
        let bias = self.weight(node, &slots[1])?;
        let weights: Vec<_> = [&weight, &bias].into_iter().flatten().collect();
        let weights: Vec<_> = weights.into_iter().map(String::as_str).collect();
        let name = format!("{}.{slot}", node.name);
        let kernel = [dims[2], dims[3]];
        let y = self.builder.conv(&name, x, &weights, kernel, conv);
        Ok(self
            .builder
            .activation(&format!("{name}.act"), &y, conv.act))
    }

    /// The depthwise convolution and the skip around it, in the layout of `wide`.
    fn local(&mut self, id: NodeId, node: &Node, block: &I2Rmb, wide: &Stored) -> Result<Stored> {
        let wide_image = wide.image()?;
        let conv = Conv2d {
            stride: block.stride,
            padding: block.padding,
            groups: wide_image.c,
            act: block.local_act,
        };
        let x = wide.get(&mut self.builder, Plain)?;
        let y = self.slot_conv(node, "local", &conv, &x)?;
        let image = Image::of(self.graph.ty(id)).map(|out| Image {
            c: wide_image.c,
            ..out
        });
        let name = format!("{}.local", node.name);
        let mut local = Stored::new(&name, image, Plain, y);
        if block.inner_skip {
            let layout = wide.layout();
            let y = local.get(&mut self.builder, layout)?;
            let x = wide.get(&mut self.builder, layout)?;
            let name = format!("{}.inner_skip", node.name);
            let sum = self.builder.add(&name, &x, &y);
            local = Stored::new(&name, image, layout, sum);
        }
        Ok(local)
    }

    fn project_image(
        &mut self,
        node: &Node,
        block: &I2Rmb,
        x: Value,
        local: &Stored,
    ) -> Result<String> {
        let y = local.get(&mut self.builder, Plain)?;
        let y = self.slot_conv(node, "proj", &Conv2d::pointwise(), &y)?;
        if !block.residual {
            return Ok(y);
        }
        let x = self.get(x, Plain)?;
        Ok(self.builder.add(&node.name, &x, &y))
    }

    fn project_rows(
        &mut self,
        node: &Node,
        block: &I2Rmb,
        x: Value,
        local: &Stored,
    ) -> Result<String> {
        let rows = local.get(&mut self.builder, Rows)?;
        let dims = self.dims(node, "proj.weight")?;
        let values = self.values(node, "proj.weight")?.unwrap_or_default();
        let key = node.weight("proj.weight").unwrap_or_default();
        let weight = self.builder.floats(key, &dims[..2], &values);
        let bias = self.weight(node, "proj.bias")?;
        if !block.residual {
            return Ok(self
                .builder
                .gemm(&node.name, &rows, &weight, bias.as_deref()));
        }
        let x = self.get(x, Rows)?;
        let Some(bias) = bias else {
            return Ok(self.builder.gemm(&node.name, &rows, &weight, Some(&x)));
        };
        let name = format!("{}.proj", node.name);
        let y = self.builder.gemm(&name, &rows, &weight, Some(&bias));
        Ok(self.builder.add(&node.name, &x, &y))
    }
}
