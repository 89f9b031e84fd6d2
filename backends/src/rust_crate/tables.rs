//! The network as tables of Rust constants.

use std::fmt::Write;

use emoc_ir::ops::Act;
use emoc_kernels::cpu::{self, LANES, Shape, panels};

use super::{
    lower::{Block, Conv, Form, Head, LocalNorm, Mixer, Network, Norm, groupings},
    memory::{BlockMemory, Plan},
};
use crate::template::Template;

/// Sets the placeholders of `model.rs`, `output.rs` and the example in `lib.rs`.
pub fn set(template: &mut Template, network: &Network, plan: &Plan) {
    template.set("arena", grouped(plan.len));
    template.set("scratch", grouped(scratch(network)));
    template.set("weights", grouped(network.weights.len()));
    template.set("tables", tables(network, plan).trim_end());
    local_norms(template, network.has_local_norms());
    match &network.head {
        Some(head) => classifier(template, head),
        None => backbone(template, network),
    }
}

/// What blocks with norms after their depthwise convolutions have, and how expansions are run.
fn local_norms(template: &mut Template, present: bool) {
    let texts = match present {
        false => [
            "LayerNorm, Pointwise, Shape,\n        Stem, ",
            "",
            "",
            "",
            "",
            EXPAND,
        ],
        true => [
            "LayerNorm, LocalNorm,\n        Pointwise, Shape, Stem, ",
            "\n    local_norm: Normed,",
            "\n    let local_norm = layers.local_norm(form);",
            "\n    local_norm.run(engine, hidden, out, form.local_norm.skip.then_some(&*mixed));",
            include_str!("template/local_norm.rs"),
            EXPAND_NORMED,
        ],
    };
    let names = [
        "layer_norms",
        "local_norm_field",
        "local_norm_layer",
        "local_norm_run",
        "local_norm",
        "expand",
    ];
    for (name, text) in names.into_iter().zip(texts) {
        template.set(name, text);
    }
}

const EXPAND: &str = "\
    let [x, hidden] = maps(arena, [from, (memory.hidden, out, mid)]);
    expansion.run(engine, x, form.map, hidden, scratch);";

const EXPAND_NORMED: &str = "\
    expand_normed(engine, form, &expansion, &local_norm, from, arena, scratch);";

fn classifier(template: &mut Template, head: &Head) {
    template.set("classes", head.classes);
    template.set("kernel_imports", "average_pool, ");
    template.set("kernel_imports_last", "");
    template.set("head_function", include_str!("template/head.rs"));
    template.set("stage_loop", "for stage in &STAGES");
    template.set("after_stage", "");
    template.set("after_stages", "\n    head(engine, arena, output);");
    let example =
        "//! for (class, logit) in output.top(5) {\n//!     println!(\"{class} {logit}\");\n//! }";
    template.set("example", example);
}

fn backbone(template: &mut Template, network: &Network) {
    let shapes: Vec<_> = network
        .stages
        .iter()
        .map(|stage| {
            let form = &stage.first.form;
            let map = form.output_map();
            [form.outputs, map.height, map.width]
        })
        .collect();
    let listed: Vec<_> = shapes
        .iter()
        .map(|shape| format!("\n    {shape:?},"))
        .collect();
    template.set("count", shapes.len());
    template.set("shapes", listed.concat() + "\n");
    let accessors: Vec<_> = shapes.iter().enumerate().map(|(index, shape)| {
        let stage = index + 1;
        format!(
            "    /// The result of stage {stage}, `{shape:?}`.\n    pub fn stage{stage}(&self) -> &[f32] {{\n        \
             &self.0[{index}]\n    }}\n"
        )
    }).collect();
    template.set("accessors", accessors.join("\n"));
    template.set("kernel_imports", "");
    template.set("kernel_imports_last", ", unpack");
    template.set("head_function", include_str!("template/stage_result.rs"));
    let stage_loop = "for (stage, planes) in STAGES.iter().zip(&mut output.0)";
    template.set("stage_loop", stage_loop);
    template.set(
        "after_stage",
        "\n        stage_result(stage, arena, planes);",
    );
    template.set("after_stages", "");
    template.set("example", "//! println!(\"{:?}\", &output.stage4()[..5]);");
}

/// Scratch that one thread needs at most, for any layer; whole lines of the cache.
fn scratch(network: &Network) -> usize {
    let forms = network.stages.iter().flat_map(|stage| {
        [Some(&stage.first), stage.rest.first()]
            .into_iter()
            .flatten()
            .map(|block| &block.form)
    });
    forms
        .map(form_scratch)
        .max()
        .unwrap_or(0)
        .next_multiple_of(LANES)
}

fn form_scratch(form: &Form) -> usize {
    match &form.mixer {
        Mixer::Expand(_) => {
            let act = cpu::Act::None;
            let (weight, bias) = (0, 0);
            let expand = cpu::Pointwise {
                inputs: form.inputs,
                outputs: form.mid,
                act,
                weight,
                bias,
            };
            let local = cpu::Depthwise {
                channels: form.mid,
                kernel: form.kernel,
                stride: form.stride,
                padding: form.padding,
                act,
                skip: form.inner_skip,
                weight,
                bias,
            };
            cpu::Expansion { expand, local }.scratch_len(form.map)
        }
        Mixer::Attention { op, dim_qk, dim_v } => cpu::Attention {
            heads: op.heads,
            dim_qk: *dim_qk,
            dim_v: *dim_v,
            window: op.window,
            groupings: &[cpu::Grouping::Close],
            factor: 1.0,
        }
        .scratch_len(),
    }
}

/// A number with its thousands apart.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        // clippy takes five digits without separators.
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

fn act(act: Act) -> &'static str {
    match act {
        Act::None => "Act::None",
        Act::Silu => "Act::Silu",
        Act::Gelu => "Act::Gelu",
    }
}

fn shape(shape: Shape) -> String {
    format!("Shape::new({}, {})", shape.height, shape.width)
}

fn tables(network: &Network, plan: &Plan) -> String {
    let mut text = String::new();
    stem(&mut text, network, plan);
    for (index, stage) in network.stages.iter().enumerate() {
        let number = index + 1;
        let [first, rest] = plan.stages[index];
        form(
            &mut text,
            &format!("STAGE{number}_FIRST"),
            &stage.first,
            &first,
        );
        if let Some(block) = stage.rest.first() {
            form(&mut text, &format!("STAGE{number}"), block, &rest);
        }
    }
    stages(&mut text, network);
    if let Some(head) = &network.head {
        self::head(&mut text, network, head, plan);
    }
    text
}

fn stem(text: &mut String, network: &Network, plan: &Plan) {
    let Conv {
        name,
        channels,
        act: stem_act,
        weights,
        ..
    } = &network.stem;
    let half = network.stem_map();
    let bias = weights + panels(*channels) * 27 * LANES;
    let _ = write!(
        text,
        "/// `{name}`: [3, {}, {}] -> [{channels}, {}, {}].\nconst STEM: Stem = Stem {{\n    outputs: \
         {channels},\n    act: {},\n    weight: {},\n    bias: {},\n}};\n\n",
        network.input.height,
        network.input.width,
        half.height,
        half.width,
        act(*stem_act),
        grouped(*weights),
        grouped(bias)
    );
    let Conv {
        name,
        channels,
        kernel,
        padding,
        act: local_act,
        weights,
    } = &network.local;
    let bias = weights + panels(*channels) * kernel * kernel * LANES;
    let _ = write!(
        text,
        "/// `{name}`.\nconst STEM_LOCAL: Depthwise = Depthwise {{\n    channels: {channels},\n    \
         kernel: {kernel},\n    stride: 1,\n    padding: {padding},\n    act: {},\n    skip: \
         false,\n    weight: {},\n    bias: {},\n}};\n\n",
        act(*local_act),
        grouped(*weights),
        grouped(bias)
    );
    let _ = write!(
        text,
        "/// Where the results of both lie.\nconst STEM_AT: [usize; 2] = [{}, {}];\n\n",
        grouped(plan.stem),
        grouped(plan.local)
    );
}

fn form(text: &mut String, name: &str, block: &Block, memory: &BlockMemory) {
    let form = &block.form;
    let out = form.output_map();
    let Form {
        inputs,
        mid,
        outputs,
        map,
        ..
    } = form;
    // After a norm, activation and skip are its.
    let (local_act, skip) = match form.local_norm {
        None => (form.local_act, form.inner_skip),
        Some(_) => (Act::None, false),
    };
    let _ = write!(
        text,
        "/// [{inputs}, {}, {}] -> [{mid}, ..] -> [{outputs}, {}, {}].\nconst {name}: Form = Form {{\n    \
         map: {},\n    channels: [{inputs}, {mid}, {outputs}],\n    norm: {},\n    mixer: {},\n    \
         local: Local {{\n        kernel: {},\n        stride: {},\n        padding: {},\n        act: \
         {},\n        skip: {},\n    }},\n    {}residual: {},\n    memory: Memory {{\n        x: {},\n        \
         normed: {},\n        qk: {},\n        v: {},\n        mixed: {},\n        hidden: {},\n        y: \
         {},\n    }},\n}};\n\n",
        map.height,
        map.width,
        out.height,
        out.width,
        shape(*map),
        norm(form.norm.as_ref()),
        mixer(&form.mixer),
        form.kernel,
        form.stride,
        form.padding,
        act(local_act),
        skip,
        local_norm(form),
        form.residual,
        grouped(memory.x),
        grouped(memory.normed),
        grouped(memory.qk),
        grouped(memory.v),
        grouped(memory.mixed),
        grouped(memory.hidden),
        grouped(memory.y),
    );
}

fn norm(norm: Option<&Norm>) -> String {
    match norm {
        None => "None".into(),
        Some(norm) => format!("Some({})", fields(norm, "    ")),
    }
}

fn fields(Norm { eps, weight, bias }: &Norm, indent: &str) -> String {
    format!(
        "Norm {{\n{indent}    eps: {eps:e},\n{indent}    weight: {weight},\n{indent}    bias: \
         {bias},\n{indent}}}"
    )
}

/// The field `local_norm`, where there is one.
fn local_norm(form: &Form) -> String {
    let Some(LocalNorm {
        norm,
        heads,
        channels,
    }) = &form.local_norm
    else {
        return String::new();
    };
    format!(
        "local_norm: Normed {{\n        norm: {},\n        channels: [{heads}, {channels}],\n        \
         act: {},\n        skip: {},\n    }},\n    ",
        fields(norm, "        "),
        act(form.local_act),
        form.inner_skip,
    )
}

fn mixer(mixer: &Mixer) -> String {
    match mixer {
        Mixer::Expand(expand) => format!("Mixer::Expand({})", act(*expand)),
        Mixer::Attention { op, dim_qk, dim_v } => {
            let (names, factor) = groupings(op.attention);
            let names: Vec<_> = names
                .iter()
                .map(|name| format!("Grouping::{name}"))
                .collect();
            format!(
                "Mixer::Attend(\n        Attention {{\n            heads: {},\n            dim_qk: \
                 {dim_qk},\n            dim_v: {dim_v},\n            window: {:?},\n            groupings: \
                 &[{}],\n            factor: {factor:?},\n        }},\n        {},\n    )",
                op.heads,
                op.window,
                names.join(", "),
                act(op.act)
            )
        }
    }
}

fn stages(text: &mut String, network: &Network) {
    let count = network.stages.len();
    let _ = write!(
        text,
        "/// The stages: names of the blocks in the checkpoint, and where their weights start.\n\
         const STAGES: [Stage; {count}] = [\n"
    );
    for (index, stage) in network.stages.iter().enumerate() {
        let number = index + 1;
        let Block { name, weights, .. } = &stage.first;
        let _ = write!(
            text,
            "    Stage {{\n        first: (&STAGE{number}_FIRST, ({name:?}, {})),\n",
            grouped(*weights)
        );
        let form = if stage.rest.is_empty() { "_FIRST" } else { "" };
        text.push_str(&rest(&format!("&STAGE{number}{form}"), &stage.rest));
        text.push_str("    },\n");
    }
    text.push_str("];\n\n");
}

/// The blocks after the first, in the form that rustfmt gives them.
fn rest(form: &str, blocks: &[Block]) -> String {
    const SHORT: usize = 60;
    let block = |Block { name, weights, .. }: &Block| format!("({name:?}, {})", grouped(*weights));
    let blocks: Vec<_> = blocks.iter().map(block).collect();
    let mut list = format!("[{}]", blocks.join(", "));
    let line = format!("{form}, &{list}");
    if line.len() <= SHORT {
        return format!("        rest: ({line}),\n");
    }
    if list.len() > SHORT {
        let indented = blocks
            .iter()
            .map(|block| format!("                {block},\n"));
        list = format!("[\n{}            ]", indented.collect::<String>());
    }
    format!("        rest: (\n            {form},\n            &{list},\n        ),\n")
}

fn head(text: &mut String, network: &Network, head: &Head, plan: &Plan) {
    let Head {
        norm,
        channels,
        classes,
        weights,
    } = head;
    let map = network.last_map();
    let x = plan.stages.last().map_or(plan.local, |[first, _]| first.y);
    let mut next = *weights;
    let mut take = |len: usize| {
        next += len;
        next - len
    };
    let vector = panels(*channels) * LANES;
    let norm = match norm {
        None => "None".into(),
        Some(norm) => {
            let mut offset = |present: bool| match present {
                true => format!("Some({})", grouped(take(vector))),
                false => "None".into(),
            };
            format!(
                "Some(LayerNorm {{\n        channels: {channels},\n        eps: {:e},\n        weight: \
                 {},\n        bias: {},\n    }})",
                norm.eps,
                offset(norm.weight),
                offset(norm.bias)
            )
        }
    };
    let weight = take(panels(*classes) * channels * LANES);
    let bias = take(panels(*classes) * LANES);
    let [normed, pooled, logits] = plan.head.map(grouped);
    let _ = write!(
        text,
        "/// [{channels}, {}, {}] -> [{channels}] -> [{classes}].\nconst HEAD: Head = Head {{\n    map: \
         {},\n    channels: {channels},\n    norm: {norm},\n    linear: Pointwise {{\n        inputs: \
         {channels},\n        outputs: {classes},\n        act: Act::None,\n        weight: {},\n        \
         bias: {},\n    }},\n    at: [{}, {normed}, {pooled}, {logits}],\n}};\n\n",
        map.height,
        map.width,
        shape(map),
        grouped(weight),
        grouped(bias),
        grouped(x)
    );
}
