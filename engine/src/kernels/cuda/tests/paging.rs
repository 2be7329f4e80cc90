//! Attention over several sequences at once: every kind of cache and heads, and the same bits however rows are put
//! together, whatever lies where they do not look.

use std::ops::Range;

use super::{
    super::{Heads, KvElement, TILE},
    sequences::{KINDS, Row, Sequences, Setting},
    *,
};

fn setting(kind: (Element, KvElement), [heads, kv_heads, head_dim]: [usize; 3], block_size: usize) -> Setting {
    Setting { kind, heads: Heads { heads, kv_heads, head_dim, interleaved: false, window: None }, block_size }
}

fn windowed(mut setting: Setting, window: usize) -> Setting {
    setting.heads.window = Some(window);
    setting
}

/// Sequences that are written whole.
fn written(gpu: &Arc<Gpu>, setting: Setting, lengths: &[usize]) -> Sequences {
    let mut sequences = Sequences::new(gpu, setting, lengths);
    let rows = sequences.rows();
    sequences.write(&rows);
    sequences
}

/// The last row of each sequence and one within it.
fn some_rows(lengths: &[usize]) -> Vec<Row> {
    let rows = lengths
        .iter()
        .enumerate()
        .flat_map(|(sequence, &length)| [length - 1, length / 2].map(|position| Row { sequence, position }));
    rows.collect()
}

#[test]
fn answers_see_all_that_came_before_them() {
    let gpu = gpu();
    for kind in KINDS {
        // Groups of one to twenty heads; heads that the tensor cores take, and others; blocks of any size.
        for (sizes, block_size, lengths) in [
            ([4, 4, 64], 8, &[1, 7, 130][..]),
            ([8, 2, 128], 16, &[129, 260]),
            ([12, 1, 128], 24, &[200]),
            ([20, 1, 64], 32, &[150]),
            ([4, 2, 40], 16, &[2, 131]),
            ([3, 1, 256], 8, &[40]),
        ] {
            let sequences = written(&gpu, setting(kind, sizes, block_size), lengths);
            let rows = some_rows(lengths);
            sequences.check(&rows, &sequences.answers(&rows, 0, Sequences::splits(&rows)));
        }
    }
}

/// A hundred rows of sequences, in no order.
fn hundred(sequences: &Sequences) -> Vec<Row> {
    let all = sequences.rows();
    (0..100).map(|index| all[(index * 89 + 31) % all.len()]).collect()
}

#[test]
fn an_answers_bits_do_not_depend_on_its_batch() {
    let gpu = gpu();
    for kind in KINDS {
        for sizes in [[4, 2, 64], [2, 1, 24]] {
            let mut sequences = written(&gpu, setting(kind, sizes, 8), &[150, 30, 9]);
            let (rows, bytes) = (hundred(&sequences), sequences.out_bytes());
            let splits = Sequences::splits(&rows);
            let together = sequences.answers(&rows, 0, splits);
            sequences.check(&rows[..10], &together[..10 * bytes]);
            for count in TOGETHER {
                let first = (100 - count) * 2 / 3;
                let part = sequences.answers(&rows[first..first + count], 0, splits);
                assert!(part == together[first * bytes..(first + count) * bytes], "{kind:?} {sizes:?} {count}");
            }
            // Those before are left as they are; there may be splits that nobody needs.
            let rest = sequences.answers(&rows, 60, splits + 3);
            assert!(rest[60 * bytes..] == together[60 * bytes..], "{kind:?} {sizes:?}");
            assert!(rest[..60 * bytes].iter().all(|&byte| byte == 0xff));
            // With room for a few rows they are computed in turns; the room is full of what is no number.
            let each = sizes[0] * splits * (sizes[2] + 2);
            sequences.attention.partial = Buffer::of(&gpu, &vec![f32::NAN; 7 * each + 1]).unwrap();
            assert!(sequences.answers(&rows, 0, splits) == together, "{kind:?} {sizes:?}: in turns");
        }
    }
}

#[test]
fn rows_that_pad_disturb_nobody() {
    let gpu = gpu();
    for kind in KINDS {
        let mut sequences = Sequences::new(&gpu, setting(kind, [4, 2, 64], 16), &[20, 3]);
        let rows = sequences.rows();
        let mut padded = rows.clone();
        padded.extend([sequences.padding(); 9]);
        sequences.write(&padded);
        let alone = sequences.answers(&rows, 0, 1);
        let beside = sequences.answers(&padded, 0, 1);
        assert!(beside[..alone.len()] == alone, "{kind:?}");
        sequences.check(&padded, &beside);
    }
}

#[test]
fn windows_hide_what_is_behind_them() {
    let gpu = gpu();
    for (kind, window) in KINDS.into_iter().zip([1, 16, 100, 33, 128, 129]) {
        for sizes in [[4, 2, 64], [2, 1, 24]] {
            let sequences = written(&gpu, windowed(setting(kind, sizes, 8), window), &[290, 12]);
            let rows = [Row { sequence: 0, position: 289 }, Row { sequence: 1, position: 11 }];
            let answers = sequences.answers(&rows, 0, Sequences::splits(&rows));
            sequences.check(&rows, &answers);
            sequences.spoil(0, 0..290 - window);
            sequences.spoil(1, 0..12_usize.saturating_sub(window));
            let hidden = sequences.answers(&rows, 0, Sequences::splits(&rows));
            assert!(hidden == answers, "{kind:?} {sizes:?} {window}");
        }
    }
}

/// Kinds whose prompts have a kernel of their own.
const PROMPT_KINDS: [(Element, KvElement); 4] = [KINDS[0], KINDS[1], KINDS[3], KINDS[4]];

/// Where prompts are cut.
const CUTS: [usize; 6] = [1, 38, 102, 230, 231, 359];

fn pieces(length: usize) -> Vec<Range<usize>> {
    let starts = [0].into_iter().chain(CUTS).filter(|&start| start < length);
    starts.map(|start| start..CUTS.into_iter().find(|&cut| cut > start).unwrap_or(length).min(length)).collect()
}

/// Prompts piece by piece, each written and attended before the next is there.
fn piece_by_piece(sequences: &mut Sequences, lengths: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    for (sequence, &length) in lengths.iter().enumerate() {
        for (index, positions) in pieces(length).into_iter().enumerate() {
            let rows: Vec<Row> = positions.clone().map(|position| Row { sequence, position }).collect();
            sequences.write(&rows);
            out.extend(sequences.prompts(&[(sequence, positions)], if index % 2 == 0 { TILE } else { 50 }));
        }
    }
    out
}

#[test]
fn a_prompts_bits_do_not_depend_on_how_it_is_cut() {
    let gpu = gpu();
    for kind in PROMPT_KINDS {
        for (sizes, block_size, window) in [
            ([2, 2, 64], 16, None),
            ([4, 1, 128], 8, None),
            ([2, 1, 128], 24, Some(100)),
            ([2, 1, 64], 32, Some(16)),
            ([1, 1, 64], 128, Some(1)),
            ([1, 1, 128], 16, Some(300)),
        ] {
            let lengths: &[usize] = if window == Some(300) { &[400] } else { &[270, 1, 33] };
            let setting = setting(kind, sizes, block_size);
            let setting = window.map_or(setting, |window| windowed(setting, window));
            let mut sequences = Sequences::new(&gpu, setting, lengths);
            assert!(sequences.attention.has_prefill());
            let cut = piece_by_piece(&mut sequences, lengths);
            let whole: Vec<_> = lengths.iter().enumerate().map(|(sequence, &length)| (sequence, 0..length)).collect();
            let together = sequences.prompts(&whole, TILE);
            assert!(together == cut, "{setting:?}");
            assert!(sequences.prompts(&whole, 17) == cut, "{setting:?}: in narrow tiles");

            let (rows, bytes) = (sequences.rows(), sequences.out_bytes());
            let some: Vec<usize> = (0..rows.len()).filter(|row| row % 23 == 5 || *row + 40 > rows.len()).collect();
            let of_some: Vec<u8> = some.iter().flat_map(|row| &together[row * bytes..][..bytes]).copied().collect();
            sequences.check(&some.iter().map(|&row| rows[row]).collect::<Vec<_>>(), &of_some);

            if let Some(window) = window {
                let first = lengths[0] - 40;
                sequences.spoil(0, 0..(first + 1).saturating_sub(window));
                let hidden = sequences.prompts(&[(0, first..lengths[0])], TILE);
                assert!(hidden == together[first * bytes..lengths[0] * bytes], "{setting:?}: what is hidden");
            }
        }
    }
}
