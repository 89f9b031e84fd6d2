//! The reference evaluator against PyTorch's outputs of single operators.
//!
//! `op_golden.json` says for every case how far PyTorch's float32 output is from the same module
//! in float64. That is exactly how far an evaluator without rounding may be from the output.

use std::{collections::BTreeMap, path::Path};

use emoc_ir::{
    Graph, Result, Shape, TensorType, Value, Weight,
    ops::{Act, Attention, Conv2d, I2Rmb, Mixer, Norm, Op, WindowAttention, expand_attention},
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
    let mut modelled = 0;
    let mut skipped = Vec::new();
    for_each_case(|case| {
        if NOT_MODELLED.contains(&case.name) {
            return skipped.push(case.name.to_string());
        }
        modelled += 1;
        let rounding = case.rounding();
        let graph = case.graph();
        check(case, &graph, Precision::F64, rounding + FLOAT64);
        check(case, &graph, Precision::F32, FLOAT32_FACTOR * rounding);
    });
    assert_eq!(skipped.len(), NOT_MODELLED.len(), "{skipped:?}");
    assert_eq!(modelled, 32);
}

/// The same cases as one fused node each, where there is one: this proves the decompositions.
#[test]
fn fused_ops_agree_with_pytorch() {
    let mut checked = Vec::new();
    for_each_case(|case| {
        if NOT_MODELLED.contains(&case.name) {
            return;
        }
        for (graph, tolerance) in case.fused_graphs() {
            check(case, &graph, Precision::F64, case.rounding() + tolerance);
            checked.push(case.name.to_string());
        }
    });
    let count = |prefix: &str| {
        checked
            .iter()
            .filter(|name| name.starts_with(prefix))
            .count()
    };
    // Five of each grouping, and the hybrid with one window also as twice the close one.
    assert_eq!((count("attn"), count("block")), (16, 5), "{checked:?}");
}

fn for_each_case(mut visit: impl FnMut(&Case)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let cases = std::fs::read(folder.join("op_golden.json")).expect("the cases");
    let cases: BTreeMap<String, Json> = serde_json::from_slice(&cases).expect("well-formed");
    let bytes = std::fs::read(folder.join("op_golden.safetensors")).expect("the tensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("well-formed");
    for (name, arguments) in &cases {
        visit(&Case {
            name,
            arguments,
            tensors: &tensors,
        });
    }
}

fn check(case: &Case, graph: &Graph, precision: Precision, tolerance: f64) {
    let name = case.name;
    let graph = graph.clone().verify();
    let graph = graph.unwrap_or_else(|e| panic!("{name}: {e}"));
    let golden = case.tensor("output");
    let result = evaluate(&graph, &[case.tensor("input")], precision);
    let result = result.unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
    assert_eq!(result.shape, golden.shape, "{name}");
    let pairs = result.data.iter().zip(&golden.data);
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(
        difference <= tolerance,
        "{name}, {precision:?}: differs by {difference:.3e}, allowed {tolerance:.3e}"
    );
}

/// What rounding folded weights to float32 adds to a block's output of order 1.
const FOLDED: f64 = 2e-6;

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

    /// How far PyTorch's output is from the same module in float64.
    fn rounding(&self) -> f64 {
        let rounding = self.arguments["fp32_fp64_max_abs"].as_f64();
        rounding.expect("a number")
    }

    /// The operator as a graph from its input to its output.
    fn graph(&self) -> Graph {
        self.build(|m, x| m.operator(x))
    }

    /// The operator as a single node, if there is an op for it, with the tolerance it adds.
    fn fused_graphs(&self) -> Vec<(Graph, f64)> {
        let one_window = self.name == "attn_hybrid_global";
        let attentions: &[_] = match self.arguments["op"].as_str() {
            Some("EW_MHSA_remote") => &[Attention::Remote],
            Some("EW_MHSA_close") => &[Attention::Close],
            Some("EW_MHSA_hybrid") if one_window => &[Attention::Hybrid, Attention::CloseTwice],
            Some("EW_MHSA_hybrid") => &[Attention::Hybrid],
            Some("iiRMB") if self.is_one_block() => {
                return vec![(self.build(|m, x| m.fused_block(x)), FOLDED)];
            }
            _ => &[],
        };
        let graph = |&attention: &Attention| {
            self.build(|m, x| {
                let op = Op::WindowAttention(m.attention_op(attention, x));
                m.fused("attention", op, "", x)
            })
        };
        attentions
            .iter()
            .map(|kind| (graph(kind), FLOAT64))
            .collect()
    }

    /// Whether the case is what `Op::I2Rmb` stands for: one operator and a depthwise convolution.
    fn is_one_block(&self) -> bool {
        let operators = self.arguments["hybrid_eops"].as_array().expect("a list");
        operators.len() == 1 && self.number("dw_ks") > 0
    }

    fn build(&self, body: impl Fn(&mut Modules, Value) -> Result<Value>) -> Graph {
        let mut graph = Graph::new(self.name);
        let ty = TensorType::f32(Shape::fixed(&self.tensor("input").shape));
        let x = graph.add_input("x", ty).expect("an input");
        let mut m = Modules { case: self, graph };
        let result = body(&mut m, x).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        m.graph.add_output("result", result);
        m.graph
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
    fn operator(&mut self, x: Value) -> Result<Value> {
        let case = self.case;
        match case.arguments["op"].as_str().expect("an operator") {
            "EW_MHSA_remote" => self.attention("", Attention::Remote, x),
            "EW_MHSA_close" => self.attention("", Attention::Close, x),
            "EW_MHSA_hybrid" => self.attention("", Attention::Hybrid, x),
            "iiRMB" => self.block(x),
            "LayerNorm2d" => self.layer_norm("norm", x),
            "BatchNorm2d" => self.batch_norm("", x),
            "GELU (erf)" => self.plain("act", Op::Activation(Act::Gelu), &[x]),
            "SiLU" => self.plain("act", Op::Activation(Act::Silu), &[x]),
            "ConvNormAct" => {
                let (kernel, stride) = (case.number("kernel_size"), case.number("stride"));
                self.conv_norm_act("", kernel, stride, case.number("groups"), x)
            }
            other => panic!("{}: unknown operator {other}", case.name),
        }
    }

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
        let op = self.attention_op(attention, x);
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

    fn attention_op(&self, attention: Attention, x: Value) -> WindowAttention {
        let case = self.case;
        let image = self.graph.ty(x).shape.resolve(1);
        let dim_head = case.number("dim_head");
        WindowAttention {
            attention,
            heads: case.number("dim_in") / dim_head,
            window: match case.number("window_size") {
                0 => [image[2], image[3]],
                side => [side; 2],
            },
            scale: (dim_head as f64).powf(-0.5),
            act: case.act(),
            narrow_softmax: false,
        }
    }

    fn block(&mut self, x: Value) -> Result<Value> {
        let case = self.case;
        let normed = self.block_norm(x)?;
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

    fn block_norm(&mut self, x: Value) -> Result<Value> {
        match self.case.arguments["norm_layer"].as_str() {
            Some("ln_2d") => self.layer_norm("norm.norm", x),
            Some("bn_2d") => self.batch_norm("norm", x),
            other => panic!("{}: norm {other:?}", self.case.name),
        }
    }

    /// A fused node whose slot `qk.weight` is the parameter `<module>.qk.conv.weight`.
    fn fused(&mut self, name: &str, op: Op, module: &str, x: Value) -> Result<Value> {
        let slots = op.slots().iter().map(|slot| slot.name);
        let keys = slots.map(|slot| {
            let (part, kind) = slot.split_once('.').expect("a slot of a fused op");
            (slot, join(module, &format!("{part}.conv.{kind}")))
        });
        let keys: Vec<_> = keys.filter(|(_, key)| self.parameter(key)).collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        Ok(self.graph.add(name, op, &[x], &keys)?.into())
    }

    /// The block as one node, its BatchNorms and LayerScale folded into convolutions here: a norm
    /// in front that is a BatchNorm stays a node.
    fn fused_block(&mut self, x: Value) -> Result<Value> {
        let case = self.case;
        let layer_norm = case.arguments["norm_layer"] == "ln_2d";
        let front = if layer_norm { x } else { self.block_norm(x)? };
        let skip = case.arguments["has_skip"].as_bool().expect("a flag");
        let kernel = case.number("dw_ks");
        let stride = case.number("stride");
        let operator = &case.arguments["hybrid_eops"][0];
        let (mixer, mixed) = match operator.as_u64() {
            Some(0) => (Mixer::Expand(case.act()), "eops.0.net"),
            Some(3) => (
                Mixer::Attention(self.attention_op(Attention::Hybrid, x)),
                "eops.0",
            ),
            other => panic!("{}: operator {other:?}", case.name),
        };
        let op = Op::I2Rmb(I2Rmb {
            norm: layer_norm.then_some(Norm { eps: 1e-6 }),
            mixer,
            stride,
            padding: (kernel - stride).div_ceil(2),
            local_norm: None,
            local_act: Act::Silu,
            inner_skip: skip,
            residual: skip && layer_norm,
        });
        let (local_scale, local_bias) = self.batch_norm_as_affine("conv_local.norm");
        self.folded("local.weight", "conv_local.conv.weight", &local_scale);
        let bias: Vec<_> = local_bias.iter().map(|&x| x as f32).collect();
        self.graph
            .weights
            .insert("local.bias", Weight::owned(&[bias.len()], bias));
        let gamma = case.find("param.ls.gamma").map(|(_, gamma)| gamma);
        let outputs = case.tensor("param.proj.conv.weight").shape[0];
        let gamma = gamma.unwrap_or(vec![1.0; outputs]);
        let gamma: Vec<_> = gamma.into_iter().map(f64::from).collect();
        self.folded("proj.weight", "proj.conv.weight", &gamma);
        let slots = op.slots().iter().map(|slot| slot.name);
        let keys = slots.filter_map(|slot| {
            let (part, kind) = slot.split_once('.')?;
            let key = match part {
                "norm" if !layer_norm => return None,
                "norm" => format!("norm.norm.{kind}"),
                "expand" => format!("{mixed}.conv.{kind}"),
                "qk" | "v" => format!("{mixed}.{part}.conv.{kind}"),
                _ => slot.to_string(),
            };
            let known = self.graph.weights.contains(&key) || self.parameter(&key);
            known.then_some((slot, key))
        });
        let keys: Vec<_> = keys.collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let block = self.graph.add("block", op, &[front], &keys)?.into();
        if skip && !layer_norm {
            return self.plain("skip", Op::Add, &[x, block]);
        }
        Ok(block)
    }

    /// Factor and summand by channel of a BatchNorm.
    fn batch_norm_as_affine(&self, module: &str) -> (Vec<f64>, Vec<f64>) {
        let part = |part: &str| self.case.tensor(&format!("param.{module}.{part}")).data;
        let [weight, bias, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(part);
        let scale: Vec<_> = weight
            .iter()
            .zip(variance)
            .map(|(w, v)| w / (v + 1e-6).sqrt())
            .collect();
        let bias = (0..bias.len())
            .map(|c| bias[c] - mean[c] * scale[c])
            .collect();
        (scale, bias)
    }

    /// Adds the weight `key`: the parameter with every output channel scaled.
    fn folded(&mut self, key: &str, parameter: &str, scale: &[f64]) {
        let Tensor { shape, data } = self.case.tensor(&format!("param.{parameter}"));
        let per_output = data.len() / shape[0];
        let scaled = data.iter().enumerate();
        let scaled = scaled.map(|(i, x)| (x * scale[i / per_output]) as f32);
        let weight = Weight::owned(&shape, scaled.collect());
        self.graph.weights.insert(key, weight);
    }
}
