// Rotary embedding (RoFormer, arXiv 2104.09864) of a step's queries and keys, and the write of keys and values into
// the cache (`pages.cuh`).
//
// A row of `qkv` is query heads, key heads, value heads. A warp takes a head at a time: queries are turned in place,
// keys turned on their way to the cache, values written as they are. `cos_sin` is `[position][head_dim / 2][2]`. A
// head has up to 256 numbers, a multiple of 8.
#include "pages.cuh"

// Times that a lane takes two pairs of a head.
constexpr int STEPS = 2;

struct Sizes {
    int heads, kv_heads, head_dim, block_size;
    bool interleaved;
};

template <class X>
struct alignas(2 * sizeof(X)) Two {
    X first, second;
};
template <class X>
DEVICE float2 load_two(const X* in) {
    Two<X> two = *reinterpret_cast<const Two<X>*>(in);
    return make_float2(to_float(two.first), to_float(two.second));
}
template <class X>
DEVICE void store_two(X* out, float first, float second) {
    *reinterpret_cast<Two<X>*>(out) = {from_float<X>(first), from_float<X>(second)};
}
template <class X>
DEVICE float rounded(float x) { return to_float(from_float<X>(x)); }

// What a lane has of a head: in each step the two numbers from `at[0]` on and the two from `at[1]` on.
struct Part {
    float numbers[STEPS][4];
};
// Where they are; `pair` is the first of the step's two pairs. Without interleaving, pairs are (i, i + head_dim / 2).
DEVICE void places(int (&at)[2], int pair, const Sizes& sizes) {
    at[0] = sizes.interleaved ? 2 * pair : pair;
    at[1] = sizes.interleaved ? 2 * pair + 2 : pair + sizes.head_dim / 2;
}
DEVICE int pair_of(int step) { return 2 * (step * WARP + int(threadIdx.x) % WARP); }

DEVICE void turn(float& a, float& b, float cos, float sin) {
    float turned = a * cos - b * sin;
    b = b * cos + a * sin;
    a = turned;
}

// Loads a head, turned unless `angles` is null and rounded to X; zeros beyond its end.
template <class X>
DEVICE void load_part(Part& part, const X* head, const float* angles, const Sizes& sizes) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        float(&x)[4] = part.numbers[step];
        x[0] = x[1] = x[2] = x[3] = 0.f;
        int pair = pair_of(step), at[2];
        if (pair >= sizes.head_dim / 2) continue;
        places(at, pair, sizes);
        float2 low = load_two(head + at[0]), high = load_two(head + at[1]);
        x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
        if (angles == nullptr) continue;
        float4 angle = *reinterpret_cast<const float4*>(angles + 2 * pair);
        if (sizes.interleaved) {
            turn(x[0], x[1], angle.x, angle.y);
            turn(x[2], x[3], angle.z, angle.w);
        } else {
            turn(x[0], x[2], angle.x, angle.y);
            turn(x[1], x[3], angle.z, angle.w);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = rounded<X>(x[i]);
    }
}

template <class X>
DEVICE void store_part(X* head, const Part& part, const Sizes& sizes) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const float(&x)[4] = part.numbers[step];
        int pair = pair_of(step), at[2];
        if (pair >= sizes.head_dim / 2) continue;
        places(at, pair, sizes);
        store_two(head + at[0], x[0], x[1]);
        store_two(head + at[1], x[2], x[3]);
    }
}

// The scale of the warp's head, as `cpu/signed_bytes.rs` has it: the bits of absolute values order like the values,
// with infinity and then NaN above all.
DEVICE float scale_of(const Part& part) {
    unsigned highest = 0;
#pragma unroll
    for (int i = 0; i < 4 * STEPS; i++) {
        highest = max(highest, __float_as_uint(part.numbers[i / 4][i % 4]) & 0x7fffffffu);
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        highest = max(highest, __shfl_xor_sync(ALL_LANES, highest, offset));
    }
    return __uint_as_float(highest) / 127.f;
}
// Two numbers as signed bytes; what is no finite number becomes 0.
DEVICE uint16_t to_bytes(float first, float second, float inverse) {
    auto byte = [inverse](float x) {
        float steps = rintf(x * inverse);
        return steps == steps ? int(fminf(fmaxf(steps, -127.f), 127.f)) : 0;
    };
    return uint16_t((byte(first) & 0xff) | (byte(second) & 0xff) << 8);
}
DEVICE void store_bytes(int8_t* head, float* head_scale, const Part& part, const Sizes& sizes) {
    float scale = scale_of(part);
    // A scale too small to have an inverse stands for nothing but zeros.
    float inverse = scale > 1.17549435e-38f ? 1.f / scale : 0.f;
    if (threadIdx.x % WARP == 0) *head_scale = scale;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const float(&x)[4] = part.numbers[step];
        int pair = pair_of(step), at[2];
        if (pair >= sizes.head_dim / 2) continue;
        places(at, pair, sizes);
        *reinterpret_cast<uint16_t*>(head + at[0]) = to_bytes(x[0], x[1], inverse);
        *reinterpret_cast<uint16_t*>(head + at[1]) = to_bytes(x[2], x[3], inverse);
    }
}

// The grid is (row, part of its heads): one warp per head is fastest, any number of warps will do.
template <class X, class S>
DEVICE void rope_write(X* qkv, S* keys, S* values, float* key_scales, float* value_scales, const int* positions,
                       const int* slots, const float* cos_sin, const Sizes& sizes) {
    int warps = blockDim.x / WARP, all = sizes.heads + 2 * sizes.kv_heads;
    unsigned slot = slots[blockIdx.x], block = slot / sizes.block_size, within = slot % sizes.block_size;
    const float* angles = cos_sin + size_t(positions[blockIdx.x]) * sizes.head_dim;
    X* row = qkv + size_t(blockIdx.x) * all * sizes.head_dim;
    for (int head = blockIdx.y * warps + threadIdx.x / WARP; head < all; head += gridDim.y * warps) {
        bool is_value = head >= sizes.heads + sizes.kv_heads;
        X* numbers = row + size_t(head) * sizes.head_dim;
        Part part;
        load_part(part, numbers, is_value ? nullptr : angles, sizes);
        if (head < sizes.heads) {
            store_part(numbers, part, sizes);
            continue;
        }
        int kv_head = head - sizes.heads - (is_value ? sizes.kv_heads : 0);
        size_t place = (size_t(block) * sizes.kv_heads + kv_head) * sizes.block_size + within;
        S* to = (is_value ? values : keys) + place * sizes.head_dim;
        if constexpr (SCALED<S>) store_bytes(to, (is_value ? value_scales : key_scales) + place, part, sizes);
        else store_part(to, part, sizes);
    }
}

#define ROPE_WRITE(suffix, X, S)                                                                                    \
    KERNEL(__launch_bounds__(256) rope_write_##suffix)                                                              \
    (X* qkv, void* keys, void* values, float* key_scales, float* value_scales, const int* positions,                \
     const int* slots, const float* cos_sin, int heads, int kv_heads, int head_dim, int block_size, int interleaved) { \
        begin();                                                                                                       \
        Sizes sizes = {heads, kv_heads, head_dim, block_size, interleaved != 0};                                    \
        rope_write(qkv, static_cast<S*>(keys), static_cast<S*>(values), key_scales, value_scales, positions, slots, \
                   cos_sin, sizes);                                                                                 \
    }                                                                                                               \
    REGISTER(rope_write_##suffix)

ROPE_WRITE(bf16, bf16, bf16)
ROPE_WRITE(f16, f16, f16)
ROPE_WRITE(f32, float, float)
ROPE_WRITE(bf16_q8, bf16, int8_t)
ROPE_WRITE(f16_q8, f16, int8_t)
ROPE_WRITE(f32_q8, float, int8_t)
