// Attention of rows that each stand alone, over the paged cache: splits of a row's positions in parallel, then their
// combination (flash decoding).
#include "attention_split_any.cuh"
#include "attention_split_mma.cuh"

// Three blocks' loads keep a multiprocessor's memory busy.
constexpr int SPLIT_BLOCKS = 3;

template <class X>
constexpr bool HAS_MMA = sizeof(X) == 2;
constexpr size_t SPLIT_SHARED = sizeof(MmaSplitShared<128>) > sizeof(AnySplitShared) ? sizeof(MmaSplitShared<128>)
                                                                                     : sizeof(AnySplitShared);

// The grid is (row, key/value head, split). Splits of which the row sees nothing have no record.
template <class X, class S>
DEVICE void attend_split(Split<X, S>& split, const X* qkv, const int* positions, const int* table_offsets,
                         const int* tables, int heads, int window, int splits) {
    __shared__ __align__(16) unsigned char shared[SPLIT_SHARED];
    int row = blockIdx.x, kv_heads = split.pages.kv_heads;
    split.first = blockIdx.z * SPLIT;
    split.seen = seen_from(positions[row], window);
    if (!sees_any(split.seen, split.first, SPLIT)) return;
    split.group = heads / kv_heads;
    split.pages.table = tables + table_offsets[row];
    split.pages.kv_head = blockIdx.y;
    int head = blockIdx.y * split.group;
    split.queries = qkv + (size_t(row) * (heads + 2 * kv_heads) + head) * split.head_dim;
    split.record_stride = size_t(splits) * (split.head_dim + 2);
    split.records += (size_t(row) * heads + head) * split.record_stride + size_t(blockIdx.z) * (split.head_dim + 2);
    if constexpr (HAS_MMA<X>) {
        if (split.group <= QUERIES && split.head_dim == 128) {
            return attend_split_mma<X, S, 128>(*reinterpret_cast<MmaSplitShared<128>*>(shared), split);
        }
        if (split.group <= QUERIES && split.head_dim == 64) {
            return attend_split_mma<X, S, 64>(*reinterpret_cast<MmaSplitShared<64>*>(shared), split);
        }
    }
    attend_split_any(*reinterpret_cast<AnySplitShared*>(shared), split);
}

constexpr int COMBINE_WARPS = 4;
// Pairs of numbers of a lane: heads have up to 256.
constexpr int COMBINE_PAIRS = 4;

// Adds a record to a sum of records of other positions; one that weighs nothing changes nothing.
DEVICE void join(float2 (&sums)[COMBINE_PAIRS], float& highest, float& total, const float* record, int head_dim,
                 int lane) {
    float2 next[COMBINE_PAIRS];
#pragma unroll
    for (int i = 0; i < COMBINE_PAIRS; i++) {
        int at = 2 * (lane + i * WARP);
        next[i] = at < head_dim ? *reinterpret_cast<const float2*>(record + at) : make_float2(0.f, 0.f);
    }
    float2 end = *reinterpret_cast<const float2*>(record + head_dim);
    if (end.y == 0.f) return;
    float both = fmaxf(highest, end.x), factor = exp2f(highest - both), next_factor = exp2f(end.x - both);
    highest = both;
    total = total * factor + end.y * next_factor;
#pragma unroll
    for (int i = 0; i < COMBINE_PAIRS; i++) {
        sums[i].x = sums[i].x * factor + next[i].x * next_factor;
        sums[i].y = sums[i].y * factor + next[i].y * next_factor;
    }
}

// The grid is (row, head). Warps take the splits in turn, by their number, and are joined in their order.
template <class X>
DEVICE void attend_combine(X* out, const float* partial, const Seen& seen, int heads, int head_dim, int splits) {
    __shared__ __align__(16) float records[COMBINE_WARPS][64 * COMBINE_PAIRS + 2];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    size_t head = size_t(blockIdx.x) * heads + blockIdx.y;
    const float* mine = partial + head * splits * (head_dim + 2);
    float2 sums[COMBINE_PAIRS] = {};
    float highest = -INFINITY, total = 0.f;
    int first = seen.first / SPLIT, last = seen.last / SPLIT;
#pragma unroll 4
    for (int split = first + (warp - first % COMBINE_WARPS + COMBINE_WARPS) % COMBINE_WARPS; split <= last;
         split += COMBINE_WARPS) {
        join(sums, highest, total, mine + size_t(split) * (head_dim + 2), head_dim, lane);
    }
#pragma unroll
    for (int i = 0; i < COMBINE_PAIRS; i++) {
        int at = 2 * (lane + i * WARP);
        if (at < head_dim) *reinterpret_cast<float2*>(&records[warp][at]) = sums[i];
    }
    if (lane == 0) *reinterpret_cast<float2*>(&records[warp][head_dim]) = make_float2(highest, total);
    __syncthreads();
    if (warp != 0) return;
    for (int other = 1; other < COMBINE_WARPS; other++) {
        join(sums, highest, total, records[other], head_dim, lane);
    }
    float factor = 1.f / total;
#pragma unroll
    for (int i = 0; i < COMBINE_PAIRS; i++) {
        int at = 2 * (lane + i * WARP);
        if (at >= head_dim) continue;
        out[head * head_dim + at] = from_float<X>(sums[i].x * factor);
        out[head * head_dim + at + 1] = from_float<X>(sums[i].y * factor);
    }
}

#define ATTEND_SPLIT(suffix, X, S)                                                                                     \
    KERNEL(__launch_bounds__(SPLIT_THREADS, SPLIT_BLOCKS) attend_split_##suffix)                                       \
    (float* partial, const X* qkv, const void* keys, const void* values, const float* key_scales,                      \
     const float* value_scales, const int* positions, const int* table_offsets, const int* tables, int heads,          \
     int kv_heads, int head_dim, int block_size, int window, int splits, float scale) {                                \
        begin();                                                                                                       \
        Split<X, S> split;                                                                                             \
        split.cache = {static_cast<const S*>(keys), static_cast<const S*>(values), key_scales, value_scales};          \
        split.pages.kv_heads = kv_heads, split.pages.block_size = block_size;                                          \
        split.head_dim = head_dim, split.scale = scale * LOG2_E, split.records = partial;                              \
        attend_split(split, qkv, positions, table_offsets, tables, heads, window, splits);                             \
    }                                                                                                                  \
    REGISTER(attend_split_##suffix)

#define ATTEND_COMBINE(suffix, X)                                                                              \
    KERNEL(__launch_bounds__(COMBINE_WARPS* WARP) attend_combine_##suffix)                                     \
    (X* out, const float* partial, const int* positions, int heads, int head_dim, int window, int splits) {    \
        begin();                                                                                               \
        attend_combine(out, partial, seen_from(positions[blockIdx.x], window), heads, head_dim, splits);            \
    }                                                                                                          \
    REGISTER(attend_combine_##suffix)

ATTEND_SPLIT(bf16, bf16, bf16)
ATTEND_SPLIT(f16, f16, f16)
ATTEND_SPLIT(f32, float, float)
ATTEND_SPLIT(bf16_q8, bf16, int8_t)
ATTEND_SPLIT(f16_q8, f16, int8_t)
ATTEND_SPLIT(f32_q8, float, int8_t)
ATTEND_COMBINE(bf16, bf16)
ATTEND_COMBINE(f16, f16)
ATTEND_COMBINE(f32, float)
