// Logits to tokens, as `engine/src/sampling` does it on the CPU: penalties, temperature, top-k, top-p, min-p, a draw
// from what is left, and logprobs under the model. One block samples for one sequence.
//
// Nothing of a draw depends on other sequences, and all sums are of integers: the same row and the same share of its
// weights give the same token. It is the CPU's, too, unless the share lies where two tokens meet to the last bits.
#include "sample_border.cuh"
#include "sample_penalties.cuh"

// What is wanted of each sequence.
constexpr int SEQUENCE_INTS = 8;
struct Wanted {
    // Its rows of logits: after its last token, and after each that was guessed to follow.
    int first_row, rows;
    // 0: all.
    int top_k;
    // How many of the most likely to give logprobs of, besides the token's; -1: none at all.
    int logprobs;
    // Its row of `counts`; -1: no penalties.
    int counts_row;
};
constexpr int SEQUENCE_FLOATS = 8;
struct Chances {
    // 0: the most likely token.
    float temperature;
    float top_p, min_p;
    Penalties penalties;
};

constexpr float LOG2_E = 1.44269504f, LARGEST = 3.402823466e38f;

DEVICE bool is_finite(float x) { return fabsf(x) < INFINITE; }

DEVICE Measure weights_of(const Scale& scale) { return {scale, true, 0.f, WEIGHTLESS, 0.f, 0, NO_BORDER}; }
DEVICE Measure count_of(const Scale& scale) { return {scale, false, 0.f, INFINITE, 0.f, 0, NO_BORDER}; }

// Leaves out what weighs less than `least`, as far as distances tell; they are rounded.
DEVICE void limit_distance(Measure& measure, float least) {
    measure.farthest = fminf(measure.farthest, 1e-3f - log2f(least));
}

// The border of the fewest tokens whose weights reach the share `top_p` of all that `weights` counts.
DEVICE Border nucleus(const Row& row, Measure weights, float top_p) {
    Sum total = total_of(row, weights);
    double share = double(top_p) * double(total);
    Sum needed = Sum(share);
    needed += double(needed) < share;
    // Even all tokens that weigh less than this are not what the nucleus lacks.
    limit_distance(weights, float(double(total - needed) * UNIT) / row.vocabulary);
    return border_of(row, weights, needed);
}

// The token at `share`, in [0, 1), of the weights that the filters leave; `best` is finite.
DEVICE int draw(const Row& row, float best, const Wanted& wanted, const Chances& chances, double share) {
    // The least temperatures have no inverse; with the largest number, all but the best weigh nothing, too.
    Scale scale = {best, fminf(LOG2_E / chances.temperature, LARGEST)};
    Measure weights = weights_of(scale);
    if (wanted.top_k > 0 && wanted.top_k < row.vocabulary) {
        Measure count = count_of(scale);
        // What weighs nothing need not be told apart.
        count.farthest = WEIGHTLESS;
        limit(weights, border_of(row, count, Sum(wanted.top_k) << FRACTION_BITS));
    }
    if (chances.top_p < 1.f) limit(weights, nucleus(row, weights, chances.top_p));
    weights.least = chances.min_p;
    limit_distance(weights, chances.min_p);
    Sum total = total_of(row, weights);
    Sum target = Sum(share * double(total));
    return find(row, weights, target < total ? target : total - 1);
}

// The logarithm of the sum of e^logit over the row.
DEVICE float log_total_of(const Row& row, float best) {
    Sum total = total_of(row, weights_of({best, LOG2_E}));
    return best + logf(float(double(total) * UNIT));
}

// The `count` most likely tokens, the most likely first; -1 where there are not as many.
DEVICE void write_top(int* ids, float* logprobs, const Row& row, float best, float log_total, int count) {
    Measure any = count_of({best, LOG2_E});
    limit(any, border_of(row, any, Sum(count) << FRACTION_BITS));
    clear_histogram_and_few();
    for_each_group(row, [&](int id, const float(&logits)[TOKENS]) {
#pragma unroll
        for (int i = 0; i < TOKENS; i++) {
            if (measure_of(any, id + i, logits[i]) == 0.f) continue;
            add_to_few(rank_of(distance_of(any.scale, logits[i]), logits[i]), id + i, 1);
        }
    });
    __syncthreads();
    if (int(threadIdx.x) < few_count) {
        int id = few_ids[threadIdx.x];
        int place = int(few_before({few_ranks[threadIdx.x], id}));
        ids[place] = id;
        logprobs[place] = row.logits[id] - log_total;
    } else if (int(threadIdx.x) < count) {
        ids[threadIdx.x] = -1;
        logprobs[threadIdx.x] = 0.f;
    }
}

DEVICE double share_of(const unsigned* words) {
    Sum bits = Sum(words[1]) << 32 | words[0];
    double share;
    memcpy(&share, &bits, sizeof share);
    return share;
}

// Grid: the sequences; blocks of 1024; a vocabulary of at most 2^17. Row `r` of logits gives
//   sampled[r]: its token; -1 where no token has a finite logit that is the highest; -2 where a guess before it was
//     wrong, so that it is of no use,
//   logprobs[r]: that token's, if the sequence wants logprobs,
//   top_ids[r][..], top_logprobs[r][..]: the most likely tokens', as many as the sequence wants; `most_top` a row.
// Rows of `logits`, and of `counts`, begin every `stride` elements. Per sequence, `ints` are first_row, rows, top_k,
// logprobs, counts_row and `floats` are temperature, top_p, min_p, repetition, presence, frequency (see above), each
// padded to 8. Per row, `shares` are the low and the high half of the bits of a double in [0, 1), read unless the
// temperature is 0, and `guesses` is the token that the next row takes for granted, -1 in a sequence's last.
// A row of `counts` says how often each token was seen (see IN_PROMPT); sampled ones are added. `penalized` has as many
// rows, for logits after penalties; it is null where no sequence has any, as is `counts`.
KERNEL(__launch_bounds__(SAMPLERS, 1) sample)(
    int* sampled, float* logprobs, int* top_ids, float* top_logprobs, const float* logits, const int* ints,
    const float* floats, const unsigned* shares, const int* guesses, unsigned* counts, float* penalized, int vocabulary,
    int stride, int most_top) {
    begin();
    ints += blockIdx.x * SEQUENCE_INTS, floats += blockIdx.x * SEQUENCE_FLOATS;
    Wanted wanted = {ints[0], ints[1], ints[2], ints[3], ints[4]};
    Chances chances = {floats[0], floats[1], floats[2], {floats[3], floats[4], floats[5]}};
    size_t counts_at = size_t(max(wanted.counts_row, 0)) * stride;
    bool useful = true;
#pragma unroll 1
    for (int r = wanted.first_row; r < wanted.first_row + wanted.rows; r++) {
        if (!useful) {
            if (threadIdx.x == 0) sampled[r] = -2;
            continue;
        }
        Row row = {logits + size_t(r) * stride, vocabulary, stride % TOKENS == 0};
        Best best = best_of(row);
        float log_total = 0.f;
        if (wanted.logprobs >= 0 && is_finite(best.logit)) {
            log_total = log_total_of(row, best.logit);
            if (wanted.logprobs > 0) {
                size_t top = size_t(r) * most_top;
                write_top(top_ids + top, top_logprobs + top, row, best.logit, log_total, wanted.logprobs);
            }
        }
        if (wanted.counts_row >= 0) {
            row = penalize(penalized + counts_at, counts + counts_at, row, chances.penalties);
            best = best_of(row);
        }
        int token = -1;
        if (is_finite(best.logit)) {
            bool greedy = chances.temperature == 0.f;
            token = greedy ? best.id : draw(row, best.logit, wanted, chances, share_of(shares + 2 * size_t(r)));
        }
        if (threadIdx.x == 0) {
            sampled[r] = token;
            if (token >= 0 && wanted.logprobs >= 0) logprobs[r] = logits[size_t(r) * stride + token] - log_total;
            if (token >= 0 && wanted.counts_row >= 0) counts[counts_at + token]++;
        }
        useful = token >= 0 && token == guesses[r];
        // The next row is drawn with this token counted.
        __syncthreads();
    }
}
REGISTER(sample)

// Notes in a row of `counts` which tokens the prompt has; one thread for each of the prompt's.
KERNEL(mark_prompt)(unsigned* counts_row, const int* tokens, int count, int vocabulary) {
    begin();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || tokens[i] < 0 || tokens[i] >= vocabulary) return;
    // Nobody else writes there but the same.
    counts_row[tokens[i]] |= IN_PROMPT;
}
REGISTER(mark_prompt)
