//! Products in every format that a matrix may have on the device: the numbers that it stands for, and every kind and
//! width of product.

use candle_core::quantized::GgmlDType;

use super::{
    super::Kind,
    products::{Bench, Source, blocks_of, dense},
    *,
};
use crate::loader::Quantization;

/// What a matrix is in its file, and becomes on the device.
#[derive(Debug, Clone, Copy)]
enum Form {
    Dense(Element),
    Fp8(Element),
    Blocks(GgmlDType),
}

const FORMS: [Form; 10] = [
    Form::Dense(Element::Bf16),
    Form::Dense(Element::F16),
    Form::Fp8(Element::Bf16),
    Form::Fp8(Element::F16),
    Form::Blocks(GgmlDType::Q8_0),
    Form::Blocks(GgmlDType::Q4_0),
    Form::Blocks(GgmlDType::Q5_0),
    Form::Blocks(GgmlDType::Q4K),
    Form::Blocks(GgmlDType::Q5K),
    Form::Blocks(GgmlDType::Q6K),
];

/// The first chip whose prompts are multiplied in eight bits.
const FP8_CAPABILITY: (u32, u32) = (8, 9);
/// Rows of a step.
const ROWS: usize = 100;

impl Form {
    fn element(self) -> Element {
        match self {
            Self::Dense(element) | Self::Fp8(element) => element,
            Self::Blocks(_) => Element::F16,
        }
    }

    /// What inputs are a multiple of.
    fn grain(self) -> usize {
        match self {
            Self::Blocks(dtype) if dtype.block_size() == 256 => 256,
            _ => 64,
        }
    }

    /// Numbers whose sizes differ from one part of a row to the next, so that scales do, too.
    fn source(self, outputs: usize, inputs: usize, seed: u64) -> Source {
        let sizes = noise(outputs * inputs.div_ceil(32), seed + 1000);
        let numbers = noise(outputs * inputs, seed);
        let sized = numbers.iter().enumerate().map(|(at, number)| number * (sizes[at / 32].abs() + 0.05));
        match self {
            Self::Blocks(dtype) => blocks_of(sized.collect(), [outputs, inputs], dtype),
            Self::Dense(element) => dense(outputs, inputs, element, seed),
            Self::Fp8(element) => {
                let Source { tensor, numbers } = dense(outputs, inputs, element, seed);
                let (bytes, scales) = fp8(&numbers, inputs);
                let numbers = bytes.iter().enumerate().map(|(at, &number)| number * scales[at / inputs]);
                Source { tensor, numbers: numbers.collect() }
            }
        }
    }

    fn bench(self, kind: Kind, outputs: usize, inputs: usize) -> Bench {
        let quantize = matches!(self, Self::Fp8(_)).then_some(Quantization::Fp8);
        let matrices = if kind == Kind::Gated { 2 } else { 1 };
        let sources: Vec<Source> = (0..matrices).map(|seed| self.source(outputs, inputs, seed)).collect();
        Bench::new(self.element(), quantize, kind, &sources)
    }
}

/// The nearest e4m3 number, ties to even.
fn e4m3(number: f32) -> f32 {
    let magnitude = f64::from(number.abs().min(448.0));
    let exponent = magnitude.max(f64::MIN_POSITIVE).log2().floor().max(-6.0);
    let step = (exponent - 3.0).exp2();
    ((magnitude / step).round_ties_even() * step) as f32 * number.signum()
}

/// Rows in eight bits: e4m3 numbers, the largest 448, and a scale for each row.
fn fp8(numbers: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let scale = |row: &[f32]| row.iter().fold(0.0, |most: f32, number| most.max(number.abs())) / 448.0;
    let scales: Vec<f32> = numbers.chunks(width).map(scale).collect();
    (numbers.iter().enumerate().map(|(at, number)| e4m3(number / scales[at / width])).collect(), scales)
}

/// What the bits of a byte stand for.
fn from_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match exponent {
        0 => mantissa / 8.0 * 2_f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[test]
fn eight_bits_of_floating_point_are_the_nearest() {
    for element in [Element::Bf16, Element::F16] {
        let bench = Form::Fp8(element).bench(Kind::Linear, 48, 576);
        let [matrix] = bench.stack.parts.as_slice() else { panic!("one matrix") };
        let (expected, scales) = fp8(&dense(48, 576, element, 0).numbers, 576);
        assert_eq!(matrix.scales.as_ref().unwrap().read().unwrap(), scales);
        let found: Vec<f32> = matrix.weights.read().unwrap().into_iter().map(from_e4m3).collect();
        assert!(found == expected, "{element:?}");
    }
}

/// Rows that each pick one input: their products are a matrix's own numbers.
#[test]
fn a_matrix_is_on_the_device_what_it_is_in_its_file() {
    for form in FORMS {
        let (inputs, outputs) = (2 * form.grain(), 48);
        let bench = form.bench(Kind::Linear, outputs, inputs);
        for first in (0..inputs).step_by(64) {
            let mut x = vec![0.0; 64 * inputs];
            (0..64).for_each(|row| x[row * inputs + first + row] = 1.0);
            let (answers, prompts) = (bench.forward(&x, 64), bench.forward(&x, 0));
            // Output by output, so that a row is as a matrix's is.
            let turned = |products: &[f32]| -> Vec<f32> {
                (0..outputs).flat_map(|output| (0..64).map(move |row| products[row * outputs + output])).collect()
            };
            let expected: Vec<f32> = bench.expected(&x).iter().map(|&number| number as f32).collect();
            let expected: Vec<f64> = turned(&expected).into_iter().map(f64::from).collect();
            let share = match form {
                Form::Blocks(_) => 3e-3,
                Form::Dense(_) => 0.0,
                Form::Fp8(element) => tolerance(element) / 2.0,
            };
            assert_rows_close(&turned(&answers), &expected, 64, share, &format!("{form:?}"));
            assert_rows_close(&turned(&prompts), &expected, 64, share, &format!("{form:?}, prompts"));
            assert!(matches!(form, Form::Fp8(_)) || answers == prompts, "{form:?}: of prompts, other numbers");
        }
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// `silu(gate) · up` of rows of both.
fn gated(both: &[f64], width: usize) -> Vec<f64> {
    let silu = |gate: f64, up: f64| gate / (1.0 + (-gate).exp()) * up;
    both.chunks(2 * width).flat_map(|row| (0..width).map(|at| silu(row[at], row[width + at]))).collect()
}

/// A product of answers' rows, of one kind.
struct Answers {
    bench: Bench,
    kind: Kind,
    what: String,
}

impl Answers {
    fn new(form: Form, kind: Kind, outputs: usize, inputs: usize) -> Self {
        Self { bench: form.bench(kind, outputs, inputs), kind, what: format!("{form:?} {kind:?} {outputs}×{inputs}") }
    }

    fn width(&self) -> usize {
        if self.kind == Kind::Gated { self.bench.outputs / 2 } else { self.bench.outputs }
    }

    fn of(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.bench.inputs;
        match self.kind {
            Kind::Linear => self.bench.forward(x, rows),
            Kind::Gated => self.bench.gated(x, rows),
            Kind::Logits => self.bench.logits(x),
        }
    }

    fn check(&self, share: f64) {
        let Self { bench, what, .. } = self;
        // What nobody has written yet is no number.
        bench.products.workspace.write(0, &vec![f32::NAN; bench.products.workspace.len()]).unwrap();
        let (mut x, inputs, width) = (bench.rows(ROWS, 21), bench.inputs, self.width());
        let together = self.of(&x);
        let sums = bench.expected(&x);
        let expected = if self.kind == Kind::Gated { gated(&sums, width) } else { sums };
        assert_rows_close(&together, &expected, width, share, what);
        let together = bits(&together);
        for count in TOGETHER {
            let first = (ROWS - count) * 2 / 3;
            let part = bits(&self.of(&x[first * inputs..(first + count) * inputs]));
            assert!(part == together[first * width..(first + count) * width], "{what}: {count} rows");
        }
        // Rows that are no numbers are no others' matter.
        let broken = [3, 40, 63, 98];
        broken.iter().for_each(|row| x[row * inputs..(row + 1) * inputs].fill(f32::NAN));
        let beside = bits(&self.of(&x));
        let mut rows = beside.chunks(width).zip(together.chunks(width)).enumerate();
        assert!(rows.all(|(row, (found, expected))| broken.contains(&row) || found == expected), "{what}: beside NaN");
    }
}

/// What rounding costs products of a kind. Blocks are multiplied as halves, with the least weight of each rounded.
fn share(form: Form, kind: Kind) -> f64 {
    match (form, kind) {
        (Form::Blocks(_), Kind::Gated) => 1e-2,
        (Form::Blocks(_), _) => 5e-3,
        (_, Kind::Logits) => tolerance(Element::F32),
        _ => tolerance(form.element()),
    }
}

/// Prompts' rows as they are multiplied: with matrices of eight bits, if the chip does it, in eight bits.
fn multiplied(form: Form, bench: &Bench, x: &[f32]) -> Vec<f32> {
    let eight = matches!(form, Form::Fp8(_)) && bench.outputs.is_multiple_of(16);
    if !eight || bench.gpu.info().capability < FP8_CAPABILITY {
        return x.to_vec();
    }
    let (numbers, scales) = fp8(x, bench.inputs);
    numbers.iter().enumerate().map(|(at, number)| number * scales[at / bench.inputs]).collect()
}

#[test]
fn linear_products_of_every_format_and_width() {
    for form in FORMS {
        let inputs = 3 * form.grain();
        let odd = if matches!(form, Form::Blocks(_)) { 144 } else { 37 };
        for (outputs, inputs) in [(48, form.grain()), (odd, inputs), (32, 4096)] {
            Answers::new(form, Kind::Linear, outputs, inputs).check(share(form, Kind::Linear));
        }
    }
}

#[test]
fn gated_products_of_every_format_and_width() {
    for form in FORMS {
        let odd = if matches!(form, Form::Blocks(_)) { 80 } else { 50 };
        for (outputs, inputs) in [(48, form.grain()), (odd, 2048)] {
            Answers::new(form, Kind::Gated, outputs, inputs).check(share(form, Kind::Gated));
        }
    }
}

#[test]
fn logits_of_every_format_and_width() {
    for form in FORMS {
        let odd = if matches!(form, Form::Blocks(_)) { 144 } else { 131 };
        for (outputs, inputs) in [(48, 3 * form.grain()), (odd, 1024)] {
            Answers::new(form, Kind::Logits, outputs, inputs).check(share(form, Kind::Logits));
        }
    }
}

#[test]
fn products_of_any_shape() {
    // The blocks fill no tiles.
    for (form, outputs, inputs) in [
        (Form::Dense(Element::F32), 33, 77),
        (Form::Dense(Element::F32), 16, 512),
        (Form::Dense(Element::Bf16), 20, 100),
        (Form::Dense(Element::F16), 9, 33),
        (Form::Blocks(GgmlDType::Q4K), 20, 256),
        (Form::Blocks(GgmlDType::Q8_0), 32, 96),
    ] {
        for kind in [Kind::Linear, Kind::Gated, Kind::Logits] {
            Answers::new(form, kind, outputs, inputs).check(share(form, kind));
        }
    }
}

/// Where prompts' rows are cut.
const CUTS: [usize; 6] = [1, 8, 16, 25, 58, ROWS];

#[test]
fn prompts_have_the_same_bits_however_they_are_cut() {
    for form in FORMS.into_iter().chain([Form::Dense(Element::F32)]) {
        let odd = if matches!(form, Form::Blocks(_)) { 144 } else { 37 };
        for (outputs, inputs) in [(48, form.grain()), (odd, 3 * form.grain())] {
            let mut bench = form.bench(Kind::Linear, outputs, inputs);
            let (what, x) = (format!("{form:?} {outputs}×{inputs}"), bench.rows(ROWS, 22));
            let together = bench.forward(&x, 0);
            let multiplied = multiplied(form, &bench, &x);
            assert_rows_close(&together, &bench.expected(&multiplied), outputs, share(form, Kind::Linear), &what);
            let mut first = 0;
            for (end, answers) in CUTS.into_iter().zip([0, 3, 1, 8, 0, 5]) {
                let rows = [&x[..answers * inputs], &x[first * inputs..end * inputs]].concat();
                let found = bench.forward(&rows, answers);
                let (found, expected) = (&found[answers * outputs..], &together[first * outputs..end * outputs]);
                assert!(bits(found) == bits(expected), "{what}: rows {first} to {end} after {answers} answers");
                first = end;
            }
            // Where the library has none of that shape, prompts are multiplied as answers are.
            let answers = bench.forward(&x, ROWS);
            bench.products.prompts.products.clear();
            assert!(bits(&bench.forward(&x, 0)) == bits(&answers), "{what}: without the library");
        }
    }
}

#[test]
fn gated_prompts_are_multiplied_before_they_are_gated() {
    for form in FORMS {
        let (width, inputs) = (48, 2 * form.grain());
        let bench = form.bench(Kind::Gated, width, inputs);
        let (what, x) = (format!("{form:?}"), bench.rows(ROWS, 23));
        let together = bench.gated(&x, 0);
        let sums = bench.expected(&multiplied(form, &bench, &x));
        let share = 2.0 * share(form, Kind::Gated);
        assert_rows_close(&together, &gated(&sums, width), width, share, &what);
        for (first, answers) in [(60, 0), (93, 7)] {
            let rows = [&x[..answers * inputs], &x[first * inputs..]].concat();
            let found = bench.gated(&rows, answers);
            assert!(bits(&found[answers * width..]) == bits(&together[first * width..]), "{what}: from row {first} on");
        }
    }
}
