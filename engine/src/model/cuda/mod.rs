//! Mistral on a GPU.
//!
//! - `weights`: [`Placed`]: the weights on the device;
//! - `forward`: the layers, as kernels started one after the other;
//! - `step`: a step as the device reads it; `slots`: what drawing needs of each sequence;
//! - `executor`: [`CudaExecutor`]: steps that overlap with the host's work;
//! - `scores`: a step whose logits come back to the host, for those who look at them.

mod executor;
mod forward;
mod scores;
mod slots;
mod step;
mod weights;

pub use executor::CudaExecutor;
pub use scores::CudaScores;
use step::Capacity;
pub use weights::Placed;

use crate::{config::EngineConfig, error::EngineError, kernels::cuda::KvCache};

/// Bytes that stay free beside the cache, for what the driver and the recordings of steps take.
const RESERVE: usize = 256 << 20;

/// What decides how large everything beside the weights is.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Rows of a step.
    pub rows: usize,
    /// Rows of a step whose logits are wanted.
    pub logits: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Positions of a sequence.
    pub context: usize,
    /// Positions of a block.
    pub block_size: usize,
}

impl StepLimits {
    /// The limits of an engine whose sequences have up to `context` positions.
    pub fn of(config: &EngineConfig, context: usize) -> Self {
        let rows = config.step_tokens();
        Self {
            rows,
            logits: (config.max_batch * (1 + config.speculative_tokens)).min(rows),
            sequences: config.max_batch,
            context,
            block_size: config.block_size,
        }
    }

    fn capacity(&self) -> Capacity {
        let Self { rows, logits, sequences, context, block_size } = *self;
        // A padded step has more rows than were asked for.
        let rows = rows.max(executor::RECORDED_ROWS);
        let logits = logits.max(executor::RECORDED_ROWS);
        Capacity { rows, logits, sequences, tables: sequences * context.div_ceil(block_size) }
    }
}

/// How many blocks the cache gets.
#[derive(Debug, Clone, Copy)]
pub struct CacheSize {
    /// Bytes it may take; `None` takes a share of the memory.
    pub bytes: Option<usize>,
    /// That share of all there is, weights and everything else included.
    pub utilization: f32,
    /// More blocks than these are of no use.
    pub most: usize,
}

impl Placed {
    /// The model with all it needs, and the number of blocks of its cache.
    fn with_cache(self, limits: StepLimits, size: CacheSize) -> Result<(forward::CudaMistral, usize), EngineError> {
        let Capacity { rows, logits, .. } = limits.capacity();
        let mut blocks = 0;
        let cache = |placed: &Self| {
            let shape = placed.kv_shape(limits.block_size);
            blocks = size.blocks(placed, shape.block_bytes())?;
            Ok(KvCache::new(placed.gpu(), shape, blocks)?)
        };
        let model = forward::CudaMistral::new(self, (rows, logits, limits.context), cache)?;
        Ok((model, blocks))
    }

    /// An executor, and the number of blocks of its cache.
    pub fn executor(self, limits: StepLimits, size: CacheSize) -> Result<(CudaExecutor, usize), EngineError> {
        let (model, blocks) = self.with_cache(limits, size)?;
        Ok((CudaExecutor::new(model, limits.capacity())?, blocks))
    }

    /// A model whose logits come back to the host, with a cache of `blocks` blocks.
    pub fn scores(self, limits: StepLimits, blocks: usize) -> Result<CudaScores, EngineError> {
        let bytes = Some(blocks * self.kv_shape(limits.block_size).block_bytes());
        let (model, _) = self.with_cache(limits, CacheSize { bytes, utilization: 1.0, most: blocks })?;
        CudaScores::new(model, limits.capacity())
    }
}

impl CacheSize {
    fn blocks(&self, placed: &Placed, block_bytes: usize) -> Result<usize, EngineError> {
        let gpu = placed.gpu();
        gpu.synchronize()?;
        let bytes = match self.bytes {
            Some(bytes) => bytes,
            None => {
                let (free, total) = (gpu.free_memory()?, gpu.info().memory_bytes as usize);
                let kept = (total as f64 * (1.0 - f64::from(self.utilization))) as usize;
                free.saturating_sub(kept.max(RESERVE.min(total / 16)))
            }
        };
        let blocks = (bytes / block_bytes).min(self.most);
        if blocks == 0 {
            return Err(EngineError::Config(format!(
                "{bytes} bytes of the GPU's memory are left for keys and values, and one block takes {block_bytes}: \
                 raise gpu_memory_utilization or kv_memory, or quantise the weights"
            )));
        }
        Ok(blocks)
    }
}
