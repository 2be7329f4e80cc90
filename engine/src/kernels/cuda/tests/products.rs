//! Products of every format and kind, against sums in double precision, and a row's bits whoever is beside it.

use candle_core::{
    Device, Shape,
    quantized::{GgmlDType, QTensor},
};

use super::{
    super::{Kind, Placing, Products, RowKernels, RowKinds, SampleKernels, Stack},
    *,
};
use crate::{
    kernels::cpu::quantized_blocks,
    loader::{Dtype, Quantization, Tensor, weights::tensor_of},
};

/// A matrix in a file, and the numbers it stands for.
pub(super) struct Source {
    pub(super) tensor: Tensor,
    pub(super) numbers: Vec<f32>,
}

pub(super) fn dense(outputs: usize, inputs: usize, element: Element, seed: u64) -> Source {
    let dtype = match element {
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::Bf16 => Dtype::Bf16,
    };
    let numbers: Vec<f32> = noise(outputs * inputs, seed).iter().map(|&number| rounded(number, element)).collect();
    Source { tensor: tensor_of(&to_bytes(&numbers, element), &[outputs, inputs], dtype), numbers }
}

fn blocks(outputs: usize, inputs: usize, dtype: GgmlDType, seed: u64) -> Source {
    blocks_of(noise(outputs * inputs, seed), [outputs, inputs], dtype)
}

pub(super) fn blocks_of(numbers: Vec<f32>, [outputs, inputs]: [usize; 2], dtype: GgmlDType) -> Source {
    let numbers = candle_core::Tensor::from_vec(numbers, (outputs, inputs), &Device::Cpu).unwrap();
    let quantized = QTensor::quantize(&numbers, dtype).unwrap();
    let bytes = quantized.data().unwrap().into_owned();
    let numbers = quantized_blocks(&bytes, dtype, &[outputs, inputs]).unwrap().dequantize(&Device::Cpu).unwrap();
    assert_eq!(numbers.shape(), &Shape::from((outputs, inputs)));
    let numbers = numbers.flatten_all().unwrap().to_vec1().unwrap();
    Source { tensor: tensor_of(&bytes, &[outputs, inputs], Dtype::Quantized(dtype)), numbers }
}

/// A stack on the device, and its rows' products in double precision.
pub(super) struct Bench {
    pub(super) gpu: Arc<Gpu>,
    element: Element,
    pub(super) stack: Stack,
    pub(super) products: Products,
    weights: Vec<f32>,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

/// Rows of the largest step.
const ROWS: usize = 100;

impl Bench {
    pub(super) fn new(element: Element, quantize: Option<Quantization>, kind: Kind, sources: &[Source]) -> Self {
        let gpu = gpu();
        let placing = Placing::new(&gpu, element, quantize).unwrap();
        let tensors: Vec<&Tensor> = sources.iter().map(|source| &source.tensor).collect();
        let stack = placing.stack(&tensors).unwrap();
        let products = Products::new(&gpu, element, ROWS, [(kind, &stack)].into_iter()).unwrap();
        let weights: Vec<f32> = sources.iter().flat_map(|source| source.numbers.iter().copied()).collect();
        let inputs = tensors[0].shape[1];
        Self { gpu, element, stack, products, outputs: weights.len() / inputs, inputs, weights }
    }

    pub(super) fn rows(&self, count: usize, seed: u64) -> Vec<f32> {
        noise(count * self.inputs, seed).iter().map(|&number| rounded(number, self.element)).collect()
    }

    pub(super) fn expected(&self, x: &[f32]) -> Vec<f64> {
        let dot = |row: &[f32], weights: &[f32]| -> f64 {
            row.iter().zip(weights).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let products = |row| self.weights.chunks(self.inputs).map(move |weights| dot(row, weights));
        x.chunks(self.inputs).flat_map(products).collect()
    }

    pub(super) fn forward(&self, x: &[f32], answers: usize) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let out = poisoned(&self.gpu, rows * self.outputs, self.element);
        let kinds = RowKinds { answers, prompts: rows - answers };
        self.products.forward(&self.stack, &upload(&self.gpu, x, self.element), kinds, &out).unwrap();
        from_bytes(&out.read().unwrap(), self.element)
    }

    pub(super) fn gated(&self, x: &[f32], answers: usize) -> Vec<f32> {
        let (rows, width) = (x.len() / self.inputs, self.outputs / 2);
        let out = poisoned(&self.gpu, rows * width, self.element);
        let scratch = poisoned(&self.gpu, rows * self.outputs, self.element);
        let kinds = RowKinds { answers, prompts: rows - answers };
        let (x, kernels) = (upload(&self.gpu, x, self.element), RowKernels::new(&self.gpu, self.element).unwrap());
        self.products.gated(&self.stack, &x, kinds, (&out, &scratch), &kernels).unwrap();
        from_bytes(&out.read().unwrap(), self.element)
    }

    pub(super) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let (rows, stride) = (x.len() / self.inputs, SampleKernels::stride(self.outputs) + 4);
        let out: Buffer<f32> = Buffer::of(&self.gpu, &vec![f32::NAN; rows * stride]).unwrap();
        self.products.logits(&self.stack, &upload(&self.gpu, x, self.element), rows, (&out, stride)).unwrap();
        let logits = out.read().unwrap();
        assert!(logits.chunks(stride).all(|row| row[self.outputs..].iter().all(|number| number.is_nan())), "padding");
        logits.chunks(stride).flat_map(|row| &row[..self.outputs]).copied().collect()
    }

    /// All rows' products, and each row's bits whoever is beside it.
    #[track_caller]
    fn check(&self, extra: f64, what: &str) {
        let x = self.rows(ROWS, 11);
        let share = tolerance(self.element) + extra;
        let together = self.forward(&x, ROWS);
        assert_close(&together, &self.expected(&x), share, what);
        for (first, count) in [(0, 1), (7, 1), (63, 1), (99, 1), (3, 9), (20, 30), (50, 50)] {
            let part = &x[first * self.inputs..(first + count) * self.inputs];
            let alone = self.forward(part, count);
            assert!(alone == together[first * self.outputs..(first + count) * self.outputs], "{what}: {first} {count}");
        }
        // Prompts beside answers: the answers' bits, and the prompts' products.
        let mixed = self.forward(&x, 40);
        assert!(mixed[..40 * self.outputs] == together[..40 * self.outputs], "{what}");
        assert_close(&mixed, &self.expected(&x), share + extra, &format!("{what}, prompts"));
        let prompts = self.forward(&x[60 * self.inputs..], 0);
        assert!(prompts == mixed[60 * self.outputs..], "{what}: other prompts beside it");
    }
}

/// What eight bits of floating point cost.
const FP8: f64 = 5e-2;
/// What scales of half precision cost.
const SCALES: f64 = 2e-3;

#[test]
fn dense_products() {
    for (element, inputs) in [(Element::Bf16, 512), (Element::F16, 192), (Element::F32, 72), (Element::Bf16, 40)] {
        let sources = [dense(80, inputs, element, 1), dense(37, inputs, element, 2)];
        Bench::new(element, None, Kind::Linear, &sources).check(0.0, &format!("{element:?} {inputs}"));
    }
}

#[test]
fn quantised_products() {
    use GgmlDType::{Q2K, Q4_0, Q4K, Q5_0, Q5K, Q6K, Q8_0};
    // The last has no kernels, and becomes dense.
    for dtype in [Q8_0, Q4K, Q5K, Q6K, Q4_0, Q5_0, Q2K] {
        let sources = [blocks(96, 512, dtype, 3), blocks(48, 512, dtype, 4)];
        Bench::new(Element::F16, None, Kind::Linear, &sources).check(SCALES, &format!("{dtype:?}"));
    }
}

#[test]
fn stacks_of_different_formats() {
    let sources =
        [blocks(64, 256, GgmlDType::Q4K, 3), blocks(32, 256, GgmlDType::Q6K, 4), dense(16, 256, Element::F16, 5)];
    Bench::new(Element::F16, None, Kind::Linear, &sources).check(SCALES, "mixed");
}

#[test]
fn products_quantised_while_loading() {
    let element = Element::Bf16;
    for (quantize, element, extra) in [
        (Quantization::Fp8, element, FP8),
        (Quantization::Q8_0, Element::F16, 1e-2),
        (Quantization::Q4K, Element::F16, 0.1),
    ] {
        let sources = [dense(96, 512, Element::Bf16, 6), dense(32, 512, Element::Bf16, 7)];
        Bench::new(element, Some(quantize), Kind::Linear, &sources).check(extra, &format!("{quantize:?}"));
    }
}

#[test]
fn gated_products() {
    let cases: [(Element, Option<Quantization>, [Source; 2], f64); 5] = [
        (Element::Bf16, None, [dense(80, 256, Element::Bf16, 1), dense(80, 256, Element::Bf16, 2)], 0.0),
        (Element::F32, None, [dense(24, 72, Element::F32, 1), dense(24, 72, Element::F32, 2)], 0.0),
        (Element::F16, None, [blocks(64, 256, GgmlDType::Q4K, 1), blocks(64, 256, GgmlDType::Q4K, 2)], SCALES),
        (Element::F16, None, [blocks(64, 256, GgmlDType::Q4K, 1), blocks(64, 256, GgmlDType::Q6K, 2)], SCALES),
        (
            Element::Bf16,
            Some(Quantization::Fp8),
            [dense(48, 256, Element::Bf16, 1), dense(48, 256, Element::Bf16, 2)],
            2.0 * FP8,
        ),
    ];
    for (element, quantize, sources, extra) in cases {
        let bench = Bench::new(element, quantize, Kind::Gated, &sources);
        let (x, width) = (bench.rows(70, 5), bench.outputs / 2);
        let both = bench.expected(&x);
        let silu = |gate: f64, up: f64| gate / (1.0 + (-gate).exp()) * up;
        let expected: Vec<f64> = both
            .chunks(2 * width)
            .flat_map(|row| (0..width).map(move |column| silu(row[column], row[width + column])))
            .collect();
        let share = 3.0 * tolerance(element) + extra;
        let together = bench.gated(&x, 70);
        assert_close(&together, &expected, share, &format!("{element:?} {quantize:?}"));
        assert!(bench.gated(&x[..5 * bench.inputs], 5) == together[..5 * width], "{element:?}");
        assert_close(&bench.gated(&x, 33), &expected, share + extra, &format!("{element:?} {quantize:?}, prompts"));
    }
}

#[test]
fn logits_are_in_single_precision() {
    for (element, source) in [
        (Element::Bf16, dense(300, 256, Element::Bf16, 1)),
        (Element::F32, dense(129, 64, Element::F32, 1)),
        (Element::F16, blocks(272, 256, GgmlDType::Q6K, 1)),
    ] {
        let bench = Bench::new(element, None, Kind::Logits, &[source]);
        let x = bench.rows(70, 9);
        let together = bench.logits(&x);
        assert_close(&together, &bench.expected(&x), SCALES, &format!("{element:?}"));
        assert!(bench.logits(&x[69 * bench.inputs..]) == together[69 * bench.outputs..], "{element:?}");
    }
}
