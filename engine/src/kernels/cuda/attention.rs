//! Attention over the paged cache: rotary embedding and the write into it, answers' rows, prompts' rows.
#![expect(unsafe_code, reason = "kernels are started")]

use std::sync::Arc;

use super::{
    driver::CudaError,
    element::Element,
    gpu::Gpu,
    kv_cache::{KvCache, KvElement},
    launch::{Kernel, Shape, args},
    memory::Buffer,
};

/// Positions of a split: an answer's sums are made in this order, whatever its context's length.
pub(crate) const SPLIT: usize = 128;
/// Rows of a prompt that a block computes together.
pub(crate) const TILE: usize = 128;
/// Threads of a block that turns a row's heads and writes them into the cache, and heads of one, a warp each.
const ROPE_THREADS: u32 = 256;
const ROPE_HEADS: usize = 8;
/// Threads of a block that attends a split, and of one that combines them.
const SPLIT_THREADS: u32 = 128;
/// Threads of a block that attends a prompt's tile.
const PREFILL_THREADS: u32 = 128;
/// Positions of a prompt's context that a block has at once.
const PREFILL_POSITIONS: usize = 64;
/// Bytes of partial sums at most; more rows than these allow are computed in turns.
const PARTIAL_BYTES: usize = 64 << 20;

/// The heads' sizes, and what a position sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) interleaved: bool,
    pub(crate) window: Option<usize>,
}

impl Heads {
    /// Numbers of a row's query, key and value.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn window(&self) -> usize {
        self.window.map_or(i32::MAX as usize, |window| window.min(i32::MAX as usize))
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Where a step's numbers lie on the device: one of each per row, and the block tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) positions: u64,
    pub(crate) slots: u64,
    pub(crate) table_offsets: u64,
    pub(crate) tables: u64,
    /// Pairs of first row and rows, of the prompts' tiles.
    pub(crate) tiles: u64,
}

/// Rows `first..first + count` of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRange {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// The kernels for one kind of number and of cache.
#[derive(Debug)]
pub(crate) struct Attention {
    heads: Heads,
    element: Element,
    rope_write: Kernel,
    split: Kernel,
    combine: Kernel,
    /// Where the tensor cores' kernel knows the head dimension.
    prefill: Option<(Kernel, u32)>,
    cos_sin: Buffer<f32>,
    /// What splits sum up; with little room, fewer rows are computed at once.
    pub(super) partial: Buffer<f32>,
}

impl Attention {
    /// For positions below `cos_sin.len() / head_dim`.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        heads: Heads,
        (element, kv): (Element, KvElement),
        cos_sin: &[f32],
    ) -> Result<Self, CudaError> {
        let cache = match kv {
            KvElement::Same => element.suffix().to_owned(),
            KvElement::Q8 => format!("{}_q8", element.suffix()),
        };
        let prefill = match (element, heads.head_dim) {
            (Element::F16 | Element::Bf16, 64 | 128) => {
                let shared = prefill_shared(heads.head_dim, kv);
                let name = format!("attend_prefill_{cache}_{}", heads.head_dim);
                Some((Kernel::with_shared(gpu, &name, shared)?, shared))
            }
            _ => None,
        };
        Ok(Self {
            heads,
            element,
            rope_write: Kernel::new(gpu, &format!("rope_write_{cache}"))?,
            split: Kernel::new(gpu, &format!("attend_split_{cache}"))?,
            combine: Kernel::new(gpu, &format!("attend_combine_{}", element.suffix()))?,
            prefill,
            cos_sin: Buffer::of(gpu, cos_sin)?,
            partial: Buffer::new(gpu, PARTIAL_BYTES / 4)?,
        })
    }

    /// Whether prompts have a kernel of their own.
    pub(crate) fn has_prefill(&self) -> bool {
        self.prefill.is_some()
    }

    /// Turns queries and keys of `rows` rows, and writes keys and values into the cache.
    pub(crate) fn rope_write(
        &self,
        qkv: &Buffer<u8>,
        cache: &KvCache,
        layer: usize,
        places: &Places,
        rows: usize,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, head_dim, interleaved, .. } = self.heads;
        let layer = cache.layer(layer);
        let arguments = args![
            qkv,
            layer.keys,
            layer.values,
            layer.key_scales,
            layer.value_scales,
            places.positions,
            places.slots,
            &self.cos_sin,
            heads,
            kv_heads,
            head_dim,
            cache.block_size(),
            interleaved,
        ];
        let shape = Shape::new([rows, (heads + 2 * kv_heads).div_ceil(ROPE_HEADS), 1], ROPE_THREADS);
        // SAFETY: a row's slot is within the cache, its position within the table of angles.
        unsafe { self.rope_write.launch(shape, arguments) }
    }

    /// Attention of rows that each stand alone; `splits` cover their longest context.
    pub(crate) fn answers(
        &self,
        (qkv, out): (&Buffer<u8>, &Buffer<u8>),
        (cache, layer): (&KvCache, usize),
        places: &Places,
        rows: RowRange,
        splits: usize,
    ) -> Result<(), CudaError> {
        let Heads { heads, kv_heads, head_dim, .. } = self.heads;
        let layer = cache.layer(layer);
        let each = heads * splits * (head_dim + 2);
        let together = (self.partial.len() / each).max(1);
        assert!(each <= self.partial.len(), "a context of {splits} splits");
        for first in (0..rows.count).step_by(together) {
            let (first, count) = (rows.first + first, together.min(rows.count - first));
            let part = |address: u64| address + 4 * first as u64;
            let element = self.element.bytes();
            let qkv = qkv.at(first * self.heads.qkv_width() * element);
            let out = out.at(first * heads * head_dim * element);
            let split = args![
                &self.partial,
                qkv,
                layer.keys,
                layer.values,
                layer.key_scales,
                layer.value_scales,
                part(places.positions),
                part(places.table_offsets),
                places.tables,
                heads,
                kv_heads,
                head_dim,
                cache.block_size(),
                self.heads.window(),
                splits,
                self.heads.scale(),
            ];
            let combine =
                args![out, &self.partial, part(places.positions), heads, head_dim, self.heads.window(), splits,];
            // SAFETY: the partial sums of `count` rows fit; tables name blocks of the cache.
            unsafe {
                self.split.launch(Shape::new([count, kv_heads, splits], SPLIT_THREADS), split)?;
                self.combine.launch(Shape::new([count, heads, 1], SPLIT_THREADS), combine)?;
            }
        }
        Ok(())
    }

    /// Attention of `tiles` tiles of prompts' rows.
    pub(crate) fn prompts(
        &self,
        (qkv, out): (&Buffer<u8>, &Buffer<u8>),
        (cache, layer): (&KvCache, usize),
        places: &Places,
        tiles: usize,
    ) -> Result<(), CudaError> {
        let Some((kernel, shared)) = &self.prefill else { return Ok(()) };
        let Heads { heads, kv_heads, .. } = self.heads;
        let layer = cache.layer(layer);
        let arguments = args![
            out,
            qkv,
            layer.keys,
            layer.values,
            layer.key_scales,
            layer.value_scales,
            places.tiles,
            places.positions,
            places.table_offsets,
            places.tables,
            heads,
            kv_heads,
            cache.block_size(),
            self.heads.window(),
            self.heads.scale(),
        ];
        let shape = Shape { grid: [tiles, heads, 1], block: PREFILL_THREADS, shared: *shared };
        // SAFETY: tiles name rows of the step, tables name blocks of the cache.
        unsafe { kernel.launch(shape, arguments) }
    }
}

/// Bytes of shared memory of a block that attends a prompt's tile: queries, keys and values, and what of these comes
/// as bytes with its scales.
fn prefill_shared(head_dim: usize, kv: KvElement) -> u32 {
    let numbers = 2 * (TILE + 2 * PREFILL_POSITIONS) * head_dim;
    let staged = match kv {
        KvElement::Same => 16,
        KvElement::Q8 => 2 * PREFILL_POSITIONS * (head_dim + size_of::<f32>()),
    };
    (numbers + staged) as u32
}
