/* What a decode step of a Llama-like model does between its matrix products, on a CPU.
 *
 * Letters as in the shapes elsewhere: R rows, D model width, G key-value heads, C capacity of a
 * row of the cache in positions, I width of the MLP, V vocabulary. Given when this is compiled: BF16 where
 * activations, weights and cache are bfloat16 (float32 otherwise), HEAD, the width of a head, and
 * SHARING, the query heads that share a key-value head. Widths are multiples of LANES. Sums are
 * float32; what transformers rounds to the model's precision on the way is rounded here too.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

#ifdef BF16
#define PAIR 2
typedef uint16_t state;
static inline float get(const state *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline void put(state *p, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    *p = x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline vf load(const state *p) {
    vh raw;
    memcpy(&raw, p, sizeof raw);
    vu wide = __builtin_convertvector(raw, vu) << 16;
    return (vf)wide;
}
static inline void store(state *p, vf x) {
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    vi isnan = x != x;
    rounded = (vu)((~isnan & (vi)rounded) | (isnan & 0x7fc0));
    vh half = __builtin_convertvector(rounded, vh);
    memcpy(p, &half, sizeof half);
}
#else
#define PAIR 1
typedef float state;
static inline float get(const state *p) { return *p; }
static inline void put(state *p, float x) { *p = x; }
static inline vf load(const state *p) { vf x; memcpy(&x, p, sizeof x); return x; }
static inline void store(state *p, vf x) { memcpy(p, &x, sizeof x); }
#endif

/* Whether the loops below share the cores. */
int is_parallel(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

static inline vf loadf(const float *p) { vf x; memcpy(&x, p, sizeof x); return x; }
static inline float rounded(float x) { state s; put(&s, x); return get(&s); }
static inline vf vrounded(vf x) { state s[LANES]; store(s, x); return load(s); }
static inline float total(vf x) {
    typedef float half __attribute__((vector_size(2 * LANES)));
    typedef float quarter __attribute__((vector_size(LANES)));
    half h[2];
    quarter q[2];
    memcpy(h, &x, sizeof x);
    h[0] += h[1];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}
static inline vf vmax(vf a, vf b) {
    vi more = a > b;
    return (vf)((more & (vi)a) | (~more & (vi)b));
}
static inline float largest(vf x) {
    float peak = x[0];
    for (int i = 1; i < LANES; i++) peak = fmaxf(peak, x[i]);
    return peak;
}
static inline vf splat(float x) { return x - (vf){}; }

/* exp of x <= 0, within 2 ulp; below -87 it is 0. */
static inline vf vexp(vf x) {
    const vf magic = splat(12582912.f);
    vi tiny = x < -87.f;
    vf shifted = x * 1.44269504088896341f + magic;
    vf n = shifted - magic;
    vf f = x - n * 0.693359375f;
    f = f - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.f;
    vi power = ((vi)shifted - 0x4b400000 + 127) << 23;
    return (vf)((vi)(p * (vf)power) & ~tiny);
}

/* residual[R, D] += delta (where given); normed = weight * residual / rms(residual). */
void add_norm(state *residual, const state *delta, const state *weight, state *normed, int64_t R,
              int64_t D, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        state *x = residual + r * D, *y = normed + r * D;
        const state *d = delta ? delta + r * D : NULL;
        vf squares = {};
        for (int64_t i = 0; i < D; i += LANES) {
            vf value = load(x + i);
            if (d) {
                value = vrounded(value + load(d + i));
                store(x + i, value);
            }
            squares += value * value;
        }
        float scale = 1.f / sqrtf(total(squares) / D + eps);
        for (int64_t i = 0; i < D; i += LANES)
            store(y + i, load(weight + i) * vrounded(load(x + i) * scale));
    }
}

/* gate_up[R, 2I] -> out[R, I] = silu(gate) * up. */
void silu_mul(const state *gate_up, state *out, int64_t R, int64_t I) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const state *gate = gate_up + r * 2 * I, *up = gate + I;
        for (int64_t i = 0; i < I; i += LANES) {
            vf g = load(gate + i);
            vi negative = g < 0;
            vf magnitude = (vf)((vi)g & 0x7fffffff);
            vf e = vexp(-magnitude); /* sigmoid from exp of what is never positive */
            vf top = (vf)((negative & (vi)e) | (~negative & (vi)splat(1.f)));
            store(out + r * I + i, vrounded(g * top / (1.f + e)) * load(up + i));
        }
    }
}

/* x[HEAD] = weight * x / rms(x). */
static inline void head_norm(float *x, const state *weight, float eps) {
    float squares = 0;
    for (int k = 0; k < HEAD; k++) squares += x[k] * x[k];
    float scale = 1.f / sqrtf(squares / HEAD + eps);
    for (int k = 0; k < HEAD; k++) x[k] = rounded(get(weight + k) * rounded(x[k] * scale));
}

/* Rotary embedding of x[HEAD]; the second half of each pair lies half a head further on. */
static inline void rotate(float *x, const state *cosine, const state *sine) {
    const int half = HEAD / 2;
    for (int k = 0; k < half; k++) {
        float a = x[k], b = x[k + half];
        x[k] = rounded(a * get(cosine + k) - b * get(sine + k));
        x[k + half] = rounded(b * get(cosine + k + half) + a * get(sine + k + half));
    }
}

/* Products of pairs. A cache in bfloat16 holds two numbers that are summed over side by side: one
 * load brings both, and a processor with AVX-512's dot product multiplies them as they are. */
#if defined(BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
typedef state factor; /* what a number of the cache is multiplied with */
typedef __m512bh pairs;
static inline pairs load_pairs(const state *p, int64_t step) {
    (void)step;
    pairs x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline vf add_products(vf sum, pairs x, const factor *f) {
    int32_t both;
    memcpy(&both, f, sizeof both);
    return (vf)_mm512_dpbf16_ps((__m512)sum, x, (__m512bh)_mm512_set1_epi32(both));
}
static inline void put_factors(factor *f, vf x) { store(f, x); }
static inline factor as_factor(float x) { state s; put(&s, x); return s; }
#else
typedef float factor;
typedef struct { vf first, second; } pairs;
static inline pairs load_pairs(const state *p, int64_t step) {
#ifdef BF16
    (void)step;
    vu both;
    memcpy(&both, p, sizeof both);
    return (pairs){(vf)(both << 16), (vf)(both & 0xffff0000)};
#else
    return (pairs){load(p), load(p + step)};
#endif
}
static inline vf add_products(vf sum, pairs x, const factor *f) {
    return sum + x.first * f[0] + x.second * f[1];
}
static inline void put_factors(factor *f, vf x) { memcpy(f, &x, sizeof x); }
static inline factor as_factor(float x) { return x; }
#endif

/* p[n], floats, become the factors exp(p - max(p)), and 0 from there to a full vector; returns
 * 1 / their sum. */
static inline float exponentials(float *p, int64_t n) {
    for (int64_t t = n; t % LANES; t++) p[t] = -INFINITY;
    vf peaks = splat(-INFINITY), sums = {};
    for (int64_t t = 0; t < n; t += LANES) peaks = vmax(loadf(p + t), peaks);
    float peak = largest(peaks);
    for (int64_t t = 0; t < n; t += LANES) {
        vf weights = vexp(loadf(p + t) - peak);
        put_factors((factor *)p + t, weights);
        sums += weights;
    }
    return 1.f / total(sums);
}

/* The cache is made of pages. A page holds LANES positions of a key-value head: keys
 * [HEAD / PAIR, LANES, PAIR], so that the scores of neighbouring positions are one vector, then
 * values [LANES / PAIR, HEAD, PAIR]. */
#define KEYS (LANES * HEAD)
#define PAGE (2 * KEYS)
#define WIDE (HEAD % (2 * LANES) ? 1 : 2) /* vectors at a time: two hide the latency of a sum */
#define TOGETHER (SHARING < 8 ? 8 / SHARING : 1) /* rows whose queries one load of a key serves */
#define MOST (TOGETHER * SHARING)
#define UNROLLED static inline __attribute__((always_inline)) /* for each constant number n */

/* scores[n, reach] = scaling times the products of queries q[n, HEAD] and the keys of the pages. */
UNROLLED void score(int n, factor (*q)[HEAD], const state *page, int64_t pages, float scaling,
                    float *scores, int64_t reach) {
    for (int64_t b = 0; b < pages; b++, page += PAGE) {
        vf sums[MOST][2] = {}; /* two sums each: one alone would wait for itself */
        for (int k = 0; k < HEAD; k += 4)
            for (int j = 0; j < 2; j++) {
                pairs keys = load_pairs(page + (k + 2 * j) * LANES, LANES);
                for (int h = 0; h < n; h++)
                    sums[h][j] = add_products(sums[h][j], keys, q[h] + k + 2 * j);
            }
        for (int h = 0; h < n; h++) {
            vf sum = (sums[h][0] + sums[h][1]) * scaling;
            memcpy(scores + h * reach + b * LANES, &sum, sizeof sum);
        }
    }
}

/* mixed[n, HEAD] += weights[n, stride] @ the values of `seen` positions of the pages; where `seen`
 * is odd the next weight is 0. */
UNROLLED void mix(int n, const factor *weights, int64_t stride, const state *page, int64_t seen,
                  float (*mixed)[HEAD]) {
    for (int k = 0; k < HEAD; k += WIDE * LANES) {
        vf sums[MOST][WIDE];
        for (int h = 0; h < n; h++) memcpy(sums[h], mixed[h] + k, sizeof sums[h]);
        for (int64_t t = 0; t < seen; t += 2) {
            const state *value = page + t / LANES * PAGE + KEYS + t % LANES * HEAD + k * PAIR;
            pairs values[WIDE];
            for (int j = 0; j < WIDE; j++) values[j] = load_pairs(value + j * LANES * PAIR, HEAD);
            for (int h = 0; h < n; h++)
                for (int j = 0; j < WIDE; j++)
                    sums[h][j] = add_products(sums[h][j], values[j], weights + h * stride + t);
        }
        for (int h = 0; h < n; h++) memcpy(mixed[h] + k, sums[h], sizeof sums[h]);
    }
}

/* What the rows of attend share; see there. */
struct attention {
    const state *qkv;
    const int64_t *positions;
    const state *cosine, *sine, *q_norm, *k_norm;
    state *own, *out;
    int64_t G, C, reach;
    float scaling, eps;
};

/* Reads a row's queries q[SHARING, HEAD], and writes its key and value to its page, at `at` of the
 * positions there: normalised where weights are given, and rotated. */
static inline void enter(const struct attention *a, int64_t r, int64_t g, state *page, int64_t at,
                         factor (*q)[HEAD]) {
    const int64_t H = a->G * SHARING;
    const state *row = a->qkv + r * (H + 2 * a->G) * HEAD, *value = row + (H + a->G + g) * HEAD;
    const state *c = a->cosine + a->positions[r] * HEAD, *s = a->sine + a->positions[r] * HEAD;
    state *keys = page + at * PAIR, *values = page + KEYS + at / PAIR * PAIR * HEAD;
    float x[HEAD];
    for (int k = 0; k < HEAD; k++) x[k] = get(row + (H + g) * HEAD + k);
    if (a->k_norm) head_norm(x, a->k_norm, a->eps);
    rotate(x, c, s);
    for (int k = 0; k < HEAD; k++) put(keys + k / PAIR * PAIR * LANES + k % PAIR, x[k]);
    for (int k = 0; k < HEAD; k++) values[k * PAIR + at % PAIR] = value[k];
    if (at % 2 == 0) /* what shares a product with it has the weight 0, but must not be NaN */
        for (int k = 0; k < HEAD; k++) values[PAIR == 2 ? k * 2 + 1 : HEAD + k] = 0;
    for (int h = 0; h < SHARING; h++) {
        for (int k = 0; k < HEAD; k++) x[k] = get(row + (g * SHARING + h) * HEAD + k);
        if (a->q_norm) head_norm(x, a->q_norm, a->eps);
        rotate(x, c, s);
        for (int k = 0; k < HEAD; k++) q[h][k] = as_factor(x[k]);
    }
}

/* Attention of `count` rows of a family for the key-value head g, given its prompt's pages. */
UNROLLED void attend_rows(int count, const struct attention *a, const int64_t *rows, int64_t g,
                          const state *prompt, int64_t length, float *scores) {
    const int64_t pages = (length + LANES - 1) / LANES, reach = a->reach;
    const int64_t stride = reach * (int64_t)(sizeof(float) / sizeof(factor));
    factor q[MOST][HEAD];
    float mixed[MOST][HEAD] = {}, scales[MOST];
    state *own[TOGETHER];
    int64_t seen[TOGETHER];
    for (int i = 0; i < count; i++) {
        int64_t at = a->positions[rows[i]] - length;
        own[i] = a->own + (rows[i] * a->G + g) * a->C * 2 * HEAD;
        seen[i] = at + 1;
        enter(a, rows[i], g, own[i] + at / LANES * PAGE, at % LANES, q + i * SHARING);
    }
    score(count * SHARING, q, prompt, pages, a->scaling, scores, reach);
    for (int i = 0; i < count; i++)
        for (int h = i * SHARING; h < (i + 1) * SHARING; h++)
            for (int64_t t = length; t < pages * LANES; t++) scores[h * reach + t] = -INFINITY;
    for (int i = 0; i < count; i++) {
        float *mine = scores + i * SHARING * reach;
        score(SHARING, q + i * SHARING, own[i], (seen[i] + LANES - 1) / LANES, a->scaling,
              mine + pages * LANES, reach);
        for (int h = 0; h < SHARING; h++)
            scales[i * SHARING + h] = exponentials(mine + h * reach, pages * LANES + seen[i]);
    }
    const factor *weights = (const factor *)scores;
    mix(count * SHARING, weights, stride, prompt, length, mixed);
    for (int i = 0; i < count; i++) {
        state *out = a->out + (rows[i] * a->G + g) * SHARING * HEAD;
        mix(SHARING, weights + i * SHARING * stride + pages * LANES, stride, own[i], seen[i],
            mixed + i * SHARING);
        for (int h = 0; h < SHARING; h++)
            for (int k = 0; k < HEAD; k += LANES)
                store(out + h * HEAD + k,
                      loadf(mixed[i * SHARING + h] + k) * scales[i * SHARING + h]);
    }
}

/* For each row of a family: normalise (where weights are given) and rotate queries and key, write key and value
 * at the row's position, attend over positions 0..position. Rows of one prompt are a family: its
 * keys and values exist once, and one load serves several rows.
 * qkv[R, (H+2G)K]; positions[R]; rows[R], family by family; families[N, 4]: the first of its rows,
 * their number, the address of the prompt's pages [layers, G, length / LANES rounded up], the
 * prompt's length; cosine, sine [positions, K]; own[R, G, C / LANES], the pages of what follows the
 * prompt; out[R, HK]; scratch[R, H, reach], reach a multiple of LANES with room for the pages of
 * both. K is HEAD; SHARING = H / G heads share a key. */
void attend(const state *qkv, const int64_t *positions, const int64_t *rows,
            const int64_t *families, const state *cosine, const state *sine, const state *q_norm,
            const state *k_norm, state *own, state *out, float *scratch, int64_t layer, int64_t N,
            int64_t G, int64_t C, int64_t reach, float scaling, float eps) {
    const struct attention a = {qkv, positions, cosine, sine,  q_norm,  k_norm, own,
                                out, G,         C,      reach, scaling, eps};
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < N * G; unit++) {
        const int64_t *family = families + unit / G * 4, *mine = rows + family[0];
        int64_t g = unit % G, count = family[1], length = family[3], i = 0;
        int64_t size = (length + LANES - 1) / LANES * PAGE;
        const state *prompt = (const state *)(intptr_t)family[2] + (layer * G + g) * size;
        float *scores = scratch + (family[0] * G + g * count) * SHARING * reach;
        for (; i + TOGETHER <= count; i += TOGETHER)
            attend_rows(TOGETHER, &a, mine + i, g, prompt, length, scores);
        for (; i < count; i++) attend_rows(1, &a, mine + i, g, prompt, length, scores);
    }
}

#define BLOCK 256

static inline vf shifted(const state *logits, int64_t i, float scale, float peak) {
    return load(logits + i) * scale - peak;
}

/* One token a row from logits[R, V] and a uniform number a row, by the inverse of the cumulative
 * distribution at 1 / scale; with its log-probability over the whole vocabulary. */
void draw(const state *logits, const double *uniforms, int64_t *tokens, float *logprobs,
          int64_t R, int64_t V, float scale) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const state *row = logits + r * V;
        int64_t whole = V / LANES * LANES, last = (V - 1) / BLOCK;
        vf peaks = splat(-INFINITY);
        for (int64_t i = 0; i < whole; i += LANES) peaks = vmax(load(row + i) * scale, peaks);
        float peak = largest(peaks);
        for (int64_t i = whole; i < V; i++) peak = fmaxf(peak, get(row + i) * scale);
        double sums[last + 1], all = 0; /* of blocks: short sums are exact enough in float32 */
        for (int64_t b = 0; b <= last; b++) {
            int64_t end = (b + 1) * BLOCK < V ? (b + 1) * BLOCK : V, i = b * BLOCK;
            vf part = {};
            for (; i + LANES <= end; i += LANES) part += vexp(shifted(row, i, scale, peak));
            float sum = total(part);
            for (; i < end; i++) sum += expf(get(row + i) * scale - peak);
            sums[b] = sum;
            all += sum;
        }
        double target = uniforms[r] * all, before = 0;
        int64_t b = 0;
        while (b < last && before + sums[b] <= target) before += sums[b++];
        int64_t end = (b + 1) * BLOCK < V ? (b + 1) * BLOCK : V;
        int64_t token = b * BLOCK; /* stays where the logits are NaN: the caller sees it in logprobs */
        for (int64_t i = b * BLOCK; i < end; i++) {
            float x = get(row + i) * scale - peak, weight = x < -87.f ? 0 : expf(x);
            if (!(weight > 0)) continue;
            token = i; /* the last positive weight, where rounding runs past the block's sum */
            before += weight;
            if (before > target) break;
        }
        tokens[r] = token;
        logprobs[r] = get(row + token) * scale - peak - (float)log(all);
    }
}
