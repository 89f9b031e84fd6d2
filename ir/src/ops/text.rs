//! How ops and their attributes are spelt in `.emir` text.

use std::collections::BTreeMap;

use super::{Act, Attention, Conv2d, Grouping, I2Rmb, Mixer, Norm, Op, WindowAttention, Windows};
use crate::DType;

/// The value of one attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AttributeValue {
    /// `stride=2`
    Int(usize),
    /// `eps=1e-6`, `factor=0.25`
    Float(f64),
    /// `window=7x7`, `sizes=16x16`
    Ints(Vec<usize>),
    /// `act=silu`; a flag is the word `yes`
    Word(String),
}

type Attributes = Vec<(&'static str, AttributeValue)>;

/// A closed list of words for an enumeration.
trait Words: Sized + Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> AttributeValue {
        let row = Self::WORDS.iter().find(|row| row.1 == self);
        AttributeValue::Word(row.expect("every variant has a word").0.into())
    }

    fn from_word(word: &str) -> Result<Self, String> {
        let row = Self::WORDS.iter().find(|row| row.0 == word);
        row.map(|row| row.1).ok_or_else(|| {
            let known: Vec<_> = Self::WORDS.iter().map(|row| row.0).collect();
            format!("`{word}` is none of {}", known.join(", "))
        })
    }
}

impl Words for Act {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Act::None),
        ("silu", Act::Silu),
        ("gelu", Act::Gelu),
    ];
}

impl Words for Grouping {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Grouping::Close), ("remote", Grouping::Remote)];
}

impl Words for Attention {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("close", Attention::Close),
        ("remote", Attention::Remote),
        ("hybrid", Attention::Hybrid),
        ("close_twice", Attention::CloseTwice),
    ];
}

/// The mnemonic of an op and those of its attributes that differ from their defaults.
pub(crate) fn to_text(op: &Op) -> (&'static str, Attributes) {
    use AttributeValue::{Float, Int, Ints};
    match op {
        Op::Input => ("input", vec![]),
        Op::Constant => ("constant", vec![]),
        Op::Conv2d(conv) => {
            let mut a = vec![];
            let defaults = [
                ("stride", conv.stride, 1),
                ("padding", conv.padding, 0),
                ("groups", conv.groups, 1),
            ];
            let changed = defaults.iter().filter(|row| row.1 != row.2);
            a.extend(changed.map(|&(name, value, _)| (name, Int(value))));
            act(&mut a, "act", conv.act);
            ("conv2d", a)
        }
        Op::BatchNorm(norm) => ("batch_norm", vec![("eps", Float(norm.eps))]),
        Op::LayerNorm(norm) => ("layer_norm", vec![("eps", Float(norm.eps))]),
        Op::Activation(Act::None) => ("identity", vec![]),
        Op::Activation(Act::Silu) => ("silu", vec![]),
        Op::Activation(Act::Gelu) => ("gelu", vec![]),
        Op::LayerScale => ("layer_scale", vec![]),
        Op::Add => ("add", vec![]),
        Op::Cast { to } => (
            "cast",
            vec![("to", AttributeValue::Word(to.name().to_lowercase()))],
        ),
        Op::Scale { factor } => ("scale", vec![("factor", Float(*factor))]),
        Op::Pad { bottom, right } => (
            "pad",
            vec![("bottom", Int(*bottom)), ("right", Int(*right))],
        ),
        Op::Crop { height, width } => ("crop", vec![("size", Ints(vec![*height, *width]))]),
        Op::Split { sizes } => ("split", vec![("sizes", Ints(sizes.clone()))]),
        Op::WindowPartition(windows) => ("window_partition", windows_attributes(windows)),
        Op::WindowMerge {
            windows,
            height,
            width,
        } => {
            let mut a = windows_attributes(windows);
            a.push(("size", Ints(vec![*height, *width])));
            ("window_merge", a)
        }
        Op::MatMul { transpose_b } => {
            let mut a = vec![];
            flag(&mut a, "transpose_b", *transpose_b);
            ("matmul", a)
        }
        Op::Softmax => ("softmax", vec![]),
        Op::GlobalAvgPool => ("global_avg_pool", vec![]),
        Op::Linear => ("linear", vec![]),
        Op::WindowAttention(op) => ("window_attention", attention_attributes(op)),
        Op::I2Rmb(block) => ("i2rmb", block_attributes(block)),
    }
}

fn act(attributes: &mut Attributes, name: &'static str, act: Act) {
    if act != Act::None {
        attributes.push((name, act.word()));
    }
}

fn flag(attributes: &mut Attributes, name: &'static str, on: bool) {
    if on {
        attributes.push((name, AttributeValue::Word("yes".into())));
    }
}

fn windows_attributes(windows: &Windows) -> Attributes {
    vec![
        ("grouping", windows.grouping.word()),
        ("window", AttributeValue::Ints(windows.window.to_vec())),
        ("heads", AttributeValue::Int(windows.heads)),
    ]
}

fn attention_attributes(op: &WindowAttention) -> Attributes {
    let mut a = vec![
        ("attention", op.attention.word()),
        ("window", AttributeValue::Ints(op.window.to_vec())),
        ("heads", AttributeValue::Int(op.heads)),
    ];
    if op.scale != 1.0 {
        a.push(("scale", AttributeValue::Float(op.scale)));
    }
    act(&mut a, "act", op.act);
    flag(&mut a, "narrow_softmax", op.narrow_softmax);
    a
}

fn block_attributes(block: &I2Rmb) -> Attributes {
    let mut a = vec![];
    if let Some(norm) = &block.norm {
        a.push(("eps", AttributeValue::Float(norm.eps)));
    }
    match &block.mixer {
        Mixer::Expand(expand) => act(&mut a, "act", *expand),
        Mixer::Attention(op) => a.extend(attention_attributes(op)),
    }
    a.push(("stride", AttributeValue::Int(block.stride)));
    a.push(("padding", AttributeValue::Int(block.padding)));
    if let Some(norm) = &block.local_norm {
        a.push(("local_eps", AttributeValue::Float(norm.eps)));
    }
    act(&mut a, "local_act", block.local_act);
    flag(&mut a, "inner_skip", block.inner_skip);
    flag(&mut a, "residual", block.residual);
    a
}

/// The op with this mnemonic and these attributes.
///
/// # Errors
/// An unknown mnemonic, a missing, unknown or malformed attribute.
pub(crate) fn from_text(
    mnemonic: &str,
    attributes: Vec<(String, AttributeValue)>,
) -> Result<Op, String> {
    let mut a = Reader::new(attributes)?;
    let op = match mnemonic {
        "input" => Op::Input,
        "constant" => Op::Constant,
        "conv2d" => Op::Conv2d(Conv2d {
            stride: a.int_or("stride", 1)?,
            padding: a.int_or("padding", 0)?,
            groups: a.int_or("groups", 1)?,
            act: a.act("act")?,
        }),
        "batch_norm" => Op::BatchNorm(a.norm()?),
        "layer_norm" => Op::LayerNorm(a.norm()?),
        "identity" => Op::Activation(Act::None),
        "silu" => Op::Activation(Act::Silu),
        "gelu" => Op::Activation(Act::Gelu),
        "layer_scale" => Op::LayerScale,
        "add" => Op::Add,
        "cast" => Op::Cast { to: a.dtype("to")? },
        "scale" => Op::Scale {
            factor: a.float("factor")?,
        },
        "pad" => Op::Pad {
            bottom: a.int("bottom")?,
            right: a.int("right")?,
        },
        "crop" => {
            let [height, width] = a.pair("size")?;
            Op::Crop { height, width }
        }
        "split" => Op::Split {
            sizes: a.ints("sizes")?,
        },
        "window_partition" => Op::WindowPartition(a.windows()?),
        "window_merge" => {
            let windows = a.windows()?;
            let [height, width] = a.pair("size")?;
            Op::WindowMerge {
                windows,
                height,
                width,
            }
        }
        "matmul" => Op::MatMul {
            transpose_b: a.flag("transpose_b")?,
        },
        "softmax" => Op::Softmax,
        "global_avg_pool" => Op::GlobalAvgPool,
        "linear" => Op::Linear,
        "window_attention" => Op::WindowAttention(a.attention()?),
        "i2rmb" => Op::I2Rmb(a.block()?),
        _ => return Err(format!("unknown op `{mnemonic}`")),
    };
    a.finish()?;
    Ok(op)
}

/// Takes attributes one by one; what is left at the end is unknown.
struct Reader(BTreeMap<String, AttributeValue>);

impl Reader {
    fn new(attributes: Vec<(String, AttributeValue)>) -> Result<Self, String> {
        let mut map = BTreeMap::new();
        for (name, value) in attributes {
            if map.insert(name.clone(), value).is_some() {
                return Err(format!("attribute `{name}` is given twice"));
            }
        }
        Ok(Self(map))
    }

    fn take<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl Fn(AttributeValue) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let value = read(value).ok_or(format!("attribute `{name}` should be {what}"))?;
        Ok(Some(value))
    }

    fn must<T>(name: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or(format!("lacks the attribute `{name}`"))
    }

    fn int_or(&mut self, name: &str, default: usize) -> Result<usize, String> {
        let value = self.take(name, "an integer", |value| match value {
            AttributeValue::Int(n) => Some(n),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }

    fn int(&mut self, name: &str) -> Result<usize, String> {
        Self::must(name, self.0.contains_key(name).then_some(()))?;
        self.int_or(name, 0)
    }

    fn float(&mut self, name: &str) -> Result<f64, String> {
        let value = self.take(name, "a number", |value| match value {
            AttributeValue::Float(x) => Some(x),
            AttributeValue::Int(n) => Some(n as f64),
            _ => None,
        })?;
        Self::must(name, value)
    }

    fn ints(&mut self, name: &str) -> Result<Vec<usize>, String> {
        let value = self.take(name, "integers joined by `x`", |value| match value {
            AttributeValue::Ints(v) => Some(v),
            AttributeValue::Int(n) => Some(vec![n]),
            _ => None,
        })?;
        Self::must(name, value)
    }

    fn pair(&mut self, name: &str) -> Result<[usize; 2], String> {
        let ints = self.ints(name)?;
        ints.try_into()
            .map_err(|_| format!("attribute `{name}` should be two integers"))
    }

    fn word(&mut self, name: &str) -> Result<Option<String>, String> {
        self.take(name, "a word", |value| match value {
            AttributeValue::Word(word) => Some(word),
            _ => None,
        })
    }

    fn one_of<T: Words>(&mut self, name: &str) -> Result<T, String> {
        let word = self.word(name)?;
        T::from_word(&Self::must(name, word)?)
    }

    fn dtype(&mut self, name: &str) -> Result<DType, String> {
        let word = self.word(name)?;
        Self::must(name, word)?.parse()
    }

    fn act(&mut self, name: &str) -> Result<Act, String> {
        let word = self.word(name)?;
        word.map_or(Ok(Act::None), |word| Act::from_word(&word))
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.word(name)?.as_deref() {
            None => Ok(false),
            Some("yes") => Ok(true),
            Some(_) => Err(format!("attribute `{name}` can only be `yes`")),
        }
    }

    fn norm(&mut self) -> Result<Norm, String> {
        let eps = self.float("eps")?;
        Ok(Norm { eps })
    }

    /// The norm whose epsilon has this name; none without it.
    fn norm_if(&mut self, name: &str) -> Result<Option<Norm>, String> {
        let eps = self.0.contains_key(name).then(|| self.float(name));
        Ok(eps.transpose()?.map(|eps| Norm { eps }))
    }

    fn windows(&mut self) -> Result<Windows, String> {
        Ok(Windows {
            grouping: self.one_of("grouping")?,
            window: self.pair("window")?,
            heads: self.int("heads")?,
        })
    }

    fn attention(&mut self) -> Result<WindowAttention, String> {
        Ok(WindowAttention {
            attention: self.one_of("attention")?,
            window: self.pair("window")?,
            heads: self.int("heads")?,
            scale: if self.0.contains_key("scale") {
                self.float("scale")?
            } else {
                1.0
            },
            act: self.act("act")?,
            narrow_softmax: self.flag("narrow_softmax")?,
        })
    }

    fn block(&mut self) -> Result<I2Rmb, String> {
        Ok(I2Rmb {
            norm: self.norm_if("eps")?,
            mixer: if self.0.contains_key("attention") {
                Mixer::Attention(self.attention()?)
            } else {
                Mixer::Expand(self.act("act")?)
            },
            stride: self.int("stride")?,
            padding: self.int("padding")?,
            local_norm: self.norm_if("local_eps")?,
            local_act: self.act("local_act")?,
            inner_skip: self.flag("inner_skip")?,
            residual: self.flag("residual")?,
        })
    }

    fn finish(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            Some(name) => Err(format!("unknown attribute `{name}`")),
            None => Ok(()),
        }
    }
}
