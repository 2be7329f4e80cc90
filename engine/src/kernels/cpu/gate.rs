//! The gate of the feed-forward layer.
#![expect(unsafe_code, reason = "SIMD over slices")]

use super::lanes::{Lanes, Simd, dispatch};

/// `gate = silu(gate) · up`, with `silu(x) = x / (1 + e^-x)`: each number by itself, whatever the slice.
pub fn silu_gate(gate: &mut [f32], up: &[f32]) {
    silu_gate_with(Simd::best(), gate, up);
}

fn silu_gate_with(simd: Simd, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    // SAFETY: `Simd` was detected; both have as many numbers.
    dispatch!(simd, silu, [], (gate: &mut [f32], up: &[f32]));
}

/// # Safety
/// Both have as many numbers; the CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn silu<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    let whole = gate.len() / L::WIDTH * L::WIDTH;
    let rest = gate.len() - whole;
    // SAFETY: indices stay below the common length.
    unsafe {
        for at in (0..whole).step_by(L::WIDTH) {
            let to = gate.as_mut_ptr().add(at);
            vector(L::load_f32(to.cast()), L::load_f32(up.as_ptr().add(at).cast())).store(to);
        }
        let to = gate.as_mut_ptr().add(whole);
        vector(L::load_part(to, rest), L::load_part(up.as_ptr().add(whole), rest)).store_part(to, rest);
    }
}

/// # Safety
/// The CPU has `L`'s instruction set.
#[inline(always)]
unsafe fn vector<L: Lanes>(gate: L, up: L) -> L {
    // SAFETY: the caller's contract.
    unsafe { gate.div(L::splat(1.0).add(L::zero().sub(gate).exp())).mul(up) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_agrees_with_f64_wherever_a_slice_is_cut() {
        let gate: Vec<f32> = (0..1000).map(|index| (index as f32 - 500.0) * 0.37).collect();
        let up: Vec<f32> = (0..1000).map(|index| ((index * 31) % 97) as f32 - 48.0).collect();
        for simd in Simd::available() {
            let mut whole = gate.clone();
            silu_gate_with(simd, &mut whole, &up);
            for ((gate, up), result) in gate.iter().zip(&up).zip(&whole) {
                let exact = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*up);
                assert!((f64::from(*result) - exact).abs() <= 1e-6 * exact.abs() + 1e-35, "{simd:?}: {gate}");
            }
            for cut in [1, 5, 16, 501] {
                let mut parts = gate.clone();
                let (first, second) = parts.split_at_mut(cut);
                silu_gate_with(simd, first, &up[..cut]);
                silu_gate_with(simd, second, &up[cut..]);
                assert_eq!(parts, whole, "{simd:?}");
            }
        }
    }
}
