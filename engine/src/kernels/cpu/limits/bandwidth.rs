//! How fast memory is read.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector loads from a slice, chosen at run time"))]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::{
    fs, hint, io,
    sync::{Mutex, PoisonError},
};

use memmap2::MmapMut;

use super::{super::Threads, PASSES, fastest};
use crate::memory;

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

/// The share of the memory that is free that the buffer may take: a small container is not to be filled for it.
const FREE_SHARE: usize = 8;

/// A buffer much larger than the last-level cache, in huge pages where there are any, to be read at full speed.
/// Where memory is scarce it is smaller, and what a cache keeps of it is read faster than memory.
#[derive(Debug)]
pub struct BandwidthProbe {
    buffer: MmapMut,
}

impl BandwidthProbe {
    /// Allocates the buffer and writes to it, so that it is in memory.
    pub fn new(threads: &Threads) -> io::Result<Self> {
        let wanted = last_level_cache().unwrap_or(USUAL_CACHE).saturating_mul(CACHES).clamp(BUFFER.0, BUFFER.1);
        let affordable = wanted.min(memory::available() / FREE_SHARE).max(PIECE);
        let mut buffer = MmapMut::map_anon(affordable.next_multiple_of(PIECE))?;
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
        self.best_of(PASSES, threads)
    }

    pub(super) fn best_of(&self, passes: usize, threads: &Threads) -> f64 {
        let pieces: Vec<_> = self.buffer.chunks(PIECE).collect();
        let read = Read::available()[0];
        fastest(passes, || {
            threads.each(pieces.len(), |index| {
                hint::black_box(read.fold(pieces[index]));
            });
            self.buffer.len() as f64
        })
    }
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
}
