/*
 * Measures llama.cpp: LIBRARIES MODEL THREADS PROMPTS BATCHES STEPS.
 *
 * A prompt is computed from an empty cache. A decode row has a context of the prompt's length in every sequence's
 * own part of the cache, and its step is always the same one: the token it adds is taken away again. Each row is
 * run once before it is measured, and its best and median are printed.
 */
#include "ggml-backend.h"
#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 64, PROMPTS_MEASURED = 3 };

struct list {
    int count, values[MOST];
};

struct peer {
    struct llama_context *context;
    llama_memory_t memory;
    struct llama_batch batch;
    int vocabulary;
};

static void fail(const char *why) {
    fprintf(stderr, "llama.cpp driver: %s\n", why);
    exit(1);
}

static void log_errors(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int positive(const char *text, char **end) {
    long value = strtol(text, end, 10);
    if (*end == text || value < 1 || value > 1 << 20) fail("a list or a count is not made of positive numbers");
    return (int)value;
}

static struct list parse_list(const char *text) {
    struct list list = {0};
    for (;;) {
        char *end;
        if (list.count == MOST) fail("a list is too long");
        list.values[list.count++] = positive(text, &end);
        if (*end == '\0') return list;
        if (*end != ',') fail("a list is not separated by commas");
        text = end + 1;
    }
}

static int largest(const struct list *list) {
    int most = 0;
    for (int i = 0; i < list->count; i++)
        if (list->values[i] > most) most = list->values[i];
    return most;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int by_size(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *sorted, int count) {
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

static void add(struct peer *peer, int position, int sequence, int wants_logits) {
    struct llama_batch *batch = &peer->batch;
    int row = batch->n_tokens++;
    batch->token[row] = rand() % peer->vocabulary;
    batch->pos[row] = position;
    batch->n_seq_id[row] = 1;
    batch->seq_id[row][0] = sequence;
    batch->logits[row] = (int8_t)wants_logits;
}

/* Computes what was added; returns the seconds it took. */
static double compute(struct peer *peer) {
    double start = now();
    if (llama_decode(peer->context, peer->batch) != 0) fail("a step failed");
    llama_synchronize(peer->context);
    double seconds = now() - start;
    peer->batch.n_tokens = 0;
    return seconds;
}

/* A prompt from an empty cache. */
static double prefill(struct peer *peer, int prompt) {
    llama_memory_clear(peer->memory, true);
    for (int i = 0; i < prompt; i++) add(peer, i, 0, i == prompt - 1);
    return compute(peer);
}

/* One token for each sequence after its context, which is as before afterwards. */
static double decode(struct peer *peer, int batch, int prompt) {
    for (int sequence = 0; sequence < batch; sequence++) add(peer, prompt, sequence, 1);
    double seconds = compute(peer);
    for (int sequence = 0; sequence < batch; sequence++)
        if (!llama_memory_seq_rm(peer->memory, sequence, prompt, -1)) fail("a token could not be taken away");
    return seconds;
}

static void measure_prefill(struct peer *peer, int prompt, int passes) {
    double seconds[PROMPTS_MEASURED];
    prefill(peer, prompt);
    for (int i = 0; i < passes; i++) seconds[i] = prefill(peer, prompt);
    qsort(seconds, (size_t)passes, sizeof *seconds, by_size);
    printf("pp%d: %.2f t/s best, %.2f t/s median of %d\n", prompt, prompt / seconds[0], prompt / median(seconds, passes), passes);
    fflush(stdout);
}

static void measure_decode(struct peer *peer, int batch, int prompt, double *seconds, int steps) {
    prefill(peer, prompt);
    /* Sequences don't share cells, so this copies. */
    for (int sequence = 1; sequence < batch; sequence++) llama_memory_seq_cp(peer->memory, 0, sequence, -1, -1);
    decode(peer, batch, prompt);
    for (int i = 0; i < steps; i++) seconds[i] = decode(peer, batch, prompt);
    qsort(seconds, (size_t)steps, sizeof *seconds, by_size);
    double middle = median(seconds, steps);
    printf("tg B=%d at %d: step %.2f ms best (%.2f tok/s), %.2f ms median (%.2f tok/s) of %d\n", batch, prompt,
           seconds[0] * 1e3, batch / seconds[0], middle * 1e3, batch / middle, steps);
    fflush(stdout);
}

static struct peer open_peer(const char *path, int threads, int prompt, int batch) {
    struct llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    struct llama_model *model = llama_model_load_from_file(path, model_params);
    if (model == NULL) fail("the model could not be loaded");

    struct llama_context_params params = llama_context_default_params();
    int context = (prompt + 1 + 255) / 256 * 256;
    params.n_ctx = (uint32_t)(batch * context);
    params.n_seq_max = (uint32_t)batch;
    params.kv_unified = false;
    params.n_batch = (uint32_t)(prompt > batch ? prompt : batch);
    params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = threads;
    struct peer peer = {.context = llama_init_from_model(model, params)};
    if (peer.context == NULL) fail("the context could not be made");
    peer.memory = llama_get_memory(peer.context);
    peer.batch = llama_batch_init((int32_t)params.n_batch, 0, 1);
    peer.vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    return peer;
}

int main(int count, char **arguments) {
    if (count != 7) fail("usage: driver LIBRARIES MODEL THREADS PROMPTS BATCHES STEPS");
    char *end;
    int threads = positive(arguments[3], &end), steps = positive(arguments[6], &end);
    struct list prompts = parse_list(arguments[4]), batches = parse_list(arguments[5]);
    double *seconds = malloc((size_t)steps * sizeof *seconds);
    if (seconds == NULL) fail("out of memory");

    llama_log_set(log_errors, NULL);
    ggml_backend_load_all_from_path(arguments[1]);
    llama_backend_init();
    struct peer peer = open_peer(arguments[2], threads, largest(&prompts), largest(&batches));
    for (int p = 0; p < prompts.count; p++)
        measure_prefill(&peer, prompts.values[p], steps < PROMPTS_MEASURED ? steps : PROMPTS_MEASURED);
    for (int b = 0; b < batches.count; b++)
        for (int p = 0; p < prompts.count; p++)
            measure_decode(&peer, batches.values[b], prompts.values[p], seconds, steps);
    return 0;
}
