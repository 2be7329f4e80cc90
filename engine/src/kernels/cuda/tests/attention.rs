//! Attention of answers and of prompts over a paged cache, against a softmax in double precision.

use super::{
    super::{Attention, Heads, KvCache, KvElement, KvShape, Places, RowRange, SPLIT, TILE},
    *,
};

const BLOCK: usize = 16;

/// A sequence's rows: queries, keys and values, as the products give them.
struct Case {
    element: Element,
    kv: KvElement,
    heads: Heads,
    length: usize,
    qkv: Vec<f32>,
    angles: Vec<f32>,
}

impl Case {
    fn new(element: Element, kv: KvElement, heads: Heads, length: usize) -> Self {
        let width = heads.qkv_width();
        let qkv = noise(length * width, 17).iter().map(|&number| rounded(2.0 * number, element)).collect();
        let half = heads.head_dim / 2;
        let angle = |index: usize| ((index / half) as f32 * 0.37 / (1 + index % half) as f32).sin_cos();
        let angles = (0..length * half).flat_map(|index| [angle(index).1, angle(index).0]).collect();
        Self { element, kv, heads, length, qkv, angles }
    }

    /// Head `head` of row `row`, turned unless it is a value's.
    fn head(&self, row: usize, head: usize) -> Vec<f32> {
        let Heads { heads, kv_heads, head_dim, interleaved, .. } = self.heads;
        let numbers = &self.qkv[row * self.heads.qkv_width() + head * head_dim..][..head_dim];
        let (mut out, half) = (numbers.to_vec(), head_dim / 2);
        if head < heads + kv_heads {
            for pair in 0..half {
                let (a, b) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
                let turn = &self.angles[2 * (row * half + pair)..][..2];
                out[a] = rounded(numbers[a] * turn[0] - numbers[b] * turn[1], self.element);
                out[b] = rounded(numbers[b] * turn[0] + numbers[a] * turn[1], self.element);
            }
        }
        out
    }

    fn expected(&self) -> Vec<f64> {
        let Heads { heads, kv_heads, head_dim, window, .. } = self.heads;
        let all: Vec<Vec<Vec<f32>>> =
            (0..self.length).map(|row| (0..heads + 2 * kv_heads).map(|head| self.head(row, head)).collect()).collect();
        let mut out = Vec::new();
        for row in 0..self.length {
            let first = window.map_or(0, |window| (row + 1).saturating_sub(window));
            for head in 0..heads {
                let (query, kv) = (&all[row][head], heads + head / (heads / kv_heads));
                let dot =
                    |key: &[f32]| -> f64 { query.iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
                let scores: Vec<f64> = (first..=row).map(|at| dot(&all[at][kv]) / (head_dim as f64).sqrt()).collect();
                let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..head_dim).map(|number| {
                    let value = |at: usize| f64::from(all[at][kv + kv_heads][number]);
                    (first..=row).zip(&weights).map(|(at, weight)| weight * value(at)).sum::<f64>() / total
                }));
            }
        }
        out
    }

    fn shape(&self) -> KvShape {
        KvShape {
            layers: 2,
            kv_heads: self.heads.kv_heads,
            head_dim: self.heads.head_dim,
            block_size: BLOCK,
            element: self.element,
            kv: self.kv,
        }
    }
}

/// The case on the device, with whatever its cache held before being no number.
struct Bench<'a> {
    case: &'a Case,
    attention: Attention,
    cache: KvCache,
    qkv: Buffer<u8>,
    out: Buffer<u8>,
    positions: Buffer<i32>,
    slots: Buffer<i32>,
    table: Buffer<i32>,
    offsets: Buffer<i32>,
}

impl<'a> Bench<'a> {
    fn new(gpu: &Arc<Gpu>, case: &'a Case) -> Self {
        let blocks = case.length.div_ceil(BLOCK);
        let cache = KvCache::new(gpu, case.shape(), blocks + 1).unwrap();
        cache.poison().unwrap();
        // Blocks in any order but the natural one.
        let table: Vec<i32> = (0..blocks).rev().map(|block| (block as i32 * 5 + 1) % (blocks as i32 + 1)).collect();
        let table = if blocks % 5 == 4 { (0..blocks as i32).rev().collect() } else { table };
        let slot = |at: usize| table[at / BLOCK] * BLOCK as i32 + (at % BLOCK) as i32;
        let rows = 0..case.length;
        Self {
            attention: Attention::new(gpu, case.heads, (case.element, case.kv), &case.angles).unwrap(),
            qkv: upload(gpu, &case.qkv, case.element),
            out: poisoned(gpu, case.length * case.heads.heads * case.heads.head_dim, case.element),
            positions: Buffer::of(gpu, &rows.clone().map(|at| at as i32).collect::<Vec<_>>()).unwrap(),
            slots: Buffer::of(gpu, &rows.map(slot).collect::<Vec<_>>()).unwrap(),
            offsets: Buffer::of(gpu, &vec![0; case.length]).unwrap(),
            table: Buffer::of(gpu, &table).unwrap(),
            cache,
            case,
        }
    }

    fn places(&self, tiles: u64) -> Places {
        Places {
            positions: self.positions.at(0),
            slots: self.slots.at(0),
            table_offsets: self.offsets.at(0),
            tables: self.table.at(0),
            tiles,
        }
    }

    fn write(&self) {
        self.attention.rope_write(&self.qkv, &self.cache, 1, &self.places(0), self.case.length).unwrap();
    }

    fn answers(&self, first: usize, count: usize) -> Vec<f32> {
        let splits = self.case.length.div_ceil(SPLIT).next_power_of_two();
        let (through, rows) = ((&self.qkv, &self.out), RowRange { first, count });
        self.attention.answers(through, (&self.cache, 1), &self.places(0), rows, splits).unwrap();
        self.rows(first, count)
    }

    fn prompts(&self, gpu: &Arc<Gpu>, tile: usize) -> Vec<f32> {
        let tiles = (0..self.case.length).step_by(tile);
        let tiles = tiles.flat_map(|first| [first as i32, tile.min(self.case.length - first) as i32]);
        let tiles = Buffer::of(gpu, &tiles.collect::<Vec<_>>()).unwrap();
        let count = tiles.len() / 2;
        let places = self.places(tiles.at(0));
        self.attention.prompts((&self.qkv, &self.out), (&self.cache, 1), &places, count).unwrap();
        self.rows(0, self.case.length)
    }

    fn rows(&self, first: usize, count: usize) -> Vec<f32> {
        let bytes = self.case.heads.heads * self.case.heads.head_dim * self.case.element.bytes();
        from_bytes(&self.out.read_range(first * bytes, count * bytes).unwrap(), self.case.element)
    }
}

#[track_caller]
fn check(case: &Case) {
    let gpu = gpu();
    let bench = Bench::new(&gpu, case);
    bench.write();
    // Keys and values of eight bits are off by up to a 254th of their largest.
    let share = tolerance(case.element) + if case.kv == KvElement::Q8 { 2e-2 } else { 0.0 };
    let Heads { heads, head_dim, window, .. } = case.heads;
    let what = format!("{:?} {:?} {heads} heads of {head_dim}, window {window:?}", case.element, case.kv);
    let expected = case.expected();
    let together = bench.answers(0, case.length);
    assert_close(&together, &expected, share, &what);
    let last = case.length - 1;
    assert!(bench.answers(last, 1) == together[last * heads * head_dim..], "{what}: alone");
    if bench.attention.has_prefill() {
        let whole = bench.prompts(&gpu, TILE);
        assert_close(&whole, &expected, share, &format!("{what}, as a prompt"));
        assert!(bench.prompts(&gpu, 50) == whole, "{what}: in other pieces");
    }
}

fn heads(heads: usize, kv_heads: usize, head_dim: usize, window: Option<usize>) -> Heads {
    Heads { heads, kv_heads, head_dim, interleaved: head_dim == 64, window }
}

#[test]
fn heads_that_the_tensor_cores_take() {
    for (element, heads, length) in [
        (Element::Bf16, heads(4, 1, 128, None), 200),
        (Element::F16, heads(4, 2, 64, None), 150),
        (Element::F16, heads(2, 2, 128, Some(33)), 180),
        (Element::Bf16, heads(8, 1, 64, Some(16)), 77),
    ] {
        check(&Case::new(element, KvElement::Same, heads, length));
    }
}

#[test]
fn heads_of_any_size() {
    for (element, heads, length) in [
        (Element::F32, heads(4, 2, 48, None), 140),
        (Element::F32, heads(2, 1, 128, Some(20)), 40),
        (Element::Bf16, heads(4, 4, 16, None), 30),
        (Element::F16, heads(3, 1, 200, None), 20),
    ] {
        check(&Case::new(element, KvElement::Same, heads, length));
    }
}

#[test]
fn caches_of_eight_bits() {
    for (element, heads, length) in [
        (Element::Bf16, heads(4, 1, 128, None), 150),
        (Element::F16, heads(4, 2, 64, Some(40)), 90),
        (Element::F32, heads(2, 1, 32, None), 40),
    ] {
        check(&Case::new(element, KvElement::Q8, heads, length));
    }
}
