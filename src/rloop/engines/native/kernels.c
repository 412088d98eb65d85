/* What a decode step of a Llama-like model does between its matrix products, on a CPU.
 *
 * Letters as in the shapes elsewhere: R rows, D model width, G key-value heads, C capacity of the
 * cache in positions, I width of the MLP, V vocabulary. Given when this is compiled: BF16 where
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
typedef float state;
static inline float get(const state *p) { return *p; }
static inline void put(state *p, float x) { *p = x; }
static inline vf load(const state *p) { vf x; memcpy(&x, p, sizeof x); return x; }
static inline void store(state *p, vf x) { memcpy(p, &x, sizeof x); }
#endif

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

/* p[n] = softmax(p); a vector's worth beyond p[n] may be written over. */
static inline void softmax(float *p, int64_t n) {
    for (int64_t t = n; t % LANES; t++) p[t] = -INFINITY;
    vf peaks = splat(-INFINITY), sums = {};
    for (int64_t t = 0; t < n; t += LANES) peaks = vmax(loadf(p + t), peaks);
    float peak = largest(peaks);
    for (int64_t t = 0; t < n; t += LANES) {
        vf weights = vexp(loadf(p + t) - peak);
        memcpy(p + t, &weights, sizeof weights);
        sums += weights;
    }
    float scale = 1.f / total(sums);
    for (int64_t t = 0; t < n; t++) p[t] *= scale;
}

#define WIDE (HEAD % (2 * LANES) ? 1 : 2) /* vectors at a time: two hide the latency of a sum */

/* For each row: normalise (where weights are given) and rotate queries and key, write key and value
 * at the row's position, attend over positions 0..position.
 * qkv[R, (H+2G)K]; cosine, sine [positions, K]; keys [R, G, C/LANES, K, LANES], so that the scores
 * of neighbouring positions are one vector; values [R, G, C, K]; out[R, HK]; scratch[R, H, reach],
 * reach a multiple of LANES. K is HEAD; SHARING = H / G heads share a key. */
void attend(const state *qkv, const int64_t *positions, const state *cosine, const state *sine,
            const state *q_norm, const state *k_norm, state *keys, state *values, state *out,
            float *scratch, int64_t R, int64_t G, int64_t C, int64_t reach, float scaling,
            float eps) {
    const int64_t H = G * SHARING;
#pragma omp parallel for schedule(static, 1)
    for (int64_t rg = 0; rg < R * G; rg++) {
        int64_t r = rg / G, g = rg % G, position = positions[r], seen = position + 1;
        const state *row = qkv + r * (H + 2 * G) * HEAD;
        const state *c = cosine + position * HEAD, *s = sine + position * HEAD;
        state *key = keys + rg * C * HEAD, *value = values + rg * C * HEAD;
        float q[SHARING][HEAD], fresh[HEAD];
        for (int k = 0; k < HEAD; k++) fresh[k] = get(row + (H + g) * HEAD + k);
        if (k_norm) head_norm(fresh, k_norm, eps);
        rotate(fresh, c, s);
        state *column = key + position / LANES * LANES * HEAD + position % LANES;
        for (int k = 0; k < HEAD; k++) put(column + k * LANES, fresh[k]);
        memcpy(value + position * HEAD, row + (H + G + g) * HEAD, HEAD * sizeof(state));
        for (int h = 0; h < SHARING; h++) {
            for (int k = 0; k < HEAD; k++) q[h][k] = get(row + (g * SHARING + h) * HEAD + k);
            if (q_norm) head_norm(q[h], q_norm, eps);
            rotate(q[h], c, s);
            for (int k = 0; k < HEAD; k++) q[h][k] *= scaling;
        }
        float *scores = scratch + rg * SHARING * reach;
        for (int64_t b = 0; b < seen; b += LANES) {
            const state *block = key + b * HEAD;
            vf sums[SHARING][2] = {}; /* two sums each: one alone would wait for itself */
            for (int k = 0; k < HEAD; k += 2)
                for (int j = 0; j < 2; j++) {
                    vf part = load(block + (k + j) * LANES);
                    for (int h = 0; h < SHARING; h++) sums[h][j] += q[h][k + j] * part;
                }
            for (int h = 0; h < SHARING; h++) {
                vf sum = sums[h][0] + sums[h][1];
                memcpy(scores + h * reach + b, &sum, sizeof sum);
            }
        }
        for (int h = 0; h < SHARING; h++) softmax(scores + h * reach, seen);
        for (int k = 0; k < HEAD; k += WIDE * LANES) {
            vf mixed[SHARING][WIDE] = {};
            for (int64_t t = 0; t < seen; t++) {
                vf parts[WIDE];
                for (int j = 0; j < WIDE; j++) parts[j] = load(value + t * HEAD + k + j * LANES);
                for (int h = 0; h < SHARING; h++)
                    for (int j = 0; j < WIDE; j++) mixed[h][j] += scores[h * reach + t] * parts[j];
            }
            for (int h = 0; h < SHARING; h++)
                for (int j = 0; j < WIDE; j++)
                    store(out + (r * H + g * SHARING + h) * HEAD + k + j * LANES, mixed[h][j]);
        }
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
