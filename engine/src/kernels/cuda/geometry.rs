//! How a product of few rows is spread over the device; `linear.cuh` says why.

use super::format::Format;

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Rows.
    Linear,
    /// `silu(gate) · up` of a stack of both.
    Gated,
    /// Numbers of single precision.
    Logits,
}

impl Kind {
    /// How its kernels are called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Gated => "gated",
            Self::Logits => "logits",
        }
    }
}

/// The most rows that the kernels are made for, the fewest first.
pub(super) const WIDTHS: [usize; 4] = [8, 16, 32, 64];
/// The most rows of all.
pub(super) const MOST_ROWS: usize = 64;

/// What the device has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chip {
    pub(super) multiprocessors: usize,
    /// Bytes of shared memory that one block may have.
    pub(super) block_shared: usize,
    /// Bytes of shared memory of a multiprocessor.
    pub(super) shared: usize,
}

/// A product to be spread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem {
    pub(super) format: Format,
    pub(super) kind: Kind,
    /// One of [`WIDTHS`].
    pub(super) width: usize,
    /// Of one of both, where it is gated.
    pub(super) outputs: usize,
    pub(super) inputs: usize,
}

/// How it is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Blocks side by side.
    pub(super) blocks: usize,
    /// Parts of the inputs, each with blocks of its own.
    pub(super) splits: usize,
    /// Steps of the inputs that are on their way at once.
    pub(super) stages: usize,
    /// Bytes of shared memory of a block.
    pub(super) shared: usize,
    /// Numbers of the workspace, where there are several splits.
    pub(super) workspace: usize,
}

/// Warps of a block.
const WARPS: usize = 8;
/// Weight rows of a tile.
const TILE: usize = 16;

impl Problem {
    pub(super) fn geometry(&self, chip: Chip) -> Geometry {
        let k_warps = self.warps_along_inputs();
        let tiles = if self.kind == Kind::Linear && self.width == 8 && self.format.is_tiled() { 1 } else { 2 };
        let rows = WARPS / k_warps * tiles * TILE;
        let outputs = if self.kind == Kind::Gated { rows / 2 } else { rows };
        let splits = self.parts(chip) / k_warps;
        let blocks = self.outputs.div_ceil(outputs);
        let stage = WARPS * tiles * self.format.tile_bytes() + k_warps * self.width * 128;
        let half = (chip.shared / 2).saturating_sub(1024) / stage;
        let stages = match half >= 3 && blocks * splits > chip.multiprocessors {
            true => half,
            false => chip.block_shared / stage,
        };
        let stages = stages.clamp(2, 8);
        let shared = (stages * stage).max(k_warps * self.width * (rows + 4) * 4);
        let workspace = if splits > 1 { blocks * splits * self.width * rows } else { 0 };
        Geometry { blocks, splits, stages, shared, workspace }
    }

    fn warps_along_inputs(&self) -> usize {
        match (self.kind, self.width) {
            (Kind::Linear, 8 | 16) => 8,
            (Kind::Linear, 32) => 4,
            _ => 2,
        }
    }

    /// Runs that a sum over the inputs is made of: the same whatever the width, so that the bits are.
    fn parts(&self, chip: Chip) -> usize {
        let (base, outputs) = match self.kind {
            Kind::Linear => (8, 32),
            Kind::Gated => (2, 64),
            Kind::Logits => (2, 128),
        };
        let (blocks, most) = (self.outputs.div_ceil(outputs), base.max(self.inputs / 256));
        let enough = |factor: usize| 4 * blocks * factor >= 3 * chip.multiprocessors;
        let mut factor = 1;
        while factor < 4 && !enough(factor) && 2 * factor * base <= most {
            factor *= 2;
        }
        base * factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cuda::Element;

    const H200: Chip = Chip { multiprocessors: 132, block_shared: 232_448, shared: 233_472 };

    #[test]
    fn the_runs_of_a_sum_do_not_depend_on_how_many_rows_there_are() {
        for kind in [Kind::Linear, Kind::Gated, Kind::Logits] {
            for (outputs, inputs) in
                [(6144, 4096), (4096, 4096), (14_336, 4096), (4096, 14_336), (32_768, 4096), (64, 64)]
            {
                let runs = WIDTHS.map(|width| {
                    let problem = Problem { format: Format::Dense(Element::Bf16), kind, width, outputs, inputs };
                    problem.geometry(H200).splits * problem.warps_along_inputs()
                });
                assert!(runs.iter().all(|&run| run == runs[0]), "{kind:?} {outputs} {inputs}: {runs:?}");
            }
        }
    }

    #[test]
    fn shared_memory_suffices_on_every_chip() {
        let ada = Chip { multiprocessors: 142, block_shared: 101_376, shared: 102_400 };
        for chip in [H200, ada] {
            for format in [Format::Dense(Element::F16), Format::Fp8, Format::Q8_0, Format::Q4K, Format::Q6K] {
                for (kind, width) in WIDTHS.into_iter().flat_map(|w| [(Kind::Linear, w), (Kind::Gated, w)]) {
                    let problem = Problem { format, kind, width, outputs: 4096, inputs: 4096 };
                    let geometry = problem.geometry(chip);
                    assert!(geometry.shared <= chip.block_shared, "{problem:?} {geometry:?}");
                }
            }
        }
    }
}
