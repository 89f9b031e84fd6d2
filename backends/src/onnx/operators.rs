//! The operator calls the lowerings are made of, each in the form its operator set wants.

use emoc_ir::{
    DType, Dim,
    ops::{Act, Conv2d},
};

use super::{
    builder::{Attr, Builder, data_type},
    proto::DataType,
};

/// The weight `[O, C]` of a product with rows.
pub(super) struct Matrix<'a> {
    pub(super) key: &'a str,
    pub(super) dims: [usize; 2],
    pub(super) values: &'a [f32],
}

impl Builder {
    pub(super) fn reshape(&mut self, name: &str, x: &str, dims: &[Dim]) -> String {
        // -1 stands for the axis that depends on the batch; no shape here has two of them.
        let target: Vec<i64> = dims
            .iter()
            .map(|dim| dim.fixed().map_or(-1, |n| n as i64))
            .collect();
        let spelt: Vec<_> = target.iter().map(ToString::to_string).collect();
        let shape = self.ints(&format!("const.shape_{}", spelt.join("x")), &target);
        self.op("Reshape", name, &[x, &shape], vec![])
    }

    pub(super) fn transpose(&mut self, name: &str, x: &str, perm: &[i64]) -> String {
        let perm = Attr::Ints(perm.to_vec());
        self.op("Transpose", name, &[x], vec![("perm", perm)])
    }

    /// Picks slices of one axis; `indices` is the name of an initializer.
    pub(super) fn gather(&mut self, name: &str, x: &str, indices: &str, axis: i64) -> String {
        let axis = vec![("axis", Attr::Int(axis))];
        self.op("Gather", name, &[x, indices], axis)
    }

    pub(super) fn add(&mut self, name: &str, a: &str, b: &str) -> String {
        self.op("Add", name, &[a, b], vec![])
    }

    pub(super) fn mul(&mut self, name: &str, a: &str, b: &str) -> String {
        self.op("Mul", name, &[a, b], vec![])
    }

    pub(super) fn matmul(&mut self, name: &str, a: &str, b: &str) -> String {
        self.op("MatMul", name, &[a, b], vec![])
    }

    pub(super) fn softmax(&mut self, name: &str, x: &str) -> String {
        self.op("Softmax", name, &[x], vec![("axis", Attr::Int(-1))])
    }

    pub(super) fn cast(&mut self, name: &str, x: &str, to: DType) -> String {
        let to = Attr::Int(data_type(to) as i64);
        self.op("Cast", name, &[x], vec![("to", to)])
    }

    /// `rows · weightᵀ + addend`, for a weight `[O, C]`. Runtimes that lack a float16 `Gemm`
    /// have a `MatMul`, which wants the weight transposed.
    pub(super) fn product(
        &mut self,
        name: &str,
        rows: &str,
        weight: &Matrix,
        addend: Option<&str>,
    ) -> String {
        let Matrix { key, dims, values } = weight;
        if self.dtype == DType::F32 {
            let weight = self.floats(key, dims, values);
            let inputs: Vec<_> = [rows, &weight].into_iter().chain(addend).collect();
            return self.op("Gemm", name, &inputs, vec![("transB", Attr::Int(1))]);
        }
        let [outputs, inputs] = *dims;
        let column = |input| (0..outputs).map(move |output| values[output * inputs + input]);
        let transposed: Vec<_> = (0..inputs).flat_map(column).collect();
        let weight = self.floats(key, &[inputs, outputs], &transposed);
        match addend {
            None => self.matmul(name, rows, &weight),
            Some(addend) => {
                let y = self.matmul(&format!("{name}.product"), rows, &weight);
                self.add(name, &y, addend)
            }
        }
    }

    /// LayerNorm over the last axis. ONNX demands a scale, also where it is 1.
    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        x: &str,
        scale: &str,
        bias: Option<&str>,
        eps: f64,
    ) -> String {
        let inputs: Vec<_> = [x, scale].into_iter().chain(bias).collect();
        let mut attributes = vec![
            ("axis", Attr::Int(-1)),
            ("epsilon", Attr::Float(eps as f32)),
        ];
        if self.dtype != DType::F32 {
            // The default, but what the numbers depend on is spelt out.
            attributes.push(("stash_type", Attr::Int(DataType::Float as i64)));
        }
        self.op("LayerNormalization", name, &inputs, attributes)
    }

    /// The convolution alone, without the activation of `conv`.
    pub(super) fn conv(
        &mut self,
        name: &str,
        x: &str,
        weights: &[&str],
        kernel: [usize; 2],
        conv: &Conv2d,
    ) -> String {
        let inputs: Vec<_> = [x].into_iter().chain(weights.iter().copied()).collect();
        let ints = |values: &[usize]| Attr::Ints(values.iter().map(|&n| n as i64).collect());
        let attributes = vec![
            ("kernel_shape", ints(&kernel)),
            ("pads", ints(&[conv.padding; 4])),
            ("strides", ints(&[conv.stride; 2])),
            ("group", Attr::Int(conv.groups as i64)),
        ];
        self.op("Conv", name, &inputs, attributes)
    }

    /// Applies an activation; the result has the name `name` unless the activation is none.
    pub(super) fn activation(&mut self, name: &str, x: &str, act: Act) -> String {
        match act {
            Act::None => x.to_string(),
            Act::Silu => {
                let gate = self.op("Sigmoid", &format!("{name}.sigmoid"), &[x], vec![]);
                self.mul(name, x, &gate)
            }
            Act::Gelu if self.opset >= 20 => self.op("Gelu", name, &[x], vec![]),
            Act::Gelu => self.gelu_by_erf(name, x),
        }
    }

    /// `x · (1 + erf(x / √2)) · 0.5`, in the order of operations that optimisers recognise.
    fn gelu_by_erf(&mut self, name: &str, x: &str) -> String {
        let part = |part: &str| format!("{name}.{part}");
        let [root, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|n| self.number(n));
        let scaled = self.op("Div", &part("div"), &[x, &root], vec![]);
        let erf = self.op("Erf", &part("erf"), &[&scaled], vec![]);
        let shifted = self.add(&part("add"), &erf, &one);
        let product = self.mul(&part("mul"), x, &shifted);
        self.mul(name, &product, &half)
    }

    /// Mean over one axis, which disappears.
    pub(super) fn reduce_mean(&mut self, name: &str, x: &str, axis: i64) -> String {
        let keep = ("keepdims", Attr::Int(0));
        if self.opset >= 18 {
            let axes = self.ints(&format!("const.axes_{axis}"), &[axis]);
            return self.op("ReduceMean", name, &[x, &axes], vec![keep]);
        }
        let axes = ("axes", Attr::Ints(vec![axis]));
        self.op("ReduceMean", name, &[x], vec![axes, keep])
    }

    /// Zero padding; `before_and_after` holds the starts of all axes, then their ends.
    pub(super) fn pad(&mut self, name: &str, x: &str, before_and_after: &[i64]) -> String {
        let spelt: Vec<_> = before_and_after.iter().map(ToString::to_string).collect();
        let pads = format!("const.pads_{}", spelt.join("x"));
        let pads = self.ints(&pads, before_and_after);
        self.op("Pad", name, &[x, &pads], vec![])
    }
}
