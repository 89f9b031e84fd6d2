//! The reference evaluator against PyTorch's outputs of single operators.
//!
//! `op_golden.json` says for every case how far PyTorch's float32 output is from the same module
//! in float64. That is exactly how far an evaluator without rounding may be from the output.

use std::{collections::BTreeMap, path::Path};

use emoc_ir::{
    Graph, Result, Shape, TensorType, Value, Weight,
    ops::{Act, Attention, Conv2d, Norm, Op, WindowAttention, expand_attention},
    reference::{Precision, Tensor, evaluate},
};
use safetensors::SafeTensors;
use serde_json::Value as Json;

/// Variants of the operators that no published model uses and no op stands for: v split into
/// groups, attention before the projection.
const NOT_MODELLED: [&str; 9] = [
    "attn_remote_vgroup",
    "attn_close_vgroup",
    "attn_hybrid_vgroup",
    "attn_remote_attnpre",
    "attn_close_attnpre",
    "attn_hybrid_attnpre",
    "attn_remote_attnpre_1win",
    "attn_close_attnpre_1win",
    "attn_hybrid_attnpre_1win",
];

/// Our float64 against PyTorch's: the order of sums differs.
const FLOAT64: f64 = 1e-9;

/// Rounding after every op against PyTorch's rounding inside ops as well: never worse, but the
/// errors of two evaluations may add up.
const FLOAT32_FACTOR: f64 = 2.0;

#[test]
fn operators_agree_with_pytorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases = std::fs::read(folder.join("op_golden.json")).expect("the cases");
    let cases: BTreeMap<String, Json> = serde_json::from_slice(&cases).expect("well-formed");
    let bytes = std::fs::read(folder.join("op_golden.safetensors")).expect("the tensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("well-formed");
    let mut skipped = Vec::new();
    for (name, arguments) in &cases {
        if NOT_MODELLED.contains(&name.as_str()) {
            skipped.push(name);
            continue;
        }
        let case = Case {
            name,
            arguments,
            tensors: &tensors,
        };
        let graph = case.graph().unwrap_or_else(|e| panic!("{name}: {e}"));
        let graph = graph.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        let input = [case.tensor("input")];
        let golden = case.tensor("output");
        let rounding = arguments["fp32_fp64_max_abs"].as_f64().expect("a number");
        for (precision, tolerance) in [
            (Precision::F64, rounding + FLOAT64),
            (Precision::F32, FLOAT32_FACTOR * rounding),
        ] {
            let result = evaluate(&graph, &input, precision)
                .expect("an evaluation")
                .remove(0);
            assert_eq!(result.shape, golden.shape, "{name}");
            let pairs = result.data.iter().zip(&golden.data);
            let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(
                difference <= tolerance,
                "{name}, {precision:?}: differs by {difference:.3e}, allowed {tolerance:.3e}"
            );
        }
    }
    assert_eq!(skipped.len(), NOT_MODELLED.len(), "{skipped:?}");
    assert_eq!(cases.len() - skipped.len(), 32);
}

/// One operator with its arguments, parameters, input and output.
struct Case<'a> {
    name: &'a str,
    arguments: &'a Json,
    tensors: &'a SafeTensors<'a>,
}

impl Case<'_> {
    fn find(&self, key: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let view = self.tensors.tensor(&format!("{}.{key}", self.name)).ok()?;
        let floats = view.data().chunks_exact(4);
        let floats = floats.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")));
        Some((view.shape().to_vec(), floats.collect()))
    }

    fn tensor(&self, key: &str) -> Tensor {
        let (shape, data) = self
            .find(key)
            .unwrap_or_else(|| panic!("{}: no {key}", self.name));
        Tensor::from_f32(&shape, &data)
    }

    fn number(&self, argument: &str) -> usize {
        let number = self.arguments[argument].as_u64();
        number.unwrap_or_else(|| panic!("{}: no {argument}", self.name)) as usize
    }

    fn act(&self) -> Act {
        match self.arguments["act_layer"].as_str() {
            Some("silu") => Act::Silu,
            Some("gelu") => Act::Gelu,
            other => panic!("{}: activation {other:?}", self.name),
        }
    }

    /// The operator as a graph from its input to its output.
    fn graph(&self) -> Result<Graph> {
        let mut graph = Graph::new(self.name);
        let ty = TensorType::f32(Shape::fixed(&self.tensor("input").shape));
        let x = graph.add_input("x", ty)?;
        let mut m = Modules { case: self, graph };
        let result = match self.arguments["op"].as_str().expect("an operator") {
            "EW_MHSA_remote" => m.attention("", Attention::Remote, x)?,
            "EW_MHSA_close" => m.attention("", Attention::Close, x)?,
            "EW_MHSA_hybrid" => m.attention("", Attention::Hybrid, x)?,
            "iiRMB" => m.block(x)?,
            "LayerNorm2d" => m.layer_norm("norm", x)?,
            "BatchNorm2d" => m.batch_norm("", x)?,
            "GELU (erf)" => m.plain("act", Op::Activation(Act::Gelu), &[x])?,
            "SiLU" => m.plain("act", Op::Activation(Act::Silu), &[x])?,
            "ConvNormAct" => {
                let (kernel, stride) = (self.number("kernel_size"), self.number("stride"));
                m.conv_norm_act("", kernel, stride, self.number("groups"), x)?
            }
            other => panic!("{}: unknown operator {other}", self.name),
        };
        m.graph.add_output("result", result);
        Ok(m.graph)
    }
}

/// Builds the graph of a case, module by module.
struct Modules<'a> {
    case: &'a Case<'a>,
    graph: Graph,
}

fn join(module: &str, part: &str) -> String {
    if module.is_empty() {
        part.into()
    } else {
        format!("{module}.{part}")
    }
}

impl Modules<'_> {
    /// Adds the parameter to the graph if the case has it.
    fn parameter(&mut self, key: &str) -> bool {
        let Some((shape, values)) = self.case.find(&format!("param.{key}")) else {
            return false;
        };
        self.graph
            .weights
            .insert(key, Weight::owned(&shape, values));
        true
    }

    /// Adds a node whose weights are the module's parameters.
    fn module(&mut self, module: &str, op: Op, x: Value) -> Result<Value> {
        let slots = op.slots().iter().map(|slot| slot.name);
        let keys: Vec<_> = slots.map(|slot| (slot, join(module, slot))).collect();
        let keys: Vec<_> = keys
            .iter()
            .filter(|(_, key)| self.parameter(key))
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let name = join(module, "op");
        Ok(self.graph.add(&name, op, &[x], &keys)?.into())
    }

    fn plain(&mut self, name: &str, op: Op, operands: &[Value]) -> Result<Value> {
        Ok(self.graph.add(name, op, operands, &[])?.into())
    }

    /// The published models and the goldens use PyTorch code with this epsilon.
    fn layer_norm(&mut self, module: &str, x: Value) -> Result<Value> {
        self.module(module, Op::LayerNorm(Norm { eps: 1e-6 }), x)
    }

    fn batch_norm(&mut self, module: &str, x: Value) -> Result<Value> {
        self.module(module, Op::BatchNorm(Norm { eps: 1e-6 }), x)
    }

    fn pointwise(&mut self, module: &str, x: Value) -> Result<Value> {
        self.module(module, Op::Conv2d(Conv2d::pointwise()), x)
    }

    fn conv_norm_act(
        &mut self,
        module: &str,
        kernel: usize,
        stride: usize,
        groups: usize,
        x: Value,
    ) -> Result<Value> {
        let conv = Conv2d {
            stride,
            padding: (kernel - stride).div_ceil(2),
            groups,
            act: Act::None,
        };
        let y = self.module(&join(module, "conv"), Op::Conv2d(conv), x)?;
        let y = self.batch_norm(&join(module, "norm"), y)?;
        self.plain(&join(module, "act"), Op::Activation(Act::Silu), &[y])
    }

    fn attention(&mut self, module: &str, attention: Attention, x: Value) -> Result<Value> {
        let case = self.case;
        let image = self.graph.ty(x).shape.resolve(1);
        let dim_head = case.number("dim_head");
        let op = WindowAttention {
            attention,
            heads: case.number("dim_in") / dim_head,
            window: match case.number("window_size") {
                0 => [image[2], image[3]],
                side => [side; 2],
            },
            scale: (dim_head as f64).powf(-0.5),
            act: case.act(),
        };
        let key = |slot: &str| {
            let (projection, kind) = slot.split_once('.')?;
            Some(join(module, &format!("{projection}.conv.{kind}")))
        };
        let slots = Op::WindowAttention(op.clone()).slots();
        let keys = slots
            .iter()
            .filter_map(|slot| Some((slot.name, key(slot.name)?)));
        let keys: BTreeMap<_, _> = keys.filter(|(_, key)| self.parameter(key)).collect();
        let name = join(module, "attention");
        expand_attention(&mut self.graph, &name, &op, x, |slot| {
            keys.get(slot).cloned()
        })
    }

    fn block(&mut self, x: Value) -> Result<Value> {
        let case = self.case;
        let normed = match case.arguments["norm_layer"].as_str() {
            Some("ln_2d") => self.layer_norm("norm.norm", x)?,
            Some("bn_2d") => self.batch_norm("norm", x)?,
            other => panic!("{}: norm {other:?}", case.name),
        };
        let mut wide: Option<Value> = None;
        let kinds = case.arguments["hybrid_eops"].as_array().expect("a list");
        for (i, kind) in kinds.iter().enumerate() {
            let module = format!("eops.{i}");
            let branch = match kind.as_u64() {
                Some(0) => {
                    let y = self.pointwise(&format!("{module}.net.conv"), normed)?;
                    self.plain(&format!("{module}.act"), Op::Activation(case.act()), &[y])?
                }
                Some(1) => self.attention(&module, Attention::Remote, normed)?,
                Some(2) => self.attention(&module, Attention::Close, normed)?,
                Some(3) => self.attention(&module, Attention::Hybrid, normed)?,
                other => panic!("{}: operator {other:?}", case.name),
            };
            wide = Some(match wide {
                Some(sum) => self.plain(&format!("{module}.sum"), Op::Add, &[sum, branch])?,
                None => branch,
            });
        }
        let mut wide = wide.expect("an operator");
        let skip = case.arguments["has_skip"].as_bool().expect("a flag");
        let mid = self.graph.ty(wide).shape.resolve(1)[1];
        // Without a depthwise convolution PyTorch adds the map to itself.
        let local = match case.number("dw_ks") {
            0 => wide,
            kernel => self.conv_norm_act("conv_local", kernel, case.number("stride"), mid, wide)?,
        };
        wide = if skip {
            self.plain("inner", Op::Add, &[wide, local])?
        } else {
            local
        };
        let mut y = self.pointwise("proj.conv", wide)?;
        if case.find("param.ls.gamma").is_some() {
            y = self.module("ls", Op::LayerScale, y)?;
        }
        if skip {
            self.plain("skip", Op::Add, &[x, y])
        } else {
            Ok(y)
        }
    }
}
