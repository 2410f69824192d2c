//! Affine groups against the floats that MLX reads in them.

use tercel_formats::{Affine, DType, Storage};

use crate::{Layout, PackError, PackedMatrix, Pool, Target, dequantize_row};

/// See `test-data/quants/make_affine.py`.
const FIXTURES: &[u8] = include_bytes!("../../../../../test-data/quants/affine.bin");
const ROWS: usize = 3;
const COLS: usize = 256;

struct Fixture {
    affine: Affine<'static>,
    floats: Vec<f32>,
}

fn fixtures() -> Vec<Fixture> {
    let mut rest = FIXTURES;
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at(len);
        rest = left;
        taken
    };
    let mut all = Vec::new();
    for bits in Affine::BITS {
        for group in Affine::GROUPS {
            let types = [DType::F32, DType::F16, DType::BF16];
            for scale_type in &types[..if group == 64 { 3 } else { 1 }] {
                let numbers = ROWS * COLS / group * scale_type.block_bytes();
                let affine = Affine {
                    bits,
                    group,
                    codes: take(ROWS * COLS * bits as usize / 8),
                    scales: take(numbers),
                    biases: take(numbers),
                    scale_type: *scale_type,
                };
                let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
                let floats = take(4 * ROWS * COLS).chunks_exact(4).map(float).collect();
                all.push(Fixture { affine, floats });
            }
        }
    }
    assert!(rest.is_empty());
    all
}

#[test]
fn rows_are_those_of_mlx() {
    let mut pool = Pool::new(2).unwrap();
    for Fixture { affine, floats } in fixtures() {
        let storage = Storage::Affine(affine);
        let mut row = vec![0.0; COLS];
        for target in [
            Target::AsStored,
            Target::Exact,
            Target::Quantize(DType::Q8_0),
        ] {
            let matrix = PackedMatrix::pack(&mut pool, &storage, ROWS, COLS, target).unwrap();
            for (r, want) in floats.chunks_exact(COLS).enumerate() {
                matrix.row(r, &mut row);
                for (k, (got, want)) in row.iter().zip(want).enumerate() {
                    let place = format!("{} {target:?} row {r} column {k}", matrix.layout());
                    // MLX rounds the product and the sum to the type of the scales.
                    let unit = match affine.scale_type {
                        DType::F16 => 2f32.powi(-11),
                        DType::BF16 => 2f32.powi(-8),
                        _ => {
                            assert_eq!(got.to_bits(), want.to_bits(), "{place}");
                            continue;
                        }
                    };
                    // The product may be as much larger than the sum as the bias is.
                    let largest = got.abs() + 4.0 * 1.1;
                    let error = (got - want).abs();
                    assert!(error <= 2.0 * unit * largest, "{place}: {got} and {want}");
                }
                let mut stored = vec![0.0; COLS];
                dequantize_row(&storage, ROWS, COLS, r, &mut stored).unwrap();
                assert_eq!(stored, row);
            }
        }
    }
}

#[test]
fn the_layout_and_its_size_are_told() {
    let mut pool = Pool::new(1).unwrap();
    for Fixture { affine, .. } in fixtures() {
        let storage = Storage::Affine(affine);
        let Affine { bits, group, .. } = affine;
        let exact = Layout::Plain(DType::F32);
        for (target, layout) in [
            (Target::AsStored, Layout::Affine { bits, group }),
            (Target::Exact, exact),
        ] {
            let bytes = PackedMatrix::packed_bytes(&storage, ROWS, COLS, target).unwrap();
            let matrix = PackedMatrix::pack(&mut pool, &storage, ROWS, COLS, target).unwrap();
            assert_eq!((matrix.bytes(), matrix.layout()), (bytes, layout));
            assert_eq!(matrix.is_quantized(), layout != exact);
            // One tile: the codes, and eight bytes for each group.
            let width = match layout {
                Layout::Affine { .. } => bits as usize * COLS / 8 + 8 * COLS / group,
                Layout::Plain(_) => 4 * COLS,
            };
            assert_eq!(bytes, 8 * width, "{layout}");
        }
    }
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let Fixture { affine, .. } = fixtures().swap_remove(0);
    let mut pool = Pool::new(1).unwrap();
    let mut pack = |affine, rows, cols| {
        let storage = Storage::Affine(affine);
        PackedMatrix::pack(&mut pool, &storage, rows, cols, Target::AsStored).unwrap_err()
    };
    let shorter = |bytes: &'static [u8]| &bytes[..bytes.len() - 1];
    let of =
        |array| move |error| matches!(error, PackError::ArraySize { array: a, .. } if a == array);
    let codes = Affine {
        codes: shorter(affine.codes),
        ..affine
    };
    let scales = Affine {
        scales: shorter(affine.scales),
        ..affine
    };
    let biases = Affine {
        biases: shorter(affine.biases),
        ..affine
    };
    assert!(of("codes")(pack(codes, ROWS, COLS)));
    assert!(of("scales")(pack(scales, ROWS, COLS)));
    assert!(of("biases")(pack(biases, ROWS, COLS)));
    assert!(of("codes")(pack(affine, ROWS + 1, COLS)));
    assert!(of("codes")(pack(affine, ROWS, 2 * COLS)));
    for (rows, cols) in [
        (0, COLS),
        (ROWS, 0),
        (ROWS, COLS - 1),
        (usize::MAX, COLS),
        (ROWS, usize::MAX - 31),
    ] {
        assert!(matches!(
            pack(affine, rows, cols),
            PackError::Size { .. } | PackError::ArraySize { .. }
        ));
    }
    for (bits, group) in [
        (0, 64),
        (1, 64),
        (7, 64),
        (9, 64),
        (32, 64),
        (4, 0),
        (4, 16),
        (4, 256),
    ] {
        let error = pack(
            Affine {
                bits,
                group,
                ..affine
            },
            ROWS,
            COLS,
        );
        assert_eq!(error, PackError::Affine { bits, group });
        assert!(error.to_string().contains("[2, 3, 4, 5, 6, 8]"), "{error}");
    }
    let scale_type = DType::Q8_0;
    let error = pack(
        Affine {
            scale_type,
            ..affine
        },
        ROWS,
        COLS,
    );
    assert_eq!(error, PackError::Unsupported(scale_type));
}
