//! What this machine can do at most, measured: reading memory, and multiplying 8-bit numbers.
//!
//! A step can be no faster than its bytes arrive, and no faster than its products are summed. Both limits take a
//! few hundredths of a second to measure, and may be repeated: what a shared machine gives changes.
#![expect(unsafe_code, reason = "vector loads from a slice, and instructions chosen at run time")]

#[cfg(target_arch = "aarch64")]
use std::arch::{aarch64::*, asm};
#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64::*};
use std::{
    fs, hint, io,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use memmap2::MmapMut;

use super::Threads;

/// Passes over the buffer, or over the multiplications; the best one counts.
const PASSES: usize = 8;
/// Bytes a thread takes at a time.
const PIECE: usize = 4 << 20;
/// Streams that one thread reads side by side: each has its own prefetcher in the core.
const STREAMS: usize = 4;
/// Bytes of each stream that are read before the next stream's turn.
const RUN: usize = 256;
/// The buffer in last-level caches: so many that next to nothing of it is still there a pass later.
const CACHES: usize = 8;
/// The last-level cache where the system does not tell.
const USUAL_CACHE: usize = 32 << 20;
/// Bounds of the buffer.
const BUFFER: (usize, usize) = (64 << 20, 512 << 20);

/// A buffer much larger than the last-level cache, in huge pages where there are any, to be read at full speed.
#[derive(Debug)]
pub struct BandwidthProbe {
    buffer: MmapMut,
}

impl BandwidthProbe {
    /// Allocates the buffer and writes to it, so that it is in memory.
    pub fn new(threads: &Threads) -> io::Result<Self> {
        let wanted = last_level_cache().unwrap_or(USUAL_CACHE).saturating_mul(CACHES);
        let mut buffer = MmapMut::map_anon(wanted.clamp(BUFFER.0, BUFFER.1).next_multiple_of(PIECE))?;
        #[cfg(target_os = "linux")]
        {
            // A kernel without huge pages refuses; ordinary ones do, a little slower.
            let _ = buffer.advise(memmap2::Advice::HugePage);
        }
        let pieces: Vec<_> = buffer.chunks_mut(PIECE).map(Mutex::new).collect();
        threads.each(pieces.len(), |index| {
            pieces[index].lock().unwrap_or_else(PoisonError::into_inner).fill(1);
        });
        drop(pieces);
        Ok(Self { buffer })
    }

    /// Bytes per second that all threads together read.
    pub fn measure(&self, threads: &Threads) -> f64 {
        let pieces: Vec<_> = self.buffer.chunks(PIECE).collect();
        let read = Read::available()[0];
        fastest(|| {
            threads.each(pieces.len(), |index| {
                hint::black_box(read.fold(pieces[index]));
            });
            self.buffer.len() as f64
        })
    }
}

/// 8-bit operations per second, two to a multiply-add, that all threads do with the dot product of their best
/// instruction set and operands that stay in registers.
pub fn measure_integer_peak(threads: &Threads) -> f64 {
    const ROUNDS: usize = 1 << 14;
    let dot = Dot::available()[0];
    let pieces = 64 * threads.count();
    fastest(|| {
        threads.each(pieces, |_| {
            hint::black_box(dot.sum(ROUNDS, hint::black_box(3), hint::black_box(5)));
        });
        (2 * pieces * ROUNDS * dot.products()) as f64
    })
}

/// The best of several passes, as what a pass returns per second.
fn fastest(mut pass: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = pass();
        amount / start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(rate).fold(0.0, f64::max)
}

/// Bytes of the first core's largest cache.
fn last_level_cache() -> Option<usize> {
    let size = |index: usize| {
        let text = fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()?.checked_mul(1024)
    };
    (0..8).map_while(size).max()
}

/// How memory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Read {
    /// Every way this CPU has, best first.
    fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") {
                all.push(Self::Avx2);
            }
        }
        all.push(Self::Portable);
        all
    }

    /// The exclusive or of all 64-bit words, so that no read can be left out. A remainder is not read.
    fn fold(self, bytes: &[u8]) -> u64 {
        let (streams, _) = bytes.as_chunks::<RUN>();
        let length = streams.len() / STREAMS;
        let streams: [&[[u8; RUN]]; STREAMS] = std::array::from_fn(|index| &streams[index * length..][..length]);
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found the feature.
            Self::Avx512 => unsafe { fold_avx512(streams) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found the feature.
            Self::Avx2 => unsafe { fold_avx2(streams) },
            Self::Portable => fold_portable(streams),
        }
    }
}

/// Asks for what a stream will need soon. An address past its end does no harm.
#[inline(always)]
fn prefetch(run: &[u8; RUN]) {
    /// How far ahead.
    #[cfg(target_arch = "x86_64")]
    const AHEAD: usize = 1024;
    #[cfg(target_arch = "x86_64")]
    for line in (0..RUN).step_by(64) {
        // SAFETY: a prefetch reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(run.as_ptr().wrapping_add(AHEAD + line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = run;
}

fn fold_portable(streams: [&[[u8; RUN]]; STREAMS]) -> u64 {
    let mut sums = [0; RUN / 8];
    for index in 0..streams[0].len() {
        for stream in streams {
            prefetch(&stream[index]);
            for (sum, word) in sums.iter_mut().zip(stream[index].as_chunks().0) {
                *sum ^= u64::from_le_bytes(*word);
            }
        }
    }
    sums.into_iter().fold(0, |sum, word| sum ^ word)
}

/// [`fold_portable`] with vectors of one instruction set, two sets of accumulators in turn.
macro_rules! fold_with {
    ($name:ident, $feature:literal, $vector:ty, $load:ident, $xor:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $feature)]
        fn $name(streams: [&[[u8; RUN]]; STREAMS]) -> u64 {
            const WIDTH: usize = size_of::<$vector>();
            // SAFETY: all bits zero are a vector.
            let mut sums: [$vector; 8] = unsafe { std::mem::zeroed() };
            for index in 0..streams[0].len() {
                for (turn, stream) in streams.into_iter().enumerate() {
                    let run = &stream[index];
                    prefetch(run);
                    for part in 0..RUN / WIDTH {
                        let sum = &mut sums[(turn * RUN / WIDTH + part) % 8];
                        // SAFETY: the part lies in the run; the load needs no alignment.
                        *sum = $xor(*sum, unsafe { $load(run.as_ptr().add(part * WIDTH).cast()) });
                    }
                }
            }
            let mut words = [[0_u64; WIDTH / 8]; 8];
            for (words, sum) in words.iter_mut().zip(&sums) {
                // SAFETY: the words have a vector's size.
                unsafe {
                    std::ptr::copy_nonoverlapping(std::ptr::from_ref(sum).cast(), words.as_mut_ptr(), words.len())
                };
            }
            words.into_iter().flatten().fold(0, |sum, word| sum ^ word)
        }
    };
}
fold_with!(fold_avx512, "avx512f", __m512i, _mm512_loadu_si512, _mm512_xor_si512);
fold_with!(fold_avx2, "avx2", __m256i, _mm256_loadu_si256, _mm256_xor_si256);

/// The 8-bit dot products that kernels are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dot {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

/// Sums in flight, enough to hide an instruction's latency.
const CHAINS: usize = 12;

impl Dot {
    /// Every one this CPU has, best first.
    fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
                all.push(Self::Avx512Vnni);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
                all.push(Self::AvxVnni);
            }
            if is_x86_feature_detected!("avx2") {
                all.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(Self::Neon);
        }
        all.push(Self::Portable);
        all
    }

    /// Products summed in one round.
    fn products(self) -> usize {
        CHAINS
            * match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => 64,
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni | Self::Avx2 => 32,
                #[cfg(target_arch = "aarch64")]
                Self::Neon => 16,
                Self::Portable => 16,
            }
    }

    /// `rounds · products · a · b`, summed product by product in 32 bits.
    fn sum(self, rounds: usize, a: u8, b: i8) -> i32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found the features.
            Self::Avx512Vnni => unsafe { sum_avx512_vnni(rounds, a, b) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found the features.
            Self::AvxVnni => unsafe { sum_avx_vnni(rounds, a, b) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `available` found the feature.
            Self::Avx2 => unsafe { sum_avx2(rounds, a, b) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `available` found the feature.
            Self::Neon => unsafe { sum_neon(rounds, a, b) },
            Self::Portable => sum_portable(rounds, a, b),
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
    fn every_way_of_reading_reads_every_word() {
        for length in [0, STREAMS * RUN, 6 * STREAMS * RUN, 1 << 16] {
            let bytes: Vec<u8> = (0..length).map(|index| ((index * index) >> 3) as u8).collect();
            let expected = bytes.as_chunks().0.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word));
            for read in Read::available() {
                assert_eq!(read.fold(&bytes), expected, "{read:?}, {length} bytes");
            }
        }
    }

    #[test]
    fn every_dot_product_sums_every_product() {
        for dot in Dot::available() {
            for (rounds, a, b) in [(0, 3, 5), (1, 3, 5), (7, 100, -90), (1000, 1, 1)] {
                let expected = (rounds * dot.products()) as i32 * i32::from(a) * i32::from(b);
                assert_eq!(dot.sum(rounds, a, b), expected, "{dot:?}, {rounds} rounds");
            }
        }
    }
}
