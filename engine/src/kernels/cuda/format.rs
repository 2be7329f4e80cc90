//! How matrices lie on the device.

use candle_core::quantized::GgmlDType;

use super::element::Element;

/// What a matrix is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// Row after row of numbers.
    Dense(Element),
    /// Row after row of e4m3 bytes, and a scale for each row.
    Fp8,
    /// GGUF blocks of 8 bits, in tiles.
    Q8_0,
    /// GGUF super-blocks of 4 bits, in tiles.
    Q4K,
    /// GGUF super-blocks of 5 bits, in tiles.
    Q5K,
    /// GGUF super-blocks of 6 bits, in tiles.
    Q6K,
}

/// Inputs of a tile, and what all formats' quick kernels need a multiple of.
const TILE_INPUTS: usize = 64;
/// Outputs of a tile.
const TILE_OUTPUTS: usize = 16;

/// The kernel that brings GGUF blocks into their format.
pub(super) fn repacking(dtype: GgmlDType) -> Option<&'static str> {
    match dtype {
        GgmlDType::Q8_0 => Some("repack_q8_0"),
        GgmlDType::Q4_0 => Some("repack_q4_0"),
        GgmlDType::Q5_0 => Some("repack_q5_0"),
        GgmlDType::Q4K => Some("repack_q4k"),
        GgmlDType::Q5K => Some("repack_q5k"),
        GgmlDType::Q6K => Some("repack_q6k"),
        _ => None,
    }
}

impl Format {
    /// The format that GGUF blocks of such a matrix can be brought into, if any.
    pub(super) fn of_blocks(dtype: GgmlDType, outputs: usize, inputs: usize) -> Option<Self> {
        let format = match dtype {
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K | GgmlDType::Q4_0 => Self::Q4K,
            GgmlDType::Q5K | GgmlDType::Q5_0 => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            _ => return None,
        };
        (outputs.is_multiple_of(TILE_OUTPUTS) && inputs.is_multiple_of(TILE_INPUTS)).then_some(format)
    }

    /// Whether a matrix of so many inputs has the quick kernels.
    pub(super) fn is_quick(self, inputs: usize) -> bool {
        !matches!(self, Self::Dense(Element::F32)) && inputs.is_multiple_of(TILE_INPUTS)
    }

    /// How the kernels for it are called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dense(element) => element.suffix(),
            Self::Fp8 => "fp8",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4k",
            Self::Q5K => "q5k",
            Self::Q6K => "q6k",
        }
    }

    /// Whether the weights lie in tiles.
    pub(super) fn is_tiled(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4K | Self::Q5K | Self::Q6K)
    }

    /// Bytes of 16 outputs' weights for 64 inputs.
    pub(super) fn tile_bytes(self) -> usize {
        match self {
            Self::Dense(element) => TILE_OUTPUTS * TILE_INPUTS * element.bytes(),
            Self::Fp8 => 1024,
            Self::Q8_0 => 1088,
            Self::Q4K => 640,
            Self::Q5K => 768,
            Self::Q6K => 896,
        }
    }

    /// Bytes of a matrix.
    pub(super) fn bytes(self, outputs: usize, inputs: usize) -> usize {
        match self {
            Self::Dense(element) => outputs * inputs * element.bytes(),
            Self::Fp8 => outputs * inputs,
            tiled => outputs / TILE_OUTPUTS * (inputs / TILE_INPUTS) * tiled.tile_bytes(),
        }
    }
}
