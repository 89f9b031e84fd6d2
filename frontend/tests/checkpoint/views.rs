//! Views of a storage, and conversions, give exactly the elements they describe.

use emoc_frontend::{Checkpoint, Tensor};
use emoc_ir::DType;
use proptest::prelude::*;

use crate::support::{Pickle, archive_of, floats};

/// The only tensor of a checkpoint whose storage holds 0, 1, 2, ... 63.
fn view(offset: i64, sizes: &[i64], strides: &[i64]) -> Tensor {
    let storage: Vec<f32> = (0..64).map(|x| x as f32).collect();
    let pickle = Pickle::new().view(("FloatStorage", "0", 64), offset, sizes, strides);
    let archive = archive_of(pickle.raw(b"."), &[("0", floats(&storage))]);
    let checkpoint = Checkpoint::from_bytes(archive.bytes()).expect("the view is inside");
    checkpoint.tensors()[0].clone()
}

#[test]
fn views_give_their_elements() {
    let check = |name: &str, offset, sizes: &[i64], strides: &[i64], expected: &[f32]| {
        let tensor = view(offset, sizes, strides);
        assert_eq!(tensor.to_f32().expect("floats"), expected, "{name}");
        assert_eq!(tensor.byte_len(), expected.len() * 4, "{name}");
    };
    check("contiguous", 0, &[2, 2], &[2, 1], &[0., 1., 2., 3.]);
    check("offset", 5, &[2], &[1], &[5., 6.]);
    check("transposed", 0, &[2, 3], &[1, 2], &[0., 2., 4., 1., 3., 5.]);
    check("expanded rows", 3, &[2, 2], &[0, 1], &[3., 4., 3., 4.]);
    check("expanded columns", 3, &[2, 2], &[1, 0], &[3., 3., 4., 4.]);
    check("step", 1, &[3], &[4], &[1., 5., 9.]);
    check("diagonal", 0, &[3], &[9], &[0., 9., 18.]);
    check(
        "overlapping",
        0,
        &[3, 2],
        &[1, 1],
        &[0., 1., 1., 2., 2., 3.],
    );
    check("scalar", 7, &[], &[], &[7.]);
    check("last element", 63, &[1], &[1], &[63.]);
    check("empty", 0, &[0], &[1], &[]);
    check("empty at the end", 64, &[2, 0], &[1, 1], &[]);
    check(
        "empty, with sizes whose product overflows",
        0,
        &[1 << 30, 1 << 30, 1 << 30, 0],
        &[1; 4],
        &[],
    );
    check(
        "axis of size 1 with any stride",
        2,
        &[1, 2],
        &[1 << 40, 1],
        &[2., 3.],
    );
    // channels_last of [1, 2, 2, 2].
    let nhwc = [0., 2., 4., 6., 1., 3., 5., 7.];
    check("channels_last", 0, &[1, 2, 2, 2], &[8, 1, 4, 2], &nhwc);
}

proptest! {
    /// Any view inside the storage, against the definition: element i is at offset + i . strides.
    #[test]
    fn any_view_is_as_defined(axes in prop::collection::vec((1i64..4, 0i64..9), 0..5), offset in 0i64..4) {
        let (sizes, strides): (Vec<i64>, Vec<i64>) = axes.iter().copied().unzip();
        let last: i64 = offset + axes.iter().map(|(size, stride)| (size - 1) * stride).sum::<i64>();
        prop_assume!(last < 64);
        let mut expected = vec![offset];
        for &(size, stride) in &axes {
            let steps = expected.iter().flat_map(|at| (0..size).map(move |i| at + i * stride));
            expected = steps.collect();
        }
        let expected: Vec<f32> = expected.into_iter().map(|at| at as f32).collect();
        let tensor = view(offset, &sizes, &strides);
        prop_assert_eq!(tensor.to_f32().expect("floats"), &expected[..]);
        let owned = Tensor::from_bytes("t", DType::F32, tensor.shape(), floats(&expected));
        let owned = owned.expect("the sizes agree");
        prop_assert_eq!(tensor.sha256(), owned.sha256());
    }
}

#[test]
fn conversions_are_exact_or_rounded_once() {
    let check = |dtype: DType, bytes: Vec<u8>, expected: &[f32]| {
        let shape = [bytes.len() / dtype.size()];
        let tensor = Tensor::from_bytes("t", dtype, &shape, bytes).expect("the sizes agree");
        let found = tensor.to_f32().expect("floats");
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(expected), "{dtype}");
    };
    let shorts = |values: &[u16]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let doubles = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let f16s = [0x0001, 0x03ff, 0x3c00, 0x7bff, 0xfc00, 0x8000];
    let exact = [
        2f32.powi(-24),
        1023.0 * 2f32.powi(-24),
        1.0,
        65504.0,
        f32::NEG_INFINITY,
        -0.0,
    ];
    check(DType::F16, shorts(&f16s), &exact);
    check(
        DType::BF16,
        shorts(&[0x3f80, 0x0001, 0xff7f]),
        &[1.0, f32::from_bits(1 << 16), f32::from_bits(0xff7f_0000)],
    );
    let tie = 1.0 + 2f64.powi(-24);
    let above = tie + 2f64.powi(-52);
    check(
        DType::F64,
        doubles(&[tie, above, 1e300]),
        &[1.0, 1.0 + f32::EPSILON, f32::INFINITY],
    );

    for dtype in [
        DType::I64,
        DType::U8,
        DType::Bool,
        DType::C64,
        DType::F8E4M3,
    ] {
        let bytes = vec![0; dtype.size()];
        let tensor = Tensor::from_bytes("t", dtype, &[1], bytes).expect("the sizes agree");
        let error = tensor.to_f32().expect_err("no floats");
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}
