//! How many products dense kernels could sum if their operands never left the registers.
#![expect(unsafe_code, reason = "instructions chosen at run time")]

use std::hint;

#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::{Dot, Widened};
use crate::{
    kernels::cpu::{
        Threads,
        lanes::{F32, Lanes, Simd, WIDEST, dispatch},
        limits::fastest,
    },
    loader::Dtype,
};

/// Sums in flight, enough to hide an instruction's latency.
const CHAINS: usize = 12;
/// Bytes of one operand: of any kernel's register.
pub(super) const OPERAND: usize = 4 * WIDEST;

/// Operations per second, two to a multiply-add, that all threads do with the instruction that weights of `dtype`
/// are multiplied with: the best of some passes.
pub(in super::super) fn measure_peak(passes: usize, dtype: Dtype, threads: &Threads) -> f64 {
    const ROUNDS: usize = 1 << 13;
    let (kernel, pieces) = (Kernel::of(dtype), 64 * threads.count());
    // What is multiplied does not matter; zeros are no numbers that slow a CPU down.
    let zeros = [0; OPERAND];
    let products = kernel.sum(ROUNDS, &zeros).products;
    fastest(passes, || {
        threads.each(pieces, |_| {
            hint::black_box(kernel.sum(ROUNDS, hint::black_box(&zeros)).total);
        });
        (2 * pieces * products) as f64
    })
}

/// A sum of products.
#[derive(Debug, Default)]
pub(super) struct Sum {
    total: f32,
    products: usize,
}

/// The instruction of a kernel.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Widened(Simd),
    #[cfg(target_arch = "x86_64")]
    Pairs,
}

impl Kernel {
    /// What weights of this type are multiplied with.
    fn of(dtype: Dtype) -> Self {
        #[cfg(target_arch = "x86_64")]
        if dtype == Dtype::Bf16 && pairs::detected() {
            return Self::Pairs;
        }
        let _ = dtype;
        Self::Widened(Simd::best())
    }

    /// The products of `operand` with itself, summed in every chain `rounds` times.
    fn sum(self, rounds: usize, operand: &[u8; OPERAND]) -> Sum {
        let mut sum = Sum::default();
        let out = &mut sum;
        match self {
            // SAFETY: `Simd` was detected; an operand fills the widest register.
            Self::Widened(simd) => {
                dispatch!(simd, widened, [], (rounds: usize, operand: &[u8; OPERAND], out: &mut Sum))
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `of` found them; an operand fills a register.
            Self::Pairs => unsafe { pairs::peak(rounds, operand, out) },
        }
        sum
    }
}

/// # Safety
/// As [`sum_of`].
#[inline(always)]
unsafe fn widened<L: Lanes>(rounds: usize, operand: &[u8; OPERAND], out: &mut Sum) {
    // SAFETY: by this function's contract.
    unsafe { sum_of::<Widened<L, F32>>(rounds, operand, out) }
}

/// # Safety
/// The CPU has `D`'s instruction set, and no register of it is wider than an operand.
#[inline(always)]
pub(super) unsafe fn sum_of<D: Dot>(rounds: usize, operand: &[u8; OPERAND], out: &mut Sum) {
    // SAFETY: by this function's contract.
    unsafe {
        let (row, weights) = (D::row(operand.as_ptr().cast()), D::weights(operand.as_ptr()));
        let mut sums = [D::zero(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = D::add(*sum, row, weights);
            }
        }
        for sum in sums {
            out.total += D::total(sum);
        }
        out.products += rounds * CHAINS * D::STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_sums_every_product() {
        let singles: Vec<u8> = [1.5_f32; WIDEST].iter().flat_map(|number| number.to_le_bytes()).collect();
        #[cfg(target_arch = "x86_64")]
        let pairs: Vec<u8> = [half::bf16::from_f32(1.5); 2 * WIDEST].iter().flat_map(|n| n.to_le_bytes()).collect();
        let kernels = Simd::available().into_iter().map(Kernel::Widened);
        for kernel in kernels.chain([Kernel::of(Dtype::Bf16), Kernel::of(Dtype::F16)]) {
            let operand = match kernel {
                Kernel::Widened(_) => &singles,
                #[cfg(target_arch = "x86_64")]
                Kernel::Pairs => &pairs,
            };
            let operand: &[u8; OPERAND] = operand.first_chunk().unwrap_or(&[0; OPERAND]);
            for rounds in [0, 1, 100] {
                let Sum { total, products } = kernel.sum(rounds, operand);
                assert_eq!(total, products as f32 * 2.25, "{kernel:?}");
                assert_eq!(products % (CHAINS * rounds).max(1), 0, "{kernel:?}");
            }
        }
    }
}
