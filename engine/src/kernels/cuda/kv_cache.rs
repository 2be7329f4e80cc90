//! Keys and values of all layers, in fixed blocks of positions, as `[block][kv head][position in block][head_dim]`.

use std::sync::Arc;

use super::{driver::CudaError, element::Element, gpu::Gpu, memory::Buffer};

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvElement {
    /// As the rows are.
    Same,
    /// Signed bytes, with a scale per position and head.
    Q8,
}

/// What a cache is made of.
#[derive(Debug, Clone, Copy)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Positions of a block.
    pub block_size: usize,
    /// What rows are made of.
    pub element: Element,
    /// How keys and values are stored.
    pub kv: KvElement,
}

impl KvShape {
    /// Bytes of one block, all layers together.
    pub fn block_bytes(&self) -> usize {
        2 * self.layers * (self.numbers() * self.number_bytes() + self.scales() * size_of::<f32>())
    }

    /// Keys, or values, of one block in one layer.
    fn numbers(&self) -> usize {
        self.kv_heads * self.block_size * self.head_dim
    }

    fn number_bytes(&self) -> usize {
        match self.kv {
            KvElement::Same => self.element.bytes(),
            KvElement::Q8 => 1,
        }
    }

    fn scales(&self) -> usize {
        match self.kv {
            KvElement::Same => 0,
            KvElement::Q8 => self.kv_heads * self.block_size,
        }
    }
}

/// The cache, with one block more than asked for: rows that pad a batch write there.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    blocks: usize,
    layers: Vec<[Buffer<u8>; 2]>,
    scales: Vec<[Buffer<f32>; 2]>,
}

/// Where a layer's part lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerKv {
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) key_scales: u64,
    pub(super) value_scales: u64,
}

impl KvCache {
    /// Room for `blocks` blocks.
    pub fn new(gpu: &Arc<Gpu>, shape: KvShape, blocks: usize) -> Result<Self, CudaError> {
        let all = blocks + 1;
        let numbers = || Buffer::new(gpu, all * shape.numbers() * shape.number_bytes());
        let scales = || Buffer::new(gpu, all * shape.scales());
        Ok(Self {
            shape,
            blocks,
            layers: (0..shape.layers).map(|_| Ok([numbers()?, numbers()?])).collect::<Result<_, CudaError>>()?,
            scales: (0..shape.layers).map(|_| Ok([scales()?, scales()?])).collect::<Result<_, CudaError>>()?,
        })
    }

    /// The block that nobody reads.
    pub fn spare_block(&self) -> usize {
        self.blocks
    }

    /// Positions of a block.
    pub fn block_size(&self) -> usize {
        self.shape.block_size
    }

    /// Makes everything in it no number.
    #[cfg(test)]
    pub(super) fn poison(&self) -> Result<(), CudaError> {
        for numbers in self.layers.iter().flatten() {
            numbers.write(0, &vec![0xff; numbers.len()])?;
        }
        for scales in self.scales.iter().flatten() {
            scales.write(0, &vec![f32::NAN; scales.len()])?;
        }
        Ok(())
    }

    /// A layer's keys and values, with their scales.
    #[cfg(test)]
    pub(super) fn planes(&self, index: usize) -> [(&Buffer<u8>, &Buffer<f32>); 2] {
        let ([keys, values], [key_scales, value_scales]) = (&self.layers[index], &self.scales[index]);
        [(keys, key_scales), (values, value_scales)]
    }

    pub(super) fn layer(&self, index: usize) -> LayerKv {
        let ([keys, values], [key_scales, value_scales]) = (&self.layers[index], &self.scales[index]);
        LayerKv {
            keys: keys.at(0),
            values: values.at(0),
            key_scales: key_scales.at(0),
            value_scales: value_scales.at(0),
        }
    }
}
