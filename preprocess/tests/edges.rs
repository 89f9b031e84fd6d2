//! Geometry, degenerate pictures and refusals.

use emoc_preprocess::{
    Error, Geometry, MAX_PICTURE_SIDE, MAX_TARGET_SIDE, MEAN, Picture, STD, Transform,
};

fn transform(height: u32, width: u32) -> Transform {
    Transform::new(height, width).expect("a valid target")
}

/// Of `[width, height]` pictures to `[height, width]` targets.
#[test]
fn geometry() {
    #[rustfmt::skip]
    let cases = [
        // picture,        target,     resized,          left, top
        ([451, 300],       [224, 224], [384, 256],       80,   16),
        ([640, 427],       [224, 224], [383, 256],       80,   16), // 159 / 2 rounds to 80
        ([240, 358],       [224, 224], [256, 381],       16,   78), // 157 / 2 rounds to 78
        ([64, 64],         [64, 64],   [73, 73],         4,    4),  // 9 / 2 rounds to 4
        ([1, 1],           [1, 1],     [1, 1],           0,    0),
        ([1, 1000],        [224, 224], [256, 256_000],   16,   127_888),
        ([1, 1 << 24],     [4096, 4096], [4681, 4681 << 24], 292, ((4681 << 24) - 4096) / 2),
        // Not square: the cover is 342 x 228.
        ([640, 480],       [300, 200], [456, 342],       128,  21),
        ([480, 640],       [300, 200], [256, 342],       28,   21),
        ([100, 640],       [300, 200], [228, 1459],      14,   580),
        ([228, 342],       [300, 200], [228, 342],       14,   21),
    ];
    for ([width, height], target, [resized_width, resized_height], left, top) in cases {
        let case = format!("{width}x{height} to {target:?}");
        let rgb = vec![0; width as usize * height as usize * 3];
        let picture = Picture::new(width, height, &rgb).expect("a valid picture");
        let found = transform(target[0], target[1]).geometry(&picture);
        assert_eq!(
            found,
            Geometry {
                resized_width,
                resized_height,
                left,
                top
            },
            "{case}"
        );
    }
}

/// A picture that already has the resized size is only cropped.
#[test]
fn nothing_to_resize() {
    let (width, height) = (228_usize, 342_usize);
    let rgb: Vec<u8> = (0..width * height * 3)
        .map(|i| (i * 31 % 251) as u8)
        .collect();
    let picture = Picture::new(228, 342, &rgb).expect("a valid picture");
    let crop = transform(300, 200).crop(&picture);
    for (y, row) in crop.chunks_exact(200 * 3).enumerate() {
        let from = ((y + 21) * width + 14) * 3;
        assert_eq!(row, &rgb[from..from + 200 * 3], "row {y}");
    }
}

/// Every byte in every channel, bit for bit: a reciprocal instead of a division shows only in some.
#[test]
fn normalisation() {
    let crop: Vec<u8> = (0..=255).flat_map(|byte| [byte; 3]).collect();
    let mut planes = vec![0.0; 3 * 256];
    transform(16, 16)
        .normalize_into(&crop, &mut planes)
        .expect("the right lengths");
    for (i, found) in planes.iter().enumerate() {
        let (channel, byte) = (i / 256, (i % 256) as u8);
        let unit = f32::from(byte) / 255.0;
        let expected = (unit - MEAN[channel]) / STD[channel];
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "channel {channel}, byte {byte}"
        );
    }
}

/// One colour stays that colour, in its own plane: weights sum to one, channels do not mix.
#[test]
fn one_colour() {
    let colour = [255, 128, 1];
    let expected: Vec<f32> = (0..3)
        .map(|c| (f32::from(colour[c]) / 255.0 - MEAN[c]) / STD[c])
        .collect();
    for (width, height) in [(1, 1), (1, 5000), (5000, 1), (3, 2), (700, 500)] {
        let rgb = colour.repeat((width * height) as usize);
        let picture = Picture::new(width, height, &rgb).expect("a valid picture");
        for (h, w) in [(1, 1), (224, 224), (40, 96)] {
            let planes = transform(h, w).apply(&picture);
            assert_eq!(planes.len(), (3 * h * w) as usize);
            for (plane, value) in planes.chunks_exact((h * w) as usize).zip(&expected) {
                assert!(
                    plane.iter().all(|x| x == value),
                    "{width}x{height} to {h}x{w}"
                );
            }
        }
    }
}

/// The ratio of the sides costs neither time nor memory: resized whole, these would take 69 GB.
#[test]
fn extreme_ratio() {
    let rgb = vec![7; 1 << 20];
    let rgb = &rgb[..(1 << 20) / 3 * 3];
    let long = rgb.len() as u32 / 3;
    for (width, height) in [(long, 1), (1, long)] {
        let picture = Picture::new(width, height, rgb).expect("a valid picture");
        assert!(
            transform(224, 224)
                .crop(&picture)
                .iter()
                .all(|byte| *byte == 7)
        );
    }
}

#[test]
fn refusals() {
    let over = MAX_PICTURE_SIDE + 1;
    for (width, height) in [(0, 1), (1, 0), (over, 1), (1, over), (u32::MAX, u32::MAX)] {
        let found = Picture::new(width, height, &[0; 3]).expect_err("a bad size");
        assert_eq!(found, Error::PictureSize { width, height });
    }
    for (width, height, length) in [
        (2, 2, 11),
        (2, 2, 13),
        (2, 2, 16),
        (1, 1, 0),
        (1 << 24, 1 << 24, 3),
    ] {
        let found = Picture::new(width, height, &vec![0; length]).expect_err("a bad length");
        let expected = u64::from(width) * u64::from(height) * 3;
        assert!(
            matches!(found, Error::Length { expected: e, found: f, .. }
                if e == expected && f == length as u64),
            "{width}x{height}, {length} bytes: {found}"
        );
    }
    for (height, width) in [(0, 1), (1, 0), (MAX_TARGET_SIDE + 1, 1), (1, u32::MAX)] {
        assert_eq!(
            Transform::new(height, width),
            Err(Error::TargetSize { height, width })
        );
    }
    let small = transform(2, 3);
    for (crop, planes) in [(17, 18), (18, 17), (0, 0), (18, 36)] {
        let found = small.normalize_into(&vec![0; crop], &mut vec![0.0; planes]);
        assert!(
            matches!(found, Err(Error::Length { .. })),
            "{crop} bytes, {planes} floats"
        );
    }
    let message = Picture::new(2, 2, &[0; 16])
        .expect_err("a bad length")
        .to_string();
    assert_eq!(
        message,
        "an RGB picture [height, width, 3] must have 12 elements, but 16 were given"
    );
}
