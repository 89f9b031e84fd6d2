//! Differences of weights, key by key: two tensors are in memory at a time.

use std::{borrow::Cow, collections::BTreeMap};

use emoc_backends::onnx::Initializer;
use emoc_frontend::StateDict;
use emoc_ir::{DType, Result};
use serde::Serialize;

/// The key of all weights of a crate.
const PACKED: &str = "weights.bin";

/// The weights of one side.
pub enum Store {
    StateDict(StateDict),
    Initializers(BTreeMap<String, Initializer>),
    /// All weights of a crate in one file, and what type they have, if it is one.
    Packed(Option<DType>, Vec<u8>),
}

impl Store {
    pub fn initializers(list: Vec<Initializer>) -> Self {
        let named = list.into_iter().map(|weight| (weight.name.clone(), weight));
        Store::Initializers(named.collect())
    }

    /// Every key, with its type and shape.
    fn keys(&self) -> BTreeMap<&str, Form> {
        match self {
            Store::StateDict(state_dict) => state_dict
                .iter()
                .map(|(key, tensor)| (key, Form::new(Some(tensor.dtype()), tensor.shape())))
                .collect(),
            Store::Initializers(list) => list
                .iter()
                .map(|(key, weight)| {
                    let form = Form {
                        is_transposed: weight.is_transposed,
                        is_constant: weight.is_constant(),
                        ..Form::new(weight.dtype, &weight.shape)
                    };
                    (&**key, form)
                })
                .collect(),
            Store::Packed(dtype, bytes) => {
                let size = dtype.map_or(1, DType::size);
                [(PACKED, Form::new(*dtype, &[bytes.len() / size]))].into()
            }
        }
    }

    fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        Ok(match self {
            Store::StateDict(state_dict) => match state_dict.get(key) {
                Some(tensor) => tensor.to_f64()?,
                None => None,
            },
            Store::Initializers(list) => list.get(key).and_then(Initializer::to_f64),
            Store::Packed(dtype, bytes) => dtype.and_then(|dtype| dtype.numbers(bytes)),
        })
    }

    /// The elements as they are stored, where they are no numbers.
    fn bytes(&self, key: &str) -> Result<Option<Cow<'_, [u8]>>> {
        Ok(match self {
            Store::StateDict(state_dict) => state_dict
                .get(key)
                .map(|tensor| tensor.bytes())
                .transpose()?,
            Store::Initializers(list) => list
                .get(key)
                .filter(|weight| weight.dtype.is_some())
                .map(|weight| weight.bytes().into()),
            Store::Packed(_, bytes) => Some(bytes.into()),
        })
    }
}

/// Type and shape.
struct Form {
    dtype: Option<DType>,
    shape: Vec<usize>,
    /// See [`Initializer::is_transposed`].
    is_transposed: bool,
    /// Part of a graph, and no weight.
    is_constant: bool,
}

impl Form {
    fn new(dtype: Option<DType>, shape: &[usize]) -> Self {
        Self {
            dtype,
            shape: shape.to_vec(),
            is_transposed: false,
            is_constant: false,
        }
    }

    /// The shape as another weight has it: a matrix may be stored transposed.
    fn shape_beside(&self, other: &Self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.is_transposed != other.is_transposed {
            shape.reverse();
        }
        shape
    }

    fn is_integer(&self) -> bool {
        let is_number = |dtype: DType| dtype.numbers(&[]).is_some();
        self.dtype
            .is_some_and(|dtype| is_number(dtype) && !dtype.is_float())
    }

    fn dtype(&self) -> &'static str {
        self.dtype.map_or("other", DType::name)
    }
}

/// How the weights differ.
#[derive(Debug, Default, Serialize)]
pub struct WeightsDiff {
    /// Weights with the same values and type.
    pub identical: usize,
    /// Weights with the same values in another type.
    pub same_in_another_type: usize,
    /// The others of the same shape: those that differ most first, integers last.
    pub different: Vec<Row>,
    pub other_shape: Vec<Reshaped>,
    pub only_in_a: Vec<Lone>,
    pub only_in_b: Vec<Lone>,
    /// Of all floating-point weights that both have, as one long vector each.
    #[serde(flatten)]
    pub total: Total,
}

/// How one weight differs. Numbers that cannot be had (an element is NaN or infinite on one side,
/// or the weight holds no numbers) are null.
#[derive(Debug, Serialize)]
pub struct Row {
    pub key: String,
    pub shape: Vec<usize>,
    /// Its types, if there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<[&'static str; 2]>,
    /// Whether it counts something and is no weight, such as `num_batches_tracked`.
    #[serde(skip)]
    pub is_integer: bool,
    /// Elements that differ.
    pub elements: usize,
    /// Elements that are NaN or infinite on one side or both. They have no part in the sums.
    pub nonfinite: usize,
    pub max_abs: f64,
    /// `max_abs` in units of the standard deviation of A's values; of their magnitude if they are
    /// all the same.
    pub relative: f64,
    pub cosine: f64,
}

#[derive(Debug, Serialize)]
pub struct Reshaped {
    pub key: String,
    pub a: Vec<usize>,
    pub b: Vec<usize>,
}

#[derive(Debug, Serialize)]
pub struct Lone {
    pub key: String,
    pub shape: Vec<usize>,
}

/// Sums over many weights.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    dot: f64,
    a: f64,
    b: f64,
    distance: f64,
    /// Elements that are in no sum, since one of them or both are NaN or infinite.
    left_out: usize,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.dot += other.dot;
        self.a += other.a;
        self.b += other.b;
        self.distance += other.distance;
        self.left_out += other.left_out;
    }

    fn cosine(self) -> f64 {
        self.dot / (self.a.sqrt() * self.b.sqrt())
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Total {
    pub cosine: f64,
    /// Length of their difference, in units of A's length.
    pub distance: f64,
    /// Elements that are left out, since one of them or both are NaN or infinite.
    pub nonfinite: usize,
}

/// Compares key by key; none if the weights of one side are packed, and those of the other are not
/// or in another type.
///
/// # Errors
/// A weight cannot be read.
pub fn compare(a: &Store, b: &Store) -> Result<Option<WeightsDiff>> {
    let packed = |store: &Store| match store {
        Store::Packed(dtype, _) => Some(*dtype),
        Store::StateDict(_) | Store::Initializers(_) => None,
    };
    if packed(a) != packed(b) {
        return Ok(None);
    }
    let (in_a, in_b) = (a.keys(), b.keys());
    let mut diff = WeightsDiff::default();
    let mut sums = Sums::default();
    for (key, form) in &in_a {
        match in_b.get(key) {
            None if form.is_constant => {}
            None => diff.only_in_a.push(Lone::new(key, form)),
            Some(other) if form.shape != other.shape_beside(form) => {
                diff.other_shape.push(Reshaped {
                    key: (*key).to_owned(),
                    a: form.shape.clone(),
                    b: other.shape_beside(form),
                })
            }
            Some(other) => diff.add(key, [form, other], [a, b], &mut sums)?,
        }
    }
    let new = in_b
        .iter()
        .filter(|(key, form)| !in_a.contains_key(*key) && !form.is_constant);
    diff.only_in_b = new.map(|(key, form)| Lone::new(key, form)).collect();
    diff.total = Total {
        cosine: sums.cosine(),
        distance: (sums.distance / sums.a).sqrt(),
        nonfinite: sums.left_out,
    };
    // What has no number is as far off as can be.
    let far = |number: f64| {
        if number.is_nan() {
            f64::INFINITY
        } else {
            number
        }
    };
    diff.different.sort_by(|x, y| {
        let order = x.is_integer.cmp(&y.is_integer);
        let order = order.then(far(y.relative).total_cmp(&far(x.relative)));
        order.then_with(|| x.key.cmp(&y.key))
    });
    Ok(Some(diff))
}

impl Lone {
    fn new(key: &str, form: &Form) -> Self {
        let (key, shape) = (key.to_owned(), form.shape.clone());
        Self { key, shape }
    }
}

impl WeightsDiff {
    /// A weight of the same shape on both sides.
    fn add(
        &mut self,
        key: &str,
        forms: [&Form; 2],
        stores: [&Store; 2],
        sums: &mut Sums,
    ) -> Result<()> {
        let [a, b] = stores;
        let same_type = forms[0].dtype == forms[1].dtype;
        let is_float = forms[0].dtype.is_some_and(DType::is_float);
        let (measured, these) = match (a.numbers(key)?, b.numbers(key)?) {
            (Some(x), Some(y)) if forms[0].is_transposed != forms[1].is_transposed => {
                measure(&x, &transposed(&y, &forms[1].shape))
            }
            (Some(x), Some(y)) => measure(&x, &y),
            _ => {
                let (x, y) = (a.bytes(key)?, b.bytes(key)?);
                match same_type && x.is_some() && x == y {
                    true => Default::default(),
                    false => (Measured::UNKNOWN, Sums::default()),
                }
            }
        };
        if is_float {
            sums.add(these);
        }
        match (measured.elements, same_type) {
            (0, _) if forms[0].is_constant => {}
            (0, true) => self.identical += 1,
            (0, false) => self.same_in_another_type += 1,
            _ => self.different.push(Row {
                key: key.to_owned(),
                shape: forms[0].shape.clone(),
                types: (!same_type).then(|| forms.map(Form::dtype)),
                is_integer: forms[0].is_integer(),
                elements: measured.elements,
                nonfinite: these.left_out,
                max_abs: measured.max_abs,
                relative: measured.relative,
                cosine: measured.cosine,
            }),
        }
        Ok(())
    }

    /// Weights of the same shape.
    pub fn compared(&self) -> usize {
        self.identical + self.same_in_another_type + self.different.len()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    elements: usize,
    max_abs: f64,
    relative: f64,
    cosine: f64,
}

impl Measured {
    /// Of what are no numbers.
    const UNKNOWN: Self = Self {
        elements: 1,
        max_abs: f64::NAN,
        relative: f64::NAN,
        cosine: f64::NAN,
    };
}

/// A matrix of this shape, the other way round.
fn transposed(matrix: &[f64], shape: &[usize]) -> Vec<f64> {
    let &[rows, columns] = shape else {
        return matrix.to_vec();
    };
    let column = |column: usize| (0..rows).map(move |row| matrix[row * columns + column]);
    (0..columns).flat_map(column).collect()
}

fn measure(a: &[f64], b: &[f64]) -> (Measured, Sums) {
    let mut sums = Sums::default();
    let mut found = Measured::default();
    let (mut sum, mut largest) = (0.0, 0.0_f64);
    let mut count = 0.0;
    for (&x, &y) in a.iter().zip(b) {
        // Infinities and NaN have no place in sums: one would swallow every other difference.
        if !(x.is_finite() && y.is_finite()) {
            sums.left_out += 1;
            if x != y && !(x.is_nan() && y.is_nan()) {
                found.elements += 1;
                found.max_abs = f64::INFINITY;
            }
            continue;
        }
        count += 1.0;
        sums.add(Sums {
            dot: x * y,
            a: x * x,
            b: y * y,
            distance: (x - y) * (x - y),
            left_out: 0,
        });
        sum += x;
        largest = largest.max(x.abs()).max(y.abs());
        if x != y {
            found.elements += 1;
            found.max_abs = found.max_abs.max((x - y).abs());
        }
    }
    let variance = sums.a / count - (sum / count).powi(2);
    // Of a constant, rounding leaves a variance that is none.
    let spread = match variance > 1e-12 * (sums.a / count) {
        true => variance.sqrt(),
        false => largest,
    };
    if found.elements > 0 {
        found.relative = found.max_abs / spread;
    }
    found.cosine = sums.cosine();
    (found, sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;

    /// What is NaN or infinite takes nothing away from what the others tell.
    #[test]
    fn measures() {
        let check = |a: &[f64], b: &[f64], elements, left_out, max_abs: f64, relative: f64| {
            let (found, sums) = measure(a, b);
            let numbers = [found.max_abs, found.relative];
            let expected = [max_abs, relative];
            assert_eq!(found.elements, elements, "{a:?}, {b:?}");
            assert_eq!(sums.left_out, left_out, "{a:?}, {b:?}");
            assert_eq!(numbers, expected, "{a:?}, {b:?}: maximum, relative");
            assert!(sums.distance.is_finite(), "{a:?}, {b:?}: {sums:?}");
        };
        check(&[1.0, -1.0], &[1.0, -1.0], 0, 0, 0.0, 0.0);
        check(&[1.0, -1.0], &[1.0, 2.0], 1, 0, 3.0, 3.0);
        check(&[2.0, 2.0], &[2.0, 4.0], 1, 0, 2.0, 0.5);
        check(&[1.0, -1.0, INF], &[1.0, 1e6 - 1.0, INF], 1, 1, 1e6, 1e6);
        check(&[1.0, -1.0, NAN], &[1.0, 2.0, NAN], 1, 1, 3.0, 3.0);
        check(&[INF, NAN], &[INF, NAN], 0, 2, 0.0, 0.0);
        check(&[1.0, -1.0, INF], &[1.0, -1.0, -INF], 1, 1, INF, INF);
        check(&[1.0, -1.0, NAN], &[1.0, 2.0, 0.0], 2, 1, INF, INF);
        check(&[NAN], &[0.0], 1, 1, INF, INF);
        check(&[], &[], 0, 0, 0.0, 0.0);
    }
}
