//! How many 8-bit products are summed, with the instruction that quantised products are made of.
#![expect(unsafe_code, reason = "instructions chosen at run time")]

#[cfg(target_arch = "aarch64")]
use std::arch::{aarch64::*, asm};
#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64::*};
use std::hint;

use super::{
    super::{Threads, quantized::ByteSimd},
    PASSES, fastest,
};

/// Sums in flight, enough to hide an instruction's latency.
const CHAINS: usize = 12;

/// 8-bit operations per second, two to a multiply-add, that all threads do with the dot product of their best
/// instruction set and operands that stay in registers.
pub fn measure_integer_peak(threads: &Threads) -> f64 {
    best_of(PASSES, threads)
}

pub(super) fn best_of(passes: usize, threads: &Threads) -> f64 {
    const ROUNDS: usize = 1 << 14;
    let simd = ByteSimd::best();
    let pieces = 64 * threads.count();
    fastest(passes, || {
        threads.each(pieces, |_| {
            hint::black_box(sum(simd, ROUNDS, hint::black_box(3), hint::black_box(5)));
        });
        (2 * pieces * ROUNDS * products(simd)) as f64
    })
}

/// Products summed in one round.
fn products(simd: ByteSimd) -> usize {
    CHAINS
        * match simd {
            #[cfg(target_arch = "x86_64")]
            ByteSimd::Avx512 => 64,
            #[cfg(target_arch = "x86_64")]
            ByteSimd::AvxVnni | ByteSimd::Avx2 => 32,
            #[cfg(target_arch = "aarch64")]
            ByteSimd::Neon => 16,
            ByteSimd::Scalar => 16,
        }
}

/// `rounds · products · a · b`, summed product by product in 32 bits.
fn sum(simd: ByteSimd, rounds: usize, a: u8, b: i8) -> i32 {
    // SAFETY: `ByteSimd` values are only made by detection.
    unsafe {
        match simd {
            #[cfg(target_arch = "x86_64")]
            ByteSimd::Avx512 => sum_avx512_vnni(rounds, a, b),
            #[cfg(target_arch = "x86_64")]
            ByteSimd::AvxVnni => sum_avx_vnni(rounds, a, b),
            #[cfg(target_arch = "x86_64")]
            ByteSimd::Avx2 => sum_avx2(rounds, a, b),
            #[cfg(target_arch = "aarch64")]
            ByteSimd::Neon => sum_neon(rounds, a, b),
            ByteSimd::Scalar => sum_portable(rounds, a, b),
        }
    }
}

fn sum_portable(rounds: usize, a: u8, b: i8) -> i32 {
    let operands = ([a; 16 * CHAINS], [b; 16 * CHAINS]);
    let mut sums = [0_i32; 16 * CHAINS];
    for _ in 0..rounds {
        let (a, b) = hint::black_box(&operands);
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = sum.wrapping_add(i32::from(*a) * i32::from(*b));
        }
    }
    sums.into_iter().fold(0, i32::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn sum_avx512_vnni(rounds: usize, a: u8, b: i8) -> i32 {
    let (a, b) = (_mm512_set1_epi8(a.cast_signed()), _mm512_set1_epi8(b));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    _mm512_reduce_add_epi32(sums.into_iter().fold(_mm512_setzero_si512(), |all, sum| _mm512_add_epi32(all, sum)))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
fn sum_avx_vnni(rounds: usize, a: u8, b: i8) -> i32 {
    let (a, b) = (_mm256_set1_epi8(a.cast_signed()), _mm256_set1_epi8(b));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
        }
    }
    add_lanes(&sums)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(rounds: usize, a: u8, b: i8) -> i32 {
    let (mut a, b) = (_mm256_set1_epi8(a.cast_signed()), _mm256_set1_epi8(b));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // The product does not depend on the sum: this keeps it from being computed once for all.
            // SAFETY: a comment in the assembly; it only claims to change a register.
            unsafe { asm!("/* {a} */", a = inout(ymm_reg) a, options(nomem, nostack, preserves_flags)) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    add_lanes(&sums)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_lanes(sums: &[__m256i]) -> i32 {
    let mut lanes = [0_i32; 8];
    let all = sums.iter().fold(_mm256_setzero_si256(), |all, sum| _mm256_add_epi32(all, *sum));
    // SAFETY: there is room for a vector, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), all) };
    lanes.into_iter().fold(0, i32::wrapping_add)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn sum_neon(rounds: usize, a: u8, b: i8) -> i32 {
    let (a, b) = (vdupq_n_s8(a.cast_signed()), vdupq_n_s8(b));
    let mut sums = [vdupq_n_s32(0); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            // The intrinsic is not stable yet.
            // SAFETY: an instruction on registers that this function's feature provides.
            unsafe {
                asm!("sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum = inout(vreg) *sum, a = in(vreg) a, b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    sums.into_iter().fold(0_i32, |all, sum| all.wrapping_add(vaddvq_s32(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dot_product_sums_every_product() {
        for simd in ByteSimd::available() {
            for (rounds, a, b) in [(0, 3, 5), (1, 3, 5), (7, 100, -90), (1000, 1, 1)] {
                let expected = (rounds * products(simd)) as i32 * i32::from(a) * i32::from(b);
                assert_eq!(sum(simd, rounds, a, b), expected, "{simd:?}, {rounds} rounds");
            }
        }
    }
}
