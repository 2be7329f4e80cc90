//! Embedding, norm and gate, against plain computations.

use super::{
    super::{Norm, RowKernels},
    *,
};

const ALL: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

#[test]
fn embeddings_are_the_tables_rows_or_those_of_drawn_tokens() {
    let gpu = gpu();
    for (element, width) in ALL.into_iter().zip([72, 256, 13]) {
        let (kernels, table) = (RowKernels::new(&gpu, element).unwrap(), noise(9 * width, 3));
        let hidden: Buffer<f32> = Buffer::of(&gpu, &vec![f32::NAN; 4 * width]).unwrap();
        let (tokens, drawn) = (Buffer::of(&gpu, &[4, -2, 8, -1]).unwrap(), Buffer::of(&gpu, &[7, 2]).unwrap());
        let uploaded = upload(&gpu, &table, element);
        kernels.embed(&hidden, &uploaded, (tokens.at(0), &drawn), (4, width)).unwrap();
        let expected: Vec<f32> = [4, 2, 8, 7]
            .into_iter()
            .flat_map(|token| table[token * width..][..width].iter().map(|&number| rounded(number, element)))
            .collect();
        assert_eq!(hidden.read().unwrap(), expected);
    }
}

/// `hidden + delta`, and its norm.
fn normed(hidden: &[f32], delta: &[f32], weight: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f64>) {
    let (mut sums, mut out) = (Vec::new(), Vec::new());
    for (hidden, delta) in hidden.chunks(weight.len()).zip(delta.chunks(weight.len())) {
        let sum: Vec<f32> = hidden.iter().zip(delta).map(|(hidden, delta)| hidden + delta).collect();
        let square: f64 = sum.iter().map(|&number| f64::from(number).powi(2)).sum();
        let scale = (square / sum.len() as f64 + f64::from(epsilon)).sqrt().recip();
        out.extend(sum.iter().zip(weight).map(|(&number, &weight)| f64::from(number) * scale * f64::from(weight)));
        sums.extend(sum);
    }
    (sums, out)
}

#[test]
fn norms_add_what_the_layer_before_gave_and_keep_it() {
    let gpu = gpu();
    for (element, width) in ALL.into_iter().flat_map(|element| [40, 256, 4096, 5000].map(|width| (element, width))) {
        let kernels = RowKernels::new(&gpu, element).unwrap();
        let (hidden, weight) = (noise(3 * width, 1), noise(width, 2));
        let delta: Vec<f32> = noise(3 * width, 3).into_iter().map(|number| rounded(number, element)).collect();
        let (uploaded, added) = (Buffer::of(&gpu, &hidden).unwrap(), upload(&gpu, &delta, element));
        let (out, scales) = (poisoned(&gpu, 3 * width, element), Buffer::of(&gpu, &weight).unwrap());
        let all = Norm { out: &out, hidden: &uploaded, delta: Some(&added), weight: &scales, rows: 0, epsilon: 1e-5 };
        kernels.add_norm(&all, 3).unwrap();
        let (sums, expected) = normed(&hidden, &delta, &weight, 1e-5);
        assert_eq!(uploaded.read().unwrap(), sums);
        let whole = from_bytes(&out.read().unwrap(), element);
        assert_close(&whole, &expected, tolerance(element), &format!("{element:?} {width}"));

        // Of chosen rows the hidden ones stay as they are.
        let (chosen, fresh) = (Buffer::of(&gpu, &[2, 0]).unwrap(), Buffer::of(&gpu, &hidden).unwrap());
        kernels.add_norm(&Norm { hidden: &fresh, rows: chosen.at(0), ..all }, 2).unwrap();
        assert_eq!(fresh.read().unwrap(), hidden);
        let some = from_bytes(&out.read().unwrap(), element);
        assert!(some[..width] == whole[2 * width..] && some[width..2 * width] == whole[..width], "other bits");
    }
}

#[test]
fn gates_are_silu_times_up() {
    let gpu = gpu();
    for (element, width) in ALL.into_iter().zip([48, 1024, 27]) {
        let (kernels, numbers) = (RowKernels::new(&gpu, element).unwrap(), noise(3 * 2 * width, 5));
        let gate_up = upload(&gpu, &numbers, element);
        let out = poisoned(&gpu, 3 * width, element);
        kernels.gate(out.at(0), &gate_up, 3, width).unwrap();
        let expected: Vec<f64> = numbers
            .chunks(2 * width)
            .flat_map(|row| row[..width].iter().zip(&row[width..]))
            .map(|(&gate, &up)| (f64::from(rounded(gate, element)), f64::from(rounded(up, element))))
            .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
            .collect();
        assert_close(
            &from_bytes(&out.read().unwrap(), element),
            &expected,
            tolerance(element),
            &format!("{element:?}"),
        );
    }
}
