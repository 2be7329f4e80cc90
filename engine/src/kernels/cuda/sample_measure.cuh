// What tokens count for, or weigh, and the sums of it over a row.
//
// All sums but those of four tokens are of integers, so that whatever their order, they have the same bits.
#pragma once
#include "sample_row.cuh"

// In units of 2^-46, so that those of 2^17 tokens, each at most 1, can be added.
using Sum = unsigned long long;
constexpr int FRACTION_BITS = 46;
constexpr double UNIT = 1.0 / (1ll << FRACTION_BITS);

// Of a number less than 8.
DEVICE Sum fixed_point(float x) {
    unsigned bits = __float_as_uint(x);
    unsigned exponent = bits >> 23;
    Sum mantissa = (bits & 0x7fffffu) | 0x800000u;
    return mantissa << (FRACTION_BITS - 23 + 2) >> min(127u + 2 - exponent, 63u);
}

// What makes weights of logits: 2^((logit - best) · scale), where `scale` is log2(e) / temperature.
struct Scale {
    float best, scale;
};
// How far a logit is below the best: its weight is 2^-distance. NaN where it is NaN.
DEVICE float distance_of(const Scale& scale, float logit) { return (scale.best - logit) * scale.scale; }
// Beyond this distance, weights are zero in fixed point.
constexpr float WEIGHTLESS = 47.f;

// Ranks have five digits: two of the distance, linear, so that tokens of a row spread over their values; three of the
// logit itself, which tells apart what has the same distance.
constexpr int DIGIT_BITS = 11;
constexpr int DIGITS = 5;
constexpr int VALUES = 1 << DIGIT_BITS;
constexpr int LOGIT_BITS = 3 * DIGIT_BITS;
// The first two digits are the distance in units of 2^-16; what is too far for them has the last.
constexpr float DISTANCES = 65536.f;
constexpr unsigned LAST_DISTANCE = VALUES * VALUES - 1;

// A token's rank: the lower, the more likely; tokens of the same logit have the same.
DEVICE Sum rank_of(float distance, float logit) {
    unsigned linear = distance < LAST_DISTANCE / DISTANCES ? unsigned(distance * DISTANCES) : LAST_DISTANCE;
    unsigned bits = __float_as_uint(logit);
    unsigned descending = bits ^ (int(bits) < 0 ? 0u : 0x7fffffffu);
    return Sum(linear) << LOGIT_BITS | Sum(descending) << 1;
}

// The last token that a filter keeps; among those of the same rank, the lower ids are kept.
struct Border {
    Sum rank;
    int id;
};
constexpr Border NO_BORDER = {~0ull, 0x7fffffff};
DEVICE bool is_none(const Border& border) { return border.rank == NO_BORDER.rank; }

DEVICE bool before(Sum rank, int id, const Border& other) {
    return (rank < other.rank) | ((rank == other.rank) & (id < other.id));
}

// What tokens count for: one each, or their weights. Only those count whose distance lies within `nearest` and
// `farthest`, whose rank is at least `first` and which go no farther than the border; and of weights, those of at
// least `least`.
struct Measure {
    Scale scale;
    bool weights;
    float nearest, farthest, least;
    Sum first;
    Border border;
};

DEVICE float measure_of(const Measure& measure, int id, float logit) {
    float distance = distance_of(measure.scale, logit);
    // This leaves out most tokens of most rows. What is left costs more.
    if (!(distance >= measure.nearest && distance <= measure.farthest)) return 0.f;
    if (!is_none(measure.border)) {
        Sum rank = rank_of(distance, logit);
        if ((rank < measure.first) | before(measure.border.rank, measure.border.id, {rank, id})) return 0.f;
    }
    if (!measure.weights) return 1.f;
    float weight = exp2f(-distance);
    return weight >= measure.least ? weight : 0.f;
}

// Leaves out what is beyond a border.
DEVICE void limit(Measure& measure, const Border& border) {
    measure.border = border;
    unsigned beyond = unsigned(border.rank >> LOGIT_BITS) + 1;
    if (beyond <= LAST_DISTANCE) measure.farthest = fminf(measure.farthest, beyond / DISTANCES);
}

DEVICE Sum warp_total(Sum x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}
// The sum of this lane's and all before it.
DEVICE Sum warp_prefix(Sum x) {
    for (int offset = 1; offset < WARP; offset *= 2) {
        Sum before = __shfl_up_sync(ALL_LANES, x, offset);
        if (int(threadIdx.x) % WARP >= offset) x += before;
    }
    return x;
}

// What each warp has of a sum over the block.
__shared__ Sum warp_sums[SEGMENTS];

// Hands out each warp's sum, which its last lane has.
DEVICE void share_warp_sum(Sum sum) {
    // Nobody still reads those of another.
    __syncthreads();
    if (threadIdx.x % WARP == WARP - 1) warp_sums[threadIdx.x / WARP] = sum;
    __syncthreads();
}

// The sum over all tokens; `find` may follow.
static __device__ __noinline__ Sum total_of(Row row, Measure measure) {
    Sum sum = 0;
    for_each_group(row, [&](int id, const float(&logits)[TOKENS]) {
        float group = 0.f;
#pragma unroll
        for (int i = 0; i < TOKENS; i++) group += measure_of(measure, id + i, logits[i]);
        sum += fixed_point(group);
    });
    share_warp_sum(warp_total(sum));
    return warp_total(warp_sums[threadIdx.x % WARP]);
}

// In which warp's part a sum first exceeds a target, and how much of it is left there.
struct Part {
    int warp;
    Sum left;
};
DEVICE int first_lane(unsigned lanes) { return __ffs(int(lanes)) - 1; }
DEVICE Part part_of(Sum target) {
    Sum own = warp_sums[threadIdx.x % WARP], upto = warp_prefix(own);
    int warp = first_lane(__ballot_sync(ALL_LANES, upto > target));
    return {warp, target - __shfl_sync(ALL_LANES, upto - own, warp)};
}

// The token at which the sum so far first exceeds `target`, which is less than the total; `total_of` the same was
// called last. All warps take one stride each of the segment where that is: it has no more than there are warps.
static __device__ __noinline__ int find(Row row, Measure measure, Sum target) {
    __shared__ int found;
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Part segment = part_of(target);
    int end = segment_of(row, segment.warp).end;
    int id = segment_of(row, segment.warp).begin + warp * STRIDE + lane * TOKENS;
    float4 loaded = load_group(row, id, end);
    float logits[TOKENS] = {loaded.x, loaded.y, loaded.z, loaded.w}, group = 0.f;
    Sum upto[TOKENS];
#pragma unroll
    for (int i = 0; i < TOKENS; i++) upto[i] = fixed_point(group += measure_of(measure, id + i, logits[i]));
    Sum own = upto[TOKENS - 1], prefix = warp_prefix(own);
    share_warp_sum(prefix);
    Part stride = part_of(segment.left);
    unsigned past = __ballot_sync(ALL_LANES, prefix > stride.left);
    if (warp == stride.warp && lane == first_lane(past)) {
        Sum left = stride.left - (prefix - own);
        int i = 0;
        while (i < TOKENS - 1 && upto[i] <= left) i++;
        found = id + i;
    }
    __syncthreads();
    return found;
}
