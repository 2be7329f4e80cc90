//! What a matrix becomes when it is placed: every target, kind of number and width.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use half::{bf16, f16};

use super::*;
use crate::loader::weights::tensor_of;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 7919) % 1013) as f32 * 0.002 - 1.0).collect()
}

fn tensor(numbers: &[f32], shape: [usize; 2], dtype: Dtype) -> Tensor {
    let bytes = |number: &f32| match dtype {
        Dtype::F32 => number.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(*number).to_le_bytes().to_vec(),
        _ => bf16::from_f32(*number).to_le_bytes().to_vec(),
    };
    tensor_of(&numbers.iter().flat_map(bytes).collect::<Vec<_>>(), &shape, dtype)
}

fn product(threads: &Threads, linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    Products::default().forward(threads, x, [(linear, &mut out)]).unwrap();
    out
}

#[test]
fn any_width_is_quantised_as_far_as_it_goes() {
    let threads = Threads::new(2).unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for (outputs, inputs, q4k, q8_0) in [
            (1, 1, Form::Dense, Form::Dense),
            (3, 33, Form::Dense, Form::Dense),
            (1, 64, Form::ThirtyTwo, Form::ThirtyTwo),
            (20, 320, Form::ThirtyTwo, Form::ThirtyTwo),
            (17, 256, Form::K, Form::ThirtyTwo),
        ] {
            let (weights, x) = (numbers(outputs * inputs), numbers(3 * inputs));
            for (target, form) in [(Quantization::Q4K, q4k), (Quantization::Q8_0, q8_0)] {
                let tensor = tensor(&weights, [outputs, inputs], dtype);
                let linear = Linear::new(&tensor, Some(target), &threads).unwrap();
                assert_eq!(linear.form(), form, "{dtype:?} {outputs}×{inputs} {target:?}");
                assert_eq!(linear.size().weights as usize, outputs * inputs);
                for (index, value) in product(&threads, &linear, &x).into_iter().enumerate() {
                    let (x, w) = (&x[index / outputs * inputs..], &weights[index % outputs * inputs..]);
                    let terms = || (0..inputs).map(|k| f64::from(x[k]) * f64::from(w[k]));
                    let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    let close = (f64::from(value) - exact).abs() <= 0.03 * size;
                    assert!(close, "{dtype:?} {outputs}×{inputs} {target:?}: {value}, not {exact}");
                }
            }
        }
    }
}

/// A broken file is served, nonsense and all, rather than a reason to stop.
#[test]
fn weights_that_are_no_numbers_do_not_stop_the_engine() {
    let threads = Threads::new(1).unwrap();
    for broken in [f32::NAN, f32::INFINITY, f32::MAX] {
        for target in [None, Some(Quantization::Q4K), Some(Quantization::Q8_0)] {
            let mut weights = numbers(4 * 256);
            weights[256 + 7] = broken;
            let linear = Linear::new(&tensor(&weights, [4, 256], Dtype::F32), target, &threads).unwrap();
            let out = product(&threads, &linear, &numbers(256));
            assert!([out[0], out[2], out[3]].iter().all(|value| value.is_finite()), "{broken} {target:?}");
        }
    }
}
