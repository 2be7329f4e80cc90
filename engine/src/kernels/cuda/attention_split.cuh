// A split: one query row's attention to the positions of one stretch under one key/value head, for all query heads
// that share it. Splits begin at multiples of their length whatever the row, so that the order of a row's sums depends
// on its own position alone.
//
// A split's result per query head is a record of `head_dim + 2` numbers: the sum of the values weighted by
// 2^(score - highest), the highest score, the sum of the weights. Scores are in units of 1/log2(e): `scale` has the
// factor in it.
#pragma once

#include "pages.cuh"

constexpr int SPLIT = 128;
constexpr int SPLIT_WARPS = 4;
constexpr int SPLIT_THREADS = SPLIT_WARPS * WARP;
constexpr float LOG2_E = 1.44269504f;

template <class X, class S>
struct Split {
    // The queries of the group's heads, one after the other.
    const X* queries;
    int group, head_dim;
    Cache<S> cache;
    Pages pages;
    Seen seen;
    // The split's first position.
    int first;
    float scale;
    // The group's first record, and the numbers from one head's to the next's.
    float* records;
    size_t record_stride;
};
