//! A step whose logits come back to the host: for tests and measurements, which look at them.

use std::{collections::HashMap, sync::Arc};

use super::{
    forward::CudaMistral,
    step::{Capacity, Padding, StepArrays},
};
use crate::{
    error::EngineError,
    kernels::cuda::{Buffer, Gpu, Pinned, SampleKernels},
    model::{Model, ModelSizes, StepBatch},
};

/// Mistral on a GPU, one step at a time.
#[derive(Debug)]
pub struct CudaScores {
    gpu: Arc<Gpu>,
    model: CudaMistral,
    arrays: StepArrays,
    to: Pinned<i32>,
    nothing: Buffer<i32>,
}

impl CudaScores {
    pub(super) fn new(model: CudaMistral, capacity: Capacity) -> Result<Self, EngineError> {
        let gpu = Arc::clone(model.placed().gpu());
        let to = Pinned::new(&gpu, capacity.numbers())?;
        let (arrays, nothing) = (StepArrays::new(&gpu, capacity)?, Buffer::new(&gpu, 1)?);
        Ok(Self { gpu, model, arrays, to, nothing })
    }
}

impl Model for CudaScores {
    fn vocabulary(&self) -> usize {
        self.model.placed().config.vocab_size
    }

    fn sizes(&self) -> ModelSizes {
        self.model.placed().sizes()
    }

    fn forward(&mut self, batch: &StepBatch, logits: &mut Vec<f32>) -> Result<(), EngineError> {
        self.gpu.bind()?;
        let (block, block_size) = (self.model.cache.spare_block(), self.model.cache.block_size());
        let padding = Padding { rows: 0, block, block_size };
        let (shape, numbers) = self.arrays.fill(&mut self.to, batch, &HashMap::new(), padding);
        self.arrays.start_copy(&self.to, numbers)?;
        self.model.forward(&self.arrays, shape, &self.nothing)?;
        let (vocabulary, rows) = (self.vocabulary(), batch.logit_rows.len());
        let stride = SampleKernels::stride(vocabulary);
        let read = self.model.logits().read_range(0, rows * stride)?;
        logits.clear();
        read.chunks(stride).for_each(|row| logits.extend_from_slice(&row[..vocabulary]));
        Ok(())
    }
}
