//! A whole i2RMB block.
//!
//! Where the mixer's result is an image with channels first, as an expansion's is, the block stays
//! so from end to end: a runtime with a blocked layout of its own then keeps it through all of
//! them. An attention in windows works on rows; its block leaves them only around the depthwise
//! convolution, and its residual is the addend of the projection's `Gemm`.

use emoc_ir::{
    Node, NodeId, Result, Value,
    ops::{Act, Conv2d, I2Rmb, Mixer},
};

use super::{
    super::operators::Matrix,
    Layout::{ChannelsLast, Plain, Rows},
    Lowering,
    layout::{Image, Stored},
};

impl Lowering<'_> {
    pub(super) fn block(&mut self, id: NodeId, node: &Node, block: &I2Rmb, x: Value) -> Result<()> {
        let normed = self.normed(node, block, x)?;
        let wide = match &block.mixer {
            Mixer::Expand(act) => self.expand(node, *act, &normed)?,
            Mixer::Attention(op) => {
                self.attend(node, &format!("{}.attention", node.name), op, &normed)?
            }
        };
        let local = self.local(id, node, block, &wide)?;
        match wide.layout() {
            Rows => {
                let y = self.project_rows(node, block, x, &local)?;
                self.bind(id, Rows, y);
            }
            Plain | ChannelsLast => {
                let y = self.project_image(node, block, x, &local)?;
                self.bind(id, Plain, y);
            }
        }
        Ok(())
    }

    fn expand(&mut self, node: &Node, act: Act, x: &Stored) -> Result<Stored> {
        let image = Image {
            c: self.dims(node, "expand.weight")?[0],
            ..x.image()?
        };
        let x = x.get(&mut self.builder, Plain)?;
        let conv = Conv2d {
            act,
            ..Conv2d::pointwise()
        };
        let y = self.slot_conv(node, "expand", &conv, &x)?;
        let name = format!("{}.expand", node.name);
        Ok(Stored::new(&name, Some(image), Plain, y))
    }

    /// The block's input after its norm, if it has one.
    fn normed(&mut self, node: &Node, block: &I2Rmb, x: Value) -> Result<Stored> {
        let Some(norm) = &block.norm else {
            return self.stored(x).cloned();
        };
        let layout = self.channels_last(x)?;
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
            act: match block.local_norm {
                None => block.local_act,
                Some(_) => Act::None,
            },
        };
        let x = wide.get(&mut self.builder, Plain)?;
        let y = self.slot_conv(node, "local", &conv, &x)?;
        let image = Image::of(self.graph.ty(id)).map(|out| Image {
            c: wide_image.c,
            ..out
        });
        let name = format!("{}.local", node.name);
        let mut local = Stored::new(&name, image, Plain, y);
        if let Some(norm) = &block.local_norm {
            let x = local.get(&mut self.builder, ChannelsLast)?;
            let name = format!("{}.local_norm", node.name);
            let slots = ["local_norm.weight", "local_norm.bias"];
            let y = self.normalise(node, slots, wide_image.c, norm, &name, &x)?;
            let act = format!("{name}.act");
            let y = self.builder.activation(&act, &y, block.local_act);
            local = Stored::new(&name, image, ChannelsLast, y);
        }
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
        let (dims, values) = self.matrix(node, "proj.weight")?;
        let weight = Matrix {
            key: &node.weights["proj.weight"],
            dims,
            values: &values,
        };
        let bias = self.weight(node, "proj.bias")?;
        if !block.residual {
            return Ok(self
                .builder
                .product(&node.name, &rows, &weight, bias.as_deref()));
        }
        let x = self.get(x, Rows)?;
        let Some(bias) = bias else {
            return Ok(self.builder.product(&node.name, &rows, &weight, Some(&x)));
        };
        let name = format!("{}.proj", node.name);
        let y = self.builder.product(&name, &rows, &weight, Some(&bias));
        Ok(self.builder.add(&node.name, &x, &y))
    }
}
