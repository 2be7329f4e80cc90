// The small operations on rows of numbers: embedding, sum and norm, activation. `X` is what rows are stored as; the
// residual stream, `hidden`, and all sums are single precision.
//
// Numbers are taken eight at a time, 16 bytes at once, where a row's width allows it, else one by one. Sums depend
// on the width and the block's size only.
#include "common.cuh"

// Numbers that a thread takes at once.
constexpr int NUMBERS = 8;

template <class X>
DEVICE void load(float (&out)[NUMBERS], const X* in) {
    uint4 words = *reinterpret_cast<const uint4*>(in);
    uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = to_float(low_half<X>(pairs[i]));
        out[2 * i + 1] = to_float(high_half<X>(pairs[i]));
    }
}
template <>
DEVICE void load<float>(float (&out)[NUMBERS], const float* in) {
    float4 low = reinterpret_cast<const float4*>(in)[0], high = reinterpret_cast<const float4*>(in)[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}

template <class X>
DEVICE void store(X* out, const float (&in)[NUMBERS]) {
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = pack(from_float<X>(in[2 * i]), from_float<X>(in[2 * i + 1]));
    *reinterpret_cast<uint4*>(out) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
template <>
DEVICE void store<float>(float* out, const float (&in)[NUMBERS]) {
    reinterpret_cast<float4*>(out)[0] = make_float4(in[0], in[1], in[2], in[3]);
    reinterpret_cast<float4*>(out)[1] = make_float4(in[4], in[5], in[6], in[7]);
}

// The sum over the block, whose size is a multiple of a warp; every thread gets it.
DEVICE float block_sum(float x) {
    __shared__ float sums[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    if (lane == 0) sums[warp] = x;
    __syncthreads();
    return warp_sum(lane < int(blockDim.x) / WARP ? sums[lane] : 0.f);
}

// hidden[row] = table[token]; the grid is the rows. A token below zero is one of `sampled`: -1 the first, -2 the
// second. Where nothing was sampled there is a number below zero, too; that row is of use to nobody and gets token 0.
template <class X>
DEVICE void embed(float* hidden, const X* table, const int* tokens, const int* sampled, int width) {
    int token = tokens[blockIdx.x];
    token = max(token < 0 ? sampled[-(token + 1)] : token, 0);
    const X* in = table + size_t(token) * width;
    float* out = hidden + size_t(blockIdx.x) * width;
    if (width % NUMBERS != 0) {
        for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = to_float(in[i]);
        return;
    }
    for (int i = threadIdx.x * NUMBERS; i < width; i += blockDim.x * NUMBERS) {
        float values[NUMBERS];
        load(values, in + i);
        store(out + i, values);
    }
}

// One row to be normed: `hidden` and, unless null, what is added to it.
template <class X>
struct Addition {
    float* hidden;
    const X* delta;
    // Whether the sum replaces `hidden`.
    bool kept;
};

template <class X>
DEVICE void load_sum(float (&out)[NUMBERS], const Addition<X>& row, int at) {
    load(out, row.hidden + at);
    if (row.delta == nullptr) return;
    float delta[NUMBERS];
    load(delta, row.delta + at);
#pragma unroll
    for (int i = 0; i < NUMBERS; i++) out[i] += delta[i];
}

template <class X>
DEVICE void store_normed(X* out, float (&values)[NUMBERS], const float (&weight)[NUMBERS], float scale) {
#pragma unroll
    for (int i = 0; i < NUMBERS; i++) values[i] = values[i] * scale * weight[i];
    store(out, values);
}

DEVICE float sum_of_squares(const float (&values)[NUMBERS], float sum) {
#pragma unroll
    for (int i = 0; i < NUMBERS; i++) sum = fmaf(values[i], values[i], sum);
    return sum;
}

// The first numbers of each thread stay in registers; what a wider row has beyond is read again.
template <class X>
DEVICE void add_norm_fast(X* out, Addition<X> row, const float* weight, int width, float epsilon) {
    int first = threadIdx.x * NUMBERS, step = blockDim.x * NUMBERS;
    float values[NUMBERS] = {}, factors[NUMBERS] = {}, more[NUMBERS];
    if (first < width) {
        load_sum(values, row, first);
        load(factors, weight + first);
        if (row.kept) store(row.hidden + first, values);
    }
    float squares = sum_of_squares(values, 0.f);
    for (int at = first + step; at < width; at += step) {
        load_sum(more, row, at);
        if (row.kept) store(row.hidden + at, more);
        squares = sum_of_squares(more, squares);
    }
    float scale = rsqrtf(block_sum(squares) / width + epsilon);
    if (first < width) store_normed(out + first, values, factors, scale);
    if (row.kept) row.delta = nullptr;
    for (int at = first + step; at < width; at += step) {
        load_sum(more, row, at);
        load(factors, weight + at);
        store_normed(out + at, more, factors, scale);
    }
}

template <class X>
DEVICE void add_norm_any(X* out, Addition<X> row, const float* weight, int width, float epsilon) {
    float squares = 0;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float value = row.hidden[at] + (row.delta != nullptr ? to_float(row.delta[at]) : 0.f);
        if (row.kept) row.hidden[at] = value;
        squares = fmaf(value, value, squares);
    }
    float scale = rsqrtf(block_sum(squares) / width + epsilon);
    if (row.kept) row.delta = nullptr;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float value = row.hidden[at] + (row.delta != nullptr ? to_float(row.delta[at]) : 0.f);
        out[at] = from_float<X>(value * scale * weight[at]);
    }
}

// out[i] = rms_norm(hidden[r] + delta[r]) · weight, where r is rows[i], or i without `rows`; the grid is the rows of
// `out`. Without `delta` nothing is added. Only without `rows` does the sum replace hidden[r].
template <class X>
DEVICE void add_norm(
    X* out, float* hidden, const X* delta, const float* weight, const int* rows, int width, float epsilon) {
    size_t from = size_t(rows != nullptr ? rows[blockIdx.x] : int(blockIdx.x)) * width;
    Addition<X> row = {hidden + from, delta != nullptr ? delta + from : nullptr, rows == nullptr && delta != nullptr};
    out += size_t(blockIdx.x) * width;
    if (width % NUMBERS == 0) {
        add_norm_fast(out, row, weight, width, epsilon);
    } else {
        add_norm_any(out, row, weight, width, epsilon);
    }
}

DEVICE float gated(float gate, float up) { return gate / (1.f + expf(-gate)) * up; }

// out[row][c] = silu(gate_up[row][c]) · gate_up[row][width + c], `count` numbers in all, eight of them per thread.
template <class X>
DEVICE void gate(X* out, const X* gate_up, int width, int count) {
    long long first = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * NUMBERS;
    if (first >= count) return;
    if (width % NUMBERS != 0) {
        for (int at = int(first); at < min(first + NUMBERS, (long long)count); at++) {
            const X* in = gate_up + size_t(at / width) * 2 * width + at % width;
            out[at] = from_float<X>(gated(to_float(in[0]), to_float(in[width])));
        }
        return;
    }
    const X* in = gate_up + size_t(int(first) / width) * 2 * width + int(first) % width;
    float gates[NUMBERS], ups[NUMBERS];
    load(gates, in);
    load(ups, in + width);
#pragma unroll
    for (int i = 0; i < NUMBERS; i++) gates[i] = gated(gates[i], ups[i]);
    store(out + first, gates);
}

#define ROW_KERNELS(name, X)                                                                                         \
    KERNEL(embed_##name)(float* hidden, const X* table, const int* tokens, const int* sampled, int width) {          \
        begin();                                                                                                     \
        embed(hidden, table, tokens, sampled, width);                                                                \
    }                                                                                                                \
    REGISTER(embed_##name)                                                                                           \
    KERNEL(__launch_bounds__(512, 2) add_norm_##name)(                                                                 \
        X* out, float* hidden, const X* delta, const float* weight, const int* rows, int width, float epsilon) {     \
        begin();                                                                                                     \
        add_norm(out, hidden, delta, weight, rows, width, epsilon);                                                  \
    }                                                                                                                \
    REGISTER(add_norm_##name)                                                                                        \
    KERNEL(gate_##name)(X* out, const X* gate_up, int width, int count) {                                            \
        begin();                                                                                                     \
        gate(out, gate_up, width, count);                                                                            \
    }                                                                                                                \
    REGISTER(gate_##name)

ROW_KERNELS(bf16, bf16)
ROW_KERNELS(f16, f16)
ROW_KERNELS(f32, float)
