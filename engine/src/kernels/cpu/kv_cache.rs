//! Keys and values of all layers, in fixed blocks of positions.
//!
//! A layer's values lie as `[block][kv head][position in block][head_dim]`. Its keys lie in panels of
//! [`PANEL`] positions, `[block][kv head][panel][head_dim][position in panel]`, so that attention scores a
//! panel's positions side by side; a block's last panel is narrower if the block size is no multiple. A
//! *slot* is `block · block_size + position in block`.
#![expect(unsafe_code, reason = "tasks write disjoint heads of one buffer")]

use std::io;

use half::{f16, slice::HalfFloatSliceExt};
use memmap2::MmapMut;

use super::{
    Threads,
    lanes::{Lanes, Simd, WIDEST, dispatch},
    signed_bytes::{scale_of, to_bytes},
};

/// Positions of a panel of keys: a vector of any width divides it.
pub(super) const PANEL: usize = WIDEST;
/// Numbers a kernel may read, and ignore, after those it was to read.
const SLACK: usize = WIDEST;
/// Numbers below which a write is not worth waking other threads for.
const SERIAL_WORK: usize = 1 << 15;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: the default.
    F16,
    /// Single precision: for models whose weights are.
    F32,
    /// Signed bytes with a scale per position and head: each number is off by at most 1/254 of the largest
    /// among them.
    Q8,
}

impl KvDtype {
    /// Bytes per number.
    fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::Q8 => 1,
        }
    }

    /// Whether each position and head has a scale.
    fn is_scaled(self) -> bool {
        self == Self::Q8
    }
}

/// The sizes of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Key (and value) heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Positions per block.
    pub block_size: usize,
    /// How numbers are stored.
    pub dtype: KvDtype,
}

impl KvShape {
    /// Bytes one block takes over all layers, keys and values.
    pub fn block_bytes(&self) -> usize {
        let scale = if self.dtype.is_scaled() { size_of::<f32>() } else { 0 };
        2 * self.layers * self.kv_heads * self.block_size * (self.head_dim * self.dtype.bytes() + scale)
    }

    /// Numbers of one head in one block.
    fn head_len(&self) -> usize {
        self.block_size * self.head_dim
    }
}

/// One layer's keys or values.
#[derive(Debug)]
struct Plane {
    numbers: MmapMut,
    /// `[block][kv head][position in block]`; empty if numbers have none.
    scales: Vec<f32>,
}

impl Plane {
    fn new(shape: &KvShape, blocks: usize) -> io::Result<Self> {
        let heads = blocks * shape.kv_heads;
        let numbers = zeroed((heads * shape.head_len() + SLACK) * shape.dtype.bytes())?;
        let scales = if shape.dtype.is_scaled() { heads * shape.block_size + SLACK } else { 0 };
        Ok(Self { numbers, scales: vec![0.0; scales] })
    }
}

/// Memory that is touched only as it is used, in large pages where there are such.
fn zeroed(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes)?;
    // Large pages only make it faster.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    /// Keys and values per layer.
    layers: Vec<[Plane; 2]>,
}

impl KvCache {
    /// A cache of `blocks` blocks; an error where there is no room for it.
    pub fn new(shape: KvShape, blocks: usize) -> io::Result<Self> {
        let layer = |_| Ok([Plane::new(&shape, blocks)?, Plane::new(&shape, blocks)?]);
        Ok(Self { shape, layers: (0..shape.layers).map(layer).collect::<io::Result<_>>()? })
    }

    /// The sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// One layer, to attend over.
    pub fn layer(&self, layer: usize) -> LayerKv<'_> {
        let [keys, values] = &self.layers[layer];
        LayerKv { shape: self.shape, keys, values }
    }

    /// Stores the keys and values of a step's rows (`[rows, kv_heads · head_dim]`) in their slots.
    pub fn write(&mut self, threads: &Threads, layer: usize, slots: &[u32], keys: &[f32], values: &[f32]) {
        let shape = self.shape;
        let width = shape.kv_heads * shape.head_dim;
        assert!(keys.len() == slots.len() * width && values.len() == keys.len());
        let planes = self.layers[layer].each_mut().map(|plane| PlaneWriter {
            shape,
            numbers: plane.numbers.as_mut_ptr(),
            len: plane.numbers.len(),
            scales: &mut plane.scales[..] as *mut [f32],
        });
        // One task per head: whatever the slots, no two tasks write the same place.
        let least = if keys.len() < SERIAL_WORK { 2 * shape.kv_heads } else { 1 };
        threads.ranges(2 * shape.kv_heads, least, |tasks| {
            for task in tasks {
                let (head, is_value) = (task / 2, task % 2);
                let rows = [keys, values][is_value].chunks_exact(width);
                for (row, &slot) in rows.zip(slots) {
                    let row = &row[head * shape.head_dim..][..shape.head_dim];
                    // SAFETY: this task alone writes this head of this plane.
                    unsafe { planes[is_value].write(Place::new(&shape, slot, head, is_value == 1), row) };
                }
            }
        });
    }
}

/// Where the numbers of one position and head lie.
struct Place {
    /// The first one's index.
    at: usize,
    /// From one to the next.
    stride: usize,
    /// Their scale's index.
    scale: usize,
}

impl Place {
    fn new(shape: &KvShape, slot: u32, head: usize, is_value: bool) -> Self {
        let (block, position) = (slot as usize / shape.block_size, slot as usize % shape.block_size);
        let head = block * shape.kv_heads + head;
        let scale = head * shape.block_size + position;
        if is_value {
            return Self { at: scale * shape.head_dim, stride: 1, scale };
        }
        let (panel, within) = (position / PANEL * PANEL, position % PANEL);
        let at = head * shape.head_len() + panel * shape.head_dim + within;
        Self { at, stride: PANEL.min(shape.block_size - panel), scale }
    }
}

/// A plane that several tasks write to, each its own heads.
struct PlaneWriter {
    shape: KvShape,
    numbers: *mut u8,
    len: usize,
    scales: *mut [f32],
}

// SAFETY: `write`'s contract keeps tasks apart.
unsafe impl Sync for PlaneWriter {}

impl PlaneWriter {
    /// # Safety
    /// No other thread writes the same position and head, or reads the plane, at the same time.
    unsafe fn write(&self, place: Place, row: &[f32]) {
        let last = place.at + (row.len() - 1) * place.stride;
        assert!((last + 1) * self.shape.dtype.bytes() <= self.len);
        // SAFETY: the assert bounds every index of this place; the cache's numbers are aligned to pages.
        unsafe {
            match self.shape.dtype {
                KvDtype::F32 => scatter(self.numbers.cast(), &place, row),
                KvDtype::F16 => {
                    let mut halves = [f16::ZERO; 64];
                    for (index, numbers) in row.chunks(halves.len()).enumerate() {
                        let halves = &mut halves[..numbers.len()];
                        halves.convert_from_f32_slice(numbers);
                        let at = place.at + index * 64 * place.stride;
                        scatter(self.numbers.cast(), &Place { at, ..place }, halves);
                    }
                }
                KvDtype::Q8 => {
                    assert!(place.scale < self.scales.len());
                    *self.scales.cast::<f32>().add(place.scale) = scatter_bytes(self.numbers.cast(), &place, row);
                }
            }
        }
    }
}

/// # Safety
/// `to` has all the place's indices.
#[inline(always)]
unsafe fn scatter<T: Copy>(to: *mut T, place: &Place, row: &[T]) {
    for (index, number) in row.iter().enumerate() {
        // SAFETY: the caller's contract.
        unsafe { *to.add(place.at + index * place.stride) = *number };
    }
}

/// Stores a row as signed bytes, and gives their scale.
///
/// # Safety
/// `to` has all the place's indices.
unsafe fn scatter_bytes(to: *mut i8, place: &Place, row: &[f32]) -> f32 {
    let (mut row_scale, simd) = (0.0, Simd::best());
    let scale = &mut row_scale;
    // SAFETY: `Simd` was detected; the caller's contract.
    dispatch!(simd, scatter_bytes_with, [], (to: *mut i8, place: &Place, row: &[f32], scale: &mut f32));
    row_scale
}

/// # Safety
/// As [`scatter_bytes`]; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn scatter_bytes_with<L: Lanes>(to: *mut i8, place: &Place, row: &[f32], scale: &mut f32) {
    const PART: usize = 128;
    let inverse;
    (*scale, inverse) = scale_of(row);
    for (index, numbers) in row.chunks(PART).enumerate() {
        let mut bytes = [0; PART];
        let bytes = &mut bytes[..numbers.len()];
        to_bytes(numbers, inverse, bytes);
        let at = place.at + index * PART * place.stride;
        // SAFETY: the caller's contract.
        unsafe { scatter(to, &Place { at, ..*place }, bytes) };
    }
}

/// One layer's keys and values, to attend over.
#[derive(Debug, Clone, Copy)]
pub struct LayerKv<'a> {
    shape: KvShape,
    keys: &'a Plane,
    values: &'a Plane,
}

/// One head of one block, as kernels read it: with [`SLACK`] numbers after its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadBlock {
    /// The first number.
    pub(super) numbers: *const u8,
    /// The first position's scale; null if there are none.
    pub(super) scales: *const f32,
}

impl LayerKv<'_> {
    /// The cache's sizes.
    pub(super) fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// A head's keys in a block.
    pub(super) fn keys(&self, block: u32, head: usize) -> HeadBlock {
        self.head_block(self.keys, block, head)
    }

    /// A head's values in a block.
    pub(super) fn values(&self, block: u32, head: usize) -> HeadBlock {
        self.head_block(self.values, block, head)
    }

    fn head_block(&self, plane: &Plane, block: u32, head: usize) -> HeadBlock {
        let shape = &self.shape;
        let (index, bytes) = (block as usize * shape.kv_heads + head, shape.dtype.bytes());
        let numbers = &plane.numbers[index * shape.head_len() * bytes..][..(shape.head_len() + SLACK) * bytes];
        let scales = match shape.dtype.is_scaled() {
            true => plane.scales[index * shape.block_size..][..shape.block_size + SLACK].as_ptr(),
            false => std::ptr::null(),
        };
        HeadBlock { numbers: numbers.as_ptr(), scales }
    }
}
