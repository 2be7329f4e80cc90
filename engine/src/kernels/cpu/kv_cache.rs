//! Keys and values of all layers, in fixed blocks of positions.
//!
//! One layer's keys lie as `[block][kv head][position in block][head_dim]`, its values likewise, so that
//! attention over one head of one block reads one contiguous run. A *slot* is `block · block_size +
//! position in block`.

use half::f16;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: the default.
    F16,
    /// Single precision: for models whose weights are.
    F32,
}

impl KvDtype {
    /// Bytes per number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
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
        2 * self.layers * self.kv_heads * self.head_dim * self.block_size * self.dtype.bytes()
    }

    /// Numbers of one block in one layer's keys.
    fn block_len(&self) -> usize {
        self.kv_heads * self.block_size * self.head_dim
    }
}

/// Numbers as stored.
#[derive(Debug)]
pub(super) enum KvNumbers {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl KvNumbers {
    fn zeroed(dtype: KvDtype, len: usize) -> Self {
        match dtype {
            KvDtype::F16 => Self::F16(vec![0; len]),
            KvDtype::F32 => Self::F32(vec![0.0; len]),
        }
    }

    fn write(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::F16(numbers) => {
                for (to, from) in numbers[at..at + values.len()].iter_mut().zip(values) {
                    *to = f16::from_f32(*from).to_bits();
                }
            }
            Self::F32(numbers) => numbers[at..at + values.len()].copy_from_slice(values),
        }
    }
}

/// One layer's keys and values.
#[derive(Debug)]
pub(super) struct LayerKv {
    pub(super) keys: KvNumbers,
    pub(super) values: KvNumbers,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    layers: Vec<LayerKv>,
}

impl KvCache {
    /// A cache of `blocks` blocks; its memory is touched only as it is used.
    pub fn new(shape: KvShape, blocks: usize) -> Self {
        let len = blocks * shape.block_len();
        let layers = (0..shape.layers)
            .map(|_| LayerKv { keys: KvNumbers::zeroed(shape.dtype, len), values: KvNumbers::zeroed(shape.dtype, len) })
            .collect();
        Self { shape, layers }
    }

    /// The sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerKv {
        &self.layers[layer]
    }

    /// Where a head's run of positions begins in a block.
    pub(super) fn run(&self, block: u32, kv_head: usize) -> usize {
        block as usize * self.shape.block_len() + kv_head * self.shape.block_size * self.shape.head_dim
    }

    /// Stores the keys and values of a step's rows (`[rows, kv_heads · head_dim]`) in their slots.
    pub fn write(&mut self, layer: usize, slots: &[u32], keys: &[f32], values: &[f32]) {
        let KvShape { kv_heads, head_dim, block_size, .. } = self.shape;
        let width = kv_heads * head_dim;
        for (row, &slot) in slots.iter().enumerate() {
            let (block, position) = (slot / block_size as u32, slot as usize % block_size);
            for head in 0..kv_heads {
                let at = self.run(block, head) + position * head_dim;
                let from = row * width + head * head_dim;
                self.layers[layer].keys.write(at, &keys[from..from + head_dim]);
                self.layers[layer].values.write(at, &values[from..from + head_dim]);
            }
        }
    }
}
