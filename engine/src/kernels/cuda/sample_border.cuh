// Where a filter cuts a row: which tokens are the fewest most likely whose measures, their number or their weights,
// reach an amount.
//
// Nothing is sorted. Tokens are told apart digit by digit of their ranks, the most significant first: a histogram over
// a digit's values says in which the border lies. As soon as those that share all digits so far are few, each is
// compared with each.
#pragma once
#include "sample_measure.cuh"

// The sums of measures for each value of a digit, in two halves, as shared memory adds 32 bits at once.
__shared__ unsigned histogram_low[VALUES], histogram_high[VALUES];

DEVICE void add_to_histogram(int value, Sum measure) {
    unsigned low = unsigned(measure), high = unsigned(measure >> 32);
    if (low != 0) {
        unsigned old = atomicAdd(&histogram_low[value], low);
        high += old + low < old;
    }
    if (high != 0) atomicAdd(&histogram_high[value], high);
}

DEVICE Sum histogram_at(int value) { return Sum(histogram_high[value]) << 32 | histogram_low[value]; }

// The value up to which the histogram's sum reaches `needed`, and what of that value's is needed. If all of it does
// not reach it, the value is VALUES.
struct Reached {
    int value;
    Sum needed;
};
DEVICE Reached reach(Sum needed) {
    static_assert(VALUES == 2 * SAMPLERS, "each thread has two values");
    __shared__ Reached reached;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, value = 2 * threadIdx.x;
    Sum first = histogram_at(value), own = first + histogram_at(value + 1), upto = warp_prefix(own);
    if (threadIdx.x == 0) reached = {VALUES, 0};
    share_warp_sum(upto);
    upto += warp_total(lane < warp ? warp_sums[lane] : 0);
    Sum before = upto - own;
    if (before < needed && needed <= upto) {
        bool of_first = needed <= before + first;
        reached = {of_first ? value : value + 1, needed - before - (of_first ? 0 : first)};
    }
    __syncthreads();
    return reached;
}

// The few tokens that are compared with each other.
constexpr int FEW = 256;
__shared__ Sum few_ranks[FEW], few_measures[FEW];
__shared__ int few_ids[FEW];
__shared__ int few_count;

DEVICE void clear_histogram_and_few() {
    // Nobody still reads what they held.
    __syncthreads();
    for (int value = threadIdx.x; value < VALUES; value += SAMPLERS) histogram_low[value] = histogram_high[value] = 0;
    if (threadIdx.x == 0) few_count = 0;
    __syncthreads();
}

DEVICE void add_to_few(Sum rank, int id, Sum measure) {
    int at = atomicAdd(&few_count, 1);
    if (at < FEW) few_ranks[at] = rank, few_ids[at] = id, few_measures[at] = measure;
}

// The measures of those of the few that come before a token.
DEVICE Sum few_before(const Border& token) {
    Sum sum = 0;
#pragma unroll 1
    for (int i = 0; i < few_count; i++) sum += before(few_ranks[i], few_ids[i], token) ? few_measures[i] : 0;
    return sum;
}

DEVICE Border border_among_few(Sum needed) {
    __shared__ Border border;
    if (int(threadIdx.x) < few_count) {
        Border own = {few_ranks[threadIdx.x], few_ids[threadIdx.x]};
        Sum before = few_before(own);
        if (before < needed && needed <= before + few_measures[threadIdx.x]) border = own;
    }
    __syncthreads();
    return border;
}

// Leaves out tokens whose ranks do not begin with these digits, as far as distances tell.
DEVICE void narrow(Measure& measure, Sum digits, int shift) {
    if (shift < LOGIT_BITS) return;
    unsigned from = unsigned(digits << shift >> LOGIT_BITS), beyond = unsigned((digits + 1) << shift >> LOGIT_BITS);
    measure.nearest = from / DISTANCES;
    if (beyond <= LAST_DISTANCE) measure.farthest = fminf(measure.farthest, beyond / DISTANCES);
}

// The fewest most likely of the tokens that count whose sum reaches `needed`, which is above zero: up to which token
// they go. There is no border if the sum of all does not reach it.
static __device__ __noinline__ Border border_of(Row row, Measure measure, Sum needed) {
    Sum digits = 0;
#pragma unroll 1
    for (int shift = (DIGITS - 1) * DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        bool first = shift == (DIGITS - 1) * DIGIT_BITS;
        clear_histogram_and_few();
        // Many tokens of a row may be as far off as there is a digit for; each thread adds its own up by itself.
        Sum last = 0;
        for_each_group(row, [&](int id, const float(&logits)[TOKENS]) {
#pragma unroll
            for (int i = 0; i < TOKENS; i++) {
                Sum amount = fixed_point(measure_of(measure, id + i, logits[i]));
                if (amount == 0) continue;
                Sum rank = rank_of(distance_of(measure.scale, logits[i]), logits[i]);
                if (rank >> shift >> DIGIT_BITS != digits) continue;
                if (!first) add_to_few(rank, id + i, amount);
                int value = int(rank >> shift) & (VALUES - 1);
                if (value == VALUES - 1) {
                    last += amount;
                } else {
                    add_to_histogram(value, amount);
                }
            }
        });
        if (last != 0) add_to_histogram(VALUES - 1, last);
        __syncthreads();
        if (!first && few_count <= FEW) return border_among_few(needed);
        Reached reached = reach(needed);
        if (reached.value == VALUES) return NO_BORDER;
        needed = reached.needed;
        digits = digits << DIGIT_BITS | reached.value;
        narrow(measure, digits, shift);
    }
    // Many that differ only by id.
    measure.first = digits;
    if (measure.border.rank != digits) measure.border = {digits, NO_BORDER.id};
    total_of(row, measure);
    return {digits, find(row, measure, needed - 1)};
}
