//! The rotary embedding and the write into the cache, number by number.

use super::{
    super::{Heads, KvElement},
    sequences::{KINDS, Plane, Row, Sequences, Setting},
    *,
};

fn heads(head_dim: usize, interleaved: bool) -> Heads {
    Heads { heads: 6, kv_heads: 2, head_dim, interleaved, window: None }
}

fn small(kind: (Element, KvElement)) -> Setting {
    Setting { kind, heads: heads(64, false), block_size: 8 }
}

/// A head of a row, turned unless it is a value's.
fn turned(sequences: &Sequences, row: Row, head: usize) -> Vec<f64> {
    let Heads { heads, kv_heads, head_dim, interleaved, .. } = sequences.setting.heads;
    let width = sequences.setting.heads.qkv_width();
    let numbers = &sequences.qkv[row.sequence][row.position * width + head * head_dim..][..head_dim];
    let mut out: Vec<f64> = numbers.iter().map(|&number| f64::from(number)).collect();
    if head >= heads + kv_heads {
        return out;
    }
    for pair in 0..head_dim / 2 {
        let (a, b) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + head_dim / 2) };
        let angle = &sequences.angles[row.position * head_dim + 2 * pair..][..2];
        let (x, y, cos, sin) = (out[a], out[b], f64::from(angle[0]), f64::from(angle[1]));
        (out[a], out[b]) = (x * cos - y * sin, y * cos + x * sin);
    }
    out
}

/// Rows after the kernel, and what it stored, against [`turned`].
fn check(sequences: &Sequences, rows: &[Row], after: &[u8]) {
    let Heads { heads, kv_heads, head_dim, .. } = sequences.setting.heads;
    let ((element, kv), stored) = (sequences.setting.kind, sequences.stored());
    let width = sequences.setting.heads.qkv_width();
    for (row, after) in rows.iter().zip(from_bytes(after, element).chunks(width)) {
        let before = &sequences.qkv[row.sequence][row.position * width..][..width];
        assert_eq!(after[heads * head_dim..], before[heads * head_dim..], "keys and values stay as they are");
        for head in 0..heads + 2 * kv_heads {
            let (found, extra) = match head.checked_sub(heads) {
                None => (&after[head * head_dim..][..head_dim], 0.0),
                Some(index) => {
                    let place = sequences.place(*row, index % kv_heads);
                    let extra = if kv == KvElement::Q8 { 0.51 / 127.0 } else { 0.0 };
                    (&stored[index / kv_heads][place * head_dim..][..head_dim], extra)
                }
            };
            let what = format!("{:?}: {row:?} head {head}", sequences.setting);
            let share = tolerance(element) + extra;
            assert_rows_close(found, &turned(sequences, *row, head), head_dim, share, &what);
        }
    }
}

/// Whatever no row was written to is as it was.
fn check_untouched(sequences: &Sequences, rows: &[Row]) {
    let kv_heads = sequences.setting.heads.kv_heads;
    let written: Vec<usize> =
        rows.iter().flat_map(|&row| (0..kv_heads).map(move |head| sequences.place(row, head))).collect();
    let planes = sequences.planes();
    let untouched = |plane: &Plane, written: &[usize], places: usize| {
        let bytes = plane.bytes.len() / places;
        (0..places).filter(|place| !written.contains(place)).all(|place| {
            let scale = plane.scales.get(place).is_none_or(|&scale| f32::from_bits(scale).is_nan());
            scale && plane.bytes[place * bytes..][..bytes].iter().all(|&byte| byte == 0xff)
        })
    };
    let last = sequences.place(sequences.padding(), kv_heads - 1) + sequences.setting.block_size;
    for (layer, written) in planes.iter().zip([&[][..], &written]) {
        assert!(layer.iter().all(|plane| untouched(plane, written, last)), "{:?}", sequences.setting);
    }
}

#[test]
fn queries_turn_in_place_and_keys_and_values_go_to_their_slots() {
    let gpu = gpu();
    for kind in KINDS {
        for (head_dim, interleaved) in [(8, true), (48, false), (64, true), (128, false), (256, true)] {
            let setting = Setting { kind, heads: heads(head_dim, interleaved), block_size: 8 };
            let mut sequences = Sequences::new(&gpu, setting, &[13, 9]);
            let rows = sequences.rows();
            let after = sequences.write(&rows);
            check(&sequences, &rows, &after);
            check_untouched(&sequences, &rows);
        }
    }
}

#[test]
fn what_is_written_does_not_depend_on_what_else_is() {
    let gpu = gpu();
    for kind in KINDS {
        let mut together = Sequences::new(&gpu, small(kind), &[150, 72]);
        let rows = together.rows();
        let after = together.write(&rows);
        let mut apart = Sequences::new(&gpu, small(kind), &[150, 72]);
        let (mut rest, mut pieces) = (&rows[..], Vec::new());
        for count in TOGETHER {
            let (part, others) = rest.split_at(count);
            pieces.extend(apart.write(part));
            rest = others;
        }
        assert!(rest.is_empty() && pieces == after && apart.planes() == together.planes(), "{kind:?}");
    }
}

#[test]
fn rows_that_pad_write_where_nobody_reads() {
    let gpu = gpu();
    for kind in [KINDS[0], KINDS[4]] {
        let mut sequences = Sequences::new(&gpu, small(kind), &[11]);
        let mut rows = sequences.rows();
        rows.extend([sequences.padding(); 5]);
        let after = sequences.write(&rows);
        check(&sequences, &rows, &after);
        check_untouched(&sequences, &rows);
    }
}

/// As the CPU's cache has it: the scale is the largest number's 127th, and what has no inverse is all zeros.
fn as_bytes(numbers: &[f32]) -> (f32, Vec<u8>) {
    let highest = numbers.iter().map(|number| number.to_bits() & 0x7fff_ffff).max().unwrap();
    let scale = f32::from_bits(highest) / 127.0;
    let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let byte = |number: &f32| (number * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
    (scale, numbers.iter().map(byte).collect())
}

#[test]
fn eight_bits_are_those_of_the_cpu_whatever_the_numbers() {
    let gpu = gpu();
    for element in [Element::F32, Element::F16, Element::Bf16] {
        let mut sequences = Sequences::new(&gpu, small((element, KvElement::Q8)), &[7]);
        let (width, head_dim) = (sequences.setting.heads.qkv_width(), 64);
        // Of each row but the first, one number of its last value's head, or all.
        for (row, number) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e4].into_iter().enumerate() {
            sequences.qkv[0][(row + 2) * width - 7 * (row + 1)] = rounded(number, element);
        }
        for (row, number) in [(5, 0.0), (6, 1e-42)] {
            sequences.qkv[0][(row + 1) * width - head_dim..][..head_dim].fill(rounded(number, element));
        }
        sequences.take_qkv();
        let rows = sequences.rows();
        sequences.write(&rows);
        let [_, values] = sequences.planes().swap_remove(1);
        for row in rows {
            let (scale, bytes) = as_bytes(&sequences.qkv[0][(row.position + 1) * width - head_dim..][..head_dim]);
            let place = sequences.place(row, 1);
            let found = f32::from_bits(values.scales[place]);
            assert!(
                found.to_bits() == scale.to_bits() || (found.is_nan() && scale.is_nan()),
                "{row:?} {found} {scale}"
            );
            assert_eq!(values.bytes[place * head_dim..][..head_dim], bytes, "{element:?} {row:?}");
        }
    }
}
