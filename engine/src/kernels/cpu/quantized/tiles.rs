//! A matrix in tiles, and its product with quantised rows.
#![expect(unsafe_code, reason = "tasks write disjoint tiles, and disjoint columns of the product")]

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use candle_core::quantized::GgmlDType;
use memmap2::{Advice, MmapMut};

use super::{
    super::{disjoint::Disjoint, threads::Threads},
    format::{Column, Format, TILE},
    lanes::{ByteLanes, ByteSimd, dispatch_bytes},
    minimums::{Q4K, Q5K},
    q6k::Q6K,
    q8_0::Q8_0,
    rows::{Group, QuantizedRows, RowBlocks},
};

/// Bytes of weights that stay in a core's own cache while all rows go over them.
const STRIP: usize = 256 << 10;

/// Formats with kernels of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockFormat {
    Q4K,
    Q5K,
    Q6K,
    Q8_0,
}

/// `[outputs, inputs]` weights in tiles: `[outputs / 16][inputs / block][tile]`.
#[derive(Debug)]
pub(crate) struct Tiles {
    format: BlockFormat,
    outputs: usize,
    inputs: usize,
    bytes: MmapMut,
}

/// Evaluates `$body` with `$format` naming the type of `$value`.
macro_rules! with_format {
    ($value:expr, $format:ident => $body:expr) => {
        with_format!(Q4K, Q5K, Q6K, Q8_0: $value, $format => $body)
    };
    ($($name:ident),+: $value:expr, $format:ident => $body:expr) => {
        match $value {
            $(BlockFormat::$name => {
                type $format = $name;
                $body
            })+
        }
    };
}

impl BlockFormat {
    fn of(dtype: GgmlDType) -> Option<Self> {
        match dtype {
            GgmlDType::Q4K => Some(Self::Q4K),
            GgmlDType::Q5K => Some(Self::Q5K),
            GgmlDType::Q6K => Some(Self::Q6K),
            GgmlDType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Inputs and bytes of a block.
    fn block(self) -> (usize, usize) {
        with_format!(self, F => (F::INPUTS, F::BYTES))
    }
}

impl Tiles {
    /// Room for a matrix of that format; `None` if there are no kernels for it or rows aren't whole blocks.
    pub(crate) fn new(dtype: GgmlDType, outputs: usize, inputs: usize) -> std::io::Result<Option<Self>> {
        let Some(format) = BlockFormat::of(dtype) else { return Ok(None) };
        let (block, bytes) = format.block();
        if outputs == 0 || inputs == 0 || !inputs.is_multiple_of(block) {
            return Ok(None);
        }
        let bytes = MmapMut::map_anon(outputs.div_ceil(TILE) * TILE * (inputs / block) * bytes)?;
        // Large pages are a fifth of the bandwidth; where there are none, small ones do.
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(Advice::HugePage);
        Ok(Some(Self { format, outputs, inputs, bytes }))
    }

    /// Fills the tiles: `blocks` gives those of consecutive outputs, as a file has them.
    pub(crate) fn fill<'a, E: Send>(
        &mut self,
        threads: &Threads,
        blocks: impl Fn(Range<usize>) -> Result<Cow<'a, [u8]>, E> + Sync,
    ) -> Result<(), E> {
        let (format, outputs, column) = (self.format, self.outputs, self.column_bytes());
        let failure = Mutex::new(None);
        let tiles = Disjoint::new(&mut self.bytes[..]);
        threads.each(outputs.div_ceil(TILE), |index| {
            match blocks(index * TILE..((index + 1) * TILE).min(outputs)) {
                // SAFETY: every task has a column of its own.
                Ok(blocks) => pack(format, &blocks, unsafe { tiles.part(index * column..(index + 1) * column) }),
                Err(error) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// What rows must be quantised to.
    pub(crate) fn row_blocks(&self) -> RowBlocks {
        match self.format {
            BlockFormat::Q4K | BlockFormat::Q5K | BlockFormat::Q6K => RowBlocks::K,
            BlockFormat::Q8_0 => RowBlocks::ThirtyTwo,
        }
    }

    /// Bytes in memory, all of which a product reads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Columns of 16 outputs, the last perhaps not full.
    pub(crate) fn columns(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }

    /// The product of `rows` with the outputs of `columns`, into `out`: `[rows, outputs]`.
    ///
    /// # Safety
    /// No other task writes these columns of `out`.
    pub(crate) unsafe fn product(
        &self,
        simd: ByteSimd,
        rows: &QuantizedRows,
        columns: Range<usize>,
        out: &Disjoint<'_, f32>,
    ) {
        assert!(rows.inputs() == self.inputs && columns.end <= self.columns());
        let product = &Product { tiles: self, rows, out };
        with_format!(self.format, F => dispatch_bytes!(
            simd, product_columns::<F>, [<F: Format>], (product: &Product<'_>, columns: Range<usize>)
        ));
    }

    fn column_bytes(&self) -> usize {
        let (block, bytes) = self.format.block();
        TILE * (self.inputs / block) * bytes
    }
}

/// Packs up to 16 outputs' rows of blocks into their tiles; those missing are zero.
fn pack(format: BlockFormat, rows: &[u8], column: &mut [u8]) {
    const NOTHING: [u8; 512] = [0; 512];
    let (_, bytes) = format.block();
    let row = column.len() / TILE;
    for (index, tile) in column.chunks_exact_mut(TILE * bytes).enumerate() {
        let block = |output: usize| {
            let start = output * row + index * bytes;
            rows.get(start..start + bytes).unwrap_or(&NOTHING[..bytes])
        };
        with_format!(format, F => F::pack(std::array::from_fn(block), tile));
    }
}

struct Product<'a> {
    tiles: &'a Tiles,
    rows: &'a QuantizedRows,
    out: &'a Disjoint<'a, f32>,
}

/// # Safety
/// As [`Tiles::product`]; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn product_columns<L: ByteLanes, F: Format>(product: &Product<'_>, columns: Range<usize>) {
    let strip = (STRIP / product.tiles.column_bytes()).max(1);
    for first in columns.clone().step_by(strip) {
        for (row, count) in product.rows.groups() {
            let group = product.rows.group(row);
            for column in first..(first + strip).min(columns.end) {
                // SAFETY: by this function's contract; `group` has `count` rows.
                unsafe {
                    match count {
                        1 => cell::<L, F, 1>(product, column, row, group),
                        2 => cell::<L, F, 2>(product, column, row, group),
                        3 => cell::<L, F, 3>(product, column, row, group),
                        4 => cell::<L, F, 4>(product, column, row, group),
                        5 => cell::<L, F, 5>(product, column, row, group),
                        6 => cell::<L, F, 6>(product, column, row, group),
                        7 => cell::<L, F, 7>(product, column, row, group),
                        8 => cell::<L, F, 8>(product, column, row, group),
                        9 => cell::<L, F, 9>(product, column, row, group),
                        10 => cell::<L, F, 10>(product, column, row, group),
                        _ => unreachable!("a group has at most `ByteLanes::ROWS` rows"),
                    }
                }
            }
        }
    }
}

/// The product of one column with `M` rows.
///
/// # Safety
/// As [`product_columns`].
#[inline(always)]
unsafe fn cell<L: ByteLanes, F: Format, const M: usize>(
    product: &Product<'_>,
    column: usize,
    row: usize,
    group: Group,
) {
    if const { M > L::ROWS } {
        return;
    }
    let (tiles, outputs) = (product.tiles, product.tiles.outputs);
    let bytes = tiles.column_bytes();
    let tiles = Column { tiles: tiles.bytes[column * bytes..][..bytes].as_ptr(), blocks: tiles.inputs / F::INPUTS };
    let wanted_of_column = TILE.min(outputs - column * TILE);
    for lane in (0..wanted_of_column).step_by(L::LANES) {
        let first = column * TILE + lane;
        let wanted = L::LANES.min(wanted_of_column - lane);
        // SAFETY: the column has all its tiles, and its outputs are this task's.
        unsafe {
            let sums = F::sums::<L, M>(tiles, lane, group);
            for (m, sums) in sums.into_iter().enumerate() {
                let start = (row + m) * outputs + first;
                let out = product.out.part(start..start + wanted);
                if wanted == L::LANES {
                    L::store(sums, out.as_mut_ptr());
                } else {
                    let mut whole = [0.0; TILE];
                    L::store(sums, whole.as_mut_ptr());
                    out.copy_from_slice(&whole[..wanted]);
                }
            }
        }
    }
}
