//! Ops that correspond to PyTorch modules and functions.

use emoc_ir::{
    DType, Node, NodeId, Result, Value,
    ops::{Act, Conv2d, Norm},
};

use super::{
    super::{builder::Attr, operators::Matrix},
    Layout::{self, ChannelsLast, Plain, Rows},
    Lowering,
};

impl Lowering<'_> {
    pub(super) fn input(&mut self, id: NodeId, node: &Node) {
        let name = self.builder.unique(&node.name);
        self.bind(id, Plain, name);
    }

    pub(super) fn constant(&mut self, id: NodeId, node: &Node) -> Result<()> {
        if let Some(tensor) = self.weight(node, "value")? {
            self.bind(id, Plain, tensor);
        }
        Ok(())
    }

    pub(super) fn conv2d(
        &mut self,
        id: NodeId,
        node: &Node,
        conv: &Conv2d,
        x: Value,
    ) -> Result<()> {
        let x = self.plain(x)?;
        let dims = self.dims(node, "weight")?;
        let weights = self.weights(node)?;
        let weights: Vec<_> = weights.iter().map(String::as_str).collect();
        let kernel = [dims[2], dims[3]];
        let y = match conv.act {
            Act::None => self.builder.conv(&node.name, &x, &weights, kernel, conv),
            act => {
                let name = format!("{}.conv", node.name);
                let y = self.builder.conv(&name, &x, &weights, kernel, conv);
                self.builder.activation(&node.name, &y, act)
            }
        };
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn batch_norm(
        &mut self,
        id: NodeId,
        node: &Node,
        norm: &Norm,
        x: Value,
    ) -> Result<()> {
        let x = self.plain(x)?;
        let weights = self.weights(node)?;
        let inputs: Vec<_> = [&x]
            .into_iter()
            .chain(&weights)
            .map(String::as_str)
            .collect();
        let eps = vec![("epsilon", Attr::Float(norm.eps as f32))];
        let y = self
            .builder
            .op("BatchNormalization", &node.name, &inputs, eps);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn layer_norm(
        &mut self,
        id: NodeId,
        node: &Node,
        norm: &Norm,
        x: Value,
    ) -> Result<()> {
        let layout = self.channels_last(x)?;
        let channels = self.image(x)?.c;
        let x = self.get(x, layout)?;
        let y = self.normalise(node, ["weight", "bias"], channels, norm, &node.name, &x)?;
        self.bind(id, layout, y);
        Ok(())
    }

    /// The layout with channels last that a value is nearest to.
    pub(super) fn channels_last(&self, x: Value) -> Result<Layout> {
        Ok(match self.stored(x)?.layout() {
            Rows => Rows,
            Plain | ChannelsLast => ChannelsLast,
        })
    }

    /// LayerNorm over the last axis of a tensor, with the weights in these slots of a node.
    pub(super) fn normalise(
        &mut self,
        node: &Node,
        [weight, bias]: [&str; 2],
        channels: usize,
        norm: &Norm,
        name: &str,
        x: &str,
    ) -> Result<String> {
        let scale = match self.weight(node, weight)? {
            Some(scale) => scale,
            None => self.ones(channels),
        };
        let bias = self.weight(node, bias)?;
        Ok(self
            .builder
            .layer_norm(name, x, &scale, bias.as_deref(), norm.eps))
    }

    pub(super) fn activation(&mut self, id: NodeId, act: Act, x: Value) -> Result<()> {
        let layout = self.stored(x)?.layout();
        let x = self.get(x, layout)?;
        let y = self.builder.activation(&self.name(id.into()), &x, act);
        self.bind(id, layout, y);
        Ok(())
    }

    pub(super) fn layer_scale(&mut self, id: NodeId, node: &Node, x: Value) -> Result<()> {
        let x = self.plain(x)?;
        if let Some(gamma) = self.weight(node, "gamma")? {
            let y = self.builder.mul(&node.name, &x, &gamma);
            self.bind(id, Plain, y);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, id: NodeId, a: Value, b: Value) -> Result<()> {
        let layouts = [self.stored(a)?.layout(), self.stored(b)?.layout()];
        let layout = if layouts.contains(&Plain) {
            Plain
        } else {
            layouts[0]
        };
        let (a, b) = (self.get(a, layout)?, self.get(b, layout)?);
        let y = self.builder.add(&self.name(id.into()), &a, &b);
        self.bind(id, layout, y);
        Ok(())
    }

    pub(super) fn cast(&mut self, id: NodeId, to: DType, x: Value) -> Result<()> {
        let layout = self.stored(x)?.layout();
        let x = self.get(x, layout)?;
        let y = self.builder.cast(&self.name(id.into()), &x, to);
        self.bind(id, layout, y);
        Ok(())
    }

    pub(super) fn scale(&mut self, id: NodeId, factor: f64, x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let factor = self.builder.number(factor as f32);
        let y = self.builder.mul(&self.name(id.into()), &x, &factor);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn pad(&mut self, id: NodeId, [bottom, right]: [usize; 2], x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let pads = [0, 0, 0, 0, 0, 0, bottom as i64, right as i64];
        let y = self.builder.pad(&self.name(id.into()), &x, &pads);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn crop(&mut self, id: NodeId, [height, width]: [usize; 2], x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let ends = [height as i64, width as i64];
        let starts = self.builder.ints("const.crop_starts", &[0, 0]);
        let ends = self
            .builder
            .ints(&format!("const.crop_ends_{height}x{width}"), &ends);
        let axes = self.builder.ints("const.crop_axes", &[2, 3]);
        let inputs = [x.as_str(), &starts, &ends, &axes];
        let y = self
            .builder
            .op("Slice", &self.name(id.into()), &inputs, vec![]);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn split(&mut self, id: NodeId, sizes: &[usize], x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let spelt: Vec<_> = sizes.iter().map(ToString::to_string).collect();
        let ints: Vec<_> = sizes.iter().map(|&size| size as i64).collect();
        let parts = self
            .builder
            .ints(&format!("const.split_{}", spelt.join("x")), &ints);
        let values = (0..sizes.len()).map(|output| Value { node: id, output });
        let values: Vec<_> = values.collect();
        let names: Vec<_> = values.iter().map(|&value| self.name(value)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let axis = vec![("axis", Attr::Int(1))];
        let outputs = self.builder.op_many("Split", &[&x, &parts], &names, axis);
        for (value, output) in values.into_iter().zip(outputs) {
            self.bind(value, Plain, output);
        }
        Ok(())
    }

    pub(super) fn matmul(
        &mut self,
        id: NodeId,
        transpose_b: bool,
        a: Value,
        b: Value,
    ) -> Result<()> {
        let name = self.name(id.into());
        let rank = self.graph.ty(b).shape.rank() as i64;
        let (a, mut b) = (self.plain(a)?, self.plain(b)?);
        if transpose_b {
            let mut perm: Vec<i64> = (0..rank).collect();
            perm.swap(rank as usize - 2, rank as usize - 1);
            b = self
                .builder
                .transpose(&format!("{name}.transpose"), &b, &perm);
        }
        let y = self.builder.matmul(&name, &a, &b);
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn softmax(&mut self, id: NodeId, x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let y = self.builder.softmax(&self.name(id.into()), &x);
        self.bind(id, Plain, y);
        Ok(())
    }

    /// Rows are averaged as they are; channels first through ONNX's own operator.
    pub(super) fn global_avg_pool(&mut self, id: NodeId, x: Value) -> Result<()> {
        let name = self.name(id.into());
        let layout = self.stored(x)?.layout();
        let y = if layout == Plain {
            let x = self.plain(x)?;
            let pooled = format!("{name}.mean");
            let y = self.builder.op("GlobalAveragePool", &pooled, &[&x], vec![]);
            self.builder
                .op("Flatten", &name, &[&y], vec![("axis", Attr::Int(1))])
        } else {
            let image = self.image(x)?;
            let x = self.get(x, layout)?;
            let dims = [image.n, image.pixels().into(), image.c.into()];
            let pixels = self.builder.reshape(&format!("{name}.pixels"), &x, &dims);
            self.builder.reduce_mean(&name, &pixels, 1)
        };
        self.bind(id, Plain, y);
        Ok(())
    }

    pub(super) fn linear(&mut self, id: NodeId, node: &Node, x: Value) -> Result<()> {
        let x = self.plain(x)?;
        let bias = self.weight(node, "bias")?;
        let (dims, values) = self.matrix(node, "weight")?;
        let weight = Matrix {
            key: &node.weights["weight"],
            dims,
            values: &values,
        };
        let y = self
            .builder
            .product(&node.name, &x, &weight, bias.as_deref());
        self.bind(id, Plain, y);
        Ok(())
    }
}
