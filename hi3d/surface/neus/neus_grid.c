// One NeuS step on the active vertices of a trilinear grid: losses and their gradients.
//
// The same computation as hi3d/surface/neus/renderer.py, which explains the symbols. Each
// thread adds to its own copy of the gradients, so that a run with the same number of threads gives
// the same result.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define CDF_EPS 1e-5f
#define MAX_ALPHA 0.9999f
#define COLOR_BETA 0.01f
#define OPACITY_EPS 1e-3f
// Where inv_s * sdf exceeds this at both ends, a section's alpha and its slope are below 1e-5.
#define FREE_SPACE 12.f

enum { LOSS_COLOR, LOSS_MASK, GRAD_INV_S, NUM_SAMPLES, RENDER_SUMS };
enum { LOSS_EIKONAL, LOSS_CURVATURE, LOSS_BENDING, LOSS_COLOR_SMOOTHNESS, REGULARIZER_SUMS };

// The SDF and three colours or their logits, side by side in memory: most of the time goes into
// fetching them from random places.
typedef float vec4 __attribute__((vector_size(16)));

typedef struct {
    int32_t corner[8];  // rows of the parameters
    float weight[8];    // trilinear
    vec4 value;         // sdf, and the logits or, where it is coloured, the colours
    vec4 grad;          // by the sdf and the colours
    float cdf;          // below 0 where it is not known yet
    float alpha, transmittance;  // of the section from this sample to the next
    int joined;                  // whether that section exists and has an opacity
    int colored;                 // whether a section uses this sample's colour
} Sample;

typedef struct {
    const vec4 *values;           // [A] sdf and colour logits
    const int32_t *vertex_index;  // [R, R, R], -1 where inactive
    const uint8_t *cell_active;
    int64_t resolution;           // R
    float half_extent;
} Grid;

static inline float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

static inline float clamp(float x, float low, float high) {
    return x < low ? low : (x > high ? high : x);
}

static int this_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// Fills the sample's corners and value; returns 0 where the point is in no active cell.
static int read_sample(const Grid *g, const float *point, Sample *sample) {
    const int64_t R = g->resolution;
    const float scale = (float)(R - 1) / (2.f * g->half_extent);
    int64_t cell[3];
    float fraction[3];
    for (int axis = 0; axis < 3; axis++) {
        const float position = (point[axis] + g->half_extent) * scale;
        if (!(position >= 0.f && position < (float)(R - 1))) return 0;
        cell[axis] = (int64_t)position;
        fraction[axis] = position - (float)cell[axis];
    }
    if (!g->cell_active[(cell[0] * (R - 1) + cell[1]) * (R - 1) + cell[2]]) return 0;
    const int64_t base = (cell[0] * R + cell[1]) * R + cell[2];
    vec4 value = {0};
    for (int q = 0; q < 8; q++) {
        const int dx = q >> 2, dy = (q >> 1) & 1, dz = q & 1;
        const int32_t row = g->vertex_index[base + dx * R * R + dy * R + dz];
        const float weight = (dx ? fraction[0] : 1 - fraction[0]) *
                             (dy ? fraction[1] : 1 - fraction[1]) *
                             (dz ? fraction[2] : 1 - fraction[2]);
        sample->corner[q] = row;
        sample->weight[q] = weight;
        value += weight * g->values[row];
    }
    sample->value = value;
    sample->cdf = -1;
    sample->joined = sample->colored = 0;
    return 1;
}

// Turns the sample's logits into colours, unless that is done, and clears its gradients.
static void color_sample(Sample *sample) {
    if (sample->colored) return;
    for (int c = 1; c < 4; c++) sample->value[c] = sigmoid(sample->value[c]);
    sample->grad = (vec4){0};
    sample->colored = 1;
}

// Marches one ray. Returns the number of samples; adds up colour (without background, in the last
// three of `rgb`) and opacity.
static int64_t march(const Grid *g, const float *origin, const float *direction, float t_near,
                     float t_far, float step, float inv_s, float min_transmittance,
                     int64_t max_samples, Sample *samples, vec4 *rgb, float *opacity) {
    int64_t count = 0;
    int previous_active = 0;
    float through = 1;
    *rgb = (vec4){0};
    *opacity = 0;
    for (int64_t k = 0; count < max_samples; k++) {
        const float t = t_near + (float)k * step;
        if (!(t < t_far)) break;
        float point[3];
        for (int axis = 0; axis < 3; axis++) point[axis] = origin[axis] + t * direction[axis];
        Sample *end = &samples[count];
        if (!read_sample(g, point, end)) {
            previous_active = 0;
            continue;
        }
        Sample *start = count > 0 ? end - 1 : end;
        if (previous_active &&
            !(inv_s * start->value[0] > FREE_SPACE && inv_s * end->value[0] > FREE_SPACE)) {
            // NeuS, Eq. 13, from the SDF at both ends of the section
            if (start->cdf < 0) start->cdf = sigmoid(inv_s * start->value[0]);
            end->cdf = sigmoid(inv_s * end->value[0]);
            const float alpha = (start->cdf - end->cdf + CDF_EPS) / (start->cdf + CDF_EPS);
            if (alpha > 0) {
                color_sample(start);
                color_sample(end);
                start->joined = 1;
                start->alpha = alpha < MAX_ALPHA ? alpha : MAX_ALPHA;
                start->transmittance = through;
                const float weight = through * start->alpha;
                *rgb += 0.5f * weight * (start->value + end->value);
                *opacity += weight;
                through *= 1 - start->alpha;
            }
        }
        previous_active = 1;
        count++;
        if (through < min_transmittance) break;
    }
    return count;
}

// From the gradients of colour (0 and by the three channels) and opacity to those of every sample;
// returns that of inv_s.
static float backward(Sample *samples, int64_t count, float inv_s, vec4 grad_rgb,
                      float grad_opacity) {
    float behind = 0, grad_inv_s = 0;  // behind: sum of w_j dL/dw_j over the sections further away
    for (int64_t i = count - 2; i >= 0; i--) {
        Sample *start = &samples[i], *end = &samples[i + 1];
        if (!start->joined) continue;
        const float weight = start->transmittance * start->alpha;
        const vec4 by_channel = 0.5f * grad_rgb * (start->value + end->value);
        const float grad_weight = grad_opacity + by_channel[1] + by_channel[2] + by_channel[3];
        start->grad += 0.5f * weight * grad_rgb;
        end->grad += 0.5f * weight * grad_rgb;
        const float grad_alpha =
            start->transmittance * grad_weight - behind / (1 - start->alpha);
        behind += weight * grad_weight;
        if (start->alpha >= MAX_ALPHA) continue;
        const float inverse = 1.f / (start->cdf + CDF_EPS);
        const float slope_start = grad_alpha * end->cdf * inverse * inverse * start->cdf *
                                  (1 - start->cdf);
        const float slope_end = -grad_alpha * inverse * end->cdf * (1 - end->cdf);
        start->grad[0] += slope_start * inv_s;
        end->grad[0] += slope_end * inv_s;
        grad_inv_s += slope_start * start->value[0] + slope_end * end->value[0];
    }
    return grad_inv_s;
}

// Puts the parameters side by side. values: [A, 4]
void neus_pack(const float *sdf, const float *rgb_logits, int64_t num_active, int num_threads,
               float *values) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
    for (int64_t i = 0; i < num_active; i++) {
        values[4 * i] = sdf[i];
        for (int c = 0; c < 3; c++) values[4 * i + 1 + c] = rgb_logits[3 * i + c];
    }
}

// Writes the gradients of loss_color + lambda_mask * loss_mask by the values of neus_pack, in one
// copy per thread. values: [A, 4]; grads: [num_threads, A, 4]; sums: [num_threads, RENDER_SUMS],
// zeroed. Returns 0, or 1 if memory ran out.
int neus_render(const float *values, int64_t num_active, const int32_t *vertex_index,
                const uint8_t *cell_active, int64_t resolution, float half_extent,
                const float *origins, const float *directions, const float *t_near,
                const float *t_far, const float *target_rgb, const float *target_alpha,
                const float *ray_weights, int64_t num_rays, float step, float inv_s,
                float lambda_mask, float min_transmittance, int num_threads, float *grads,
                double *sums) {
    const Grid grid = {(const vec4 *)values, vertex_index, cell_active, resolution, half_extent};
    const int64_t max_samples = (int64_t)(2 * sqrtf(3.f) * half_extent / step) + 4;
    int failed = 0;
#pragma omp parallel num_threads(num_threads)
    {
        const int thread = this_thread();
        vec4 *thread_grads = (vec4 *)grads + thread * num_active;
        double *thread_sums = sums + RENDER_SUMS * thread;
#pragma omp for schedule(static)
        for (int copy = 0; copy < num_threads; copy++)
            memset(grads + 4 * copy * num_active, 0, (size_t)num_active * sizeof(vec4));
        Sample *samples = aligned_alloc(sizeof(vec4), (size_t)max_samples * sizeof(Sample));
        if (!samples) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static, 32)
        for (int64_t ray = 0; ray < num_rays; ray++) {
            if (!samples) continue;
            vec4 rgb, grad_rgb = {0};
            float opacity;
            const int64_t count =
                march(&grid, origins + 3 * ray, directions + 3 * ray, t_near[ray], t_far[ray],
                      step, inv_s, min_transmittance, max_samples, samples, &rgb, &opacity);
            const float scale = ray_weights[ray] / (float)num_rays;
            float error_sum = 0, grad_opacity = 0;
            for (int c = 0; c < 3; c++) {
                const float error = rgb[1 + c] + 1 - opacity - target_rgb[3 * ray + c];
                const float size = fabsf(error);
                error_sum += size < COLOR_BETA ? 0.5f * error * error / COLOR_BETA
                                               : size - 0.5f * COLOR_BETA;
                grad_rgb[1 + c] = scale / 3.f * clamp(error / COLOR_BETA, -1.f, 1.f);
                grad_opacity -= grad_rgb[1 + c];
            }
            const float p = OPACITY_EPS + (1 - 2 * OPACITY_EPS) * opacity, y = target_alpha[ray];
            grad_opacity += lambda_mask * scale * (1 - 2 * OPACITY_EPS) * (p - y) / (p * (1 - p));
            thread_sums[LOSS_COLOR] += scale * error_sum / 3.f;
            thread_sums[LOSS_MASK] -= scale * (y * logf(p) + (1 - y) * logf(1 - p));
            thread_sums[GRAD_INV_S] += backward(samples, count, inv_s, grad_rgb, grad_opacity);
            thread_sums[NUM_SAMPLES] += (double)count;
            for (int64_t i = 0; i < count; i++) {
                const Sample *s = &samples[i];
                if (!s->colored) continue;
                vec4 slope = s->value * (1 - s->value);  // of the sigmoid of the logits
                slope[0] = 1;
                const vec4 grad = s->grad * slope;
                for (int q = 0; q < 8; q++) thread_grads[s->corner[q]] += s->weight[q] * grad;
            }
        }
        free(samples);
    }
    return failed;
}

// Rows of the six vertices `reach` away from one along the axes, before and after along x, y, z.
// Returns whether all of them are active vertices of the grid.
static int far_rows(const int32_t *vertex_index, int64_t resolution, int64_t vertex, int64_t reach,
                    int64_t row[6]) {
    const int64_t strides[3] = {resolution * resolution, resolution, 1};
    for (int axis = 0; axis < 3; axis++) {
        const int64_t place = vertex / strides[axis] % resolution;
        if (place < reach || place >= resolution - reach) return 0;
        row[2 * axis] = vertex_index[vertex - reach * strides[axis]];
        row[2 * axis + 1] = vertex_index[vertex + reach * strides[axis]];
        if (row[2 * axis] < 0 || row[2 * axis + 1] < 0) return 0;
    }
    return 1;
}

// Adds the gradients of the four regularisers at `vertices`, flat indices of interior vertices, and
// then sums up the threads' copies. values: [A, 4]; grads: [num_threads, A, 4]; sums: [num_threads,
// REGULARIZER_SUMS], zeroed; grad_sdf: [A]; grad_rgb_logits: [A, 3].
void neus_regularize(const float *values, int64_t num_active, const int32_t *vertex_index,
                     int64_t resolution, float voxel_size, const int64_t *vertices,
                     int64_t num_vertices, float lambda_eikonal, float lambda_curvature,
                     float lambda_bending, int64_t bending_reach, float lambda_color_smoothness,
                     int num_threads, float *grads, double *sums, float *grad_sdf,
                     float *grad_rgb_logits) {
    const int64_t strides[3] = {resolution * resolution, resolution, 1};
    const float share = 1.f / (float)num_vertices;
    const vec4 *rows = (const vec4 *)values;
    // Twice the weights of the Laplacians of the sdf, in voxels, and of the logits.
    vec4 twice = share * 2 * lambda_color_smoothness + (vec4){0};
    twice[0] = share * 2 * lambda_curvature / (voxel_size * voxel_size);
#pragma omp parallel num_threads(num_threads)
    {
        const int thread = this_thread();
        vec4 *thread_grads = (vec4 *)grads + thread * num_active;
        double *thread_sums = sums + REGULARIZER_SUMS * thread;
#pragma omp for schedule(static, 256)
        for (int64_t i = 0; i < num_vertices; i++) {
            const int64_t center = vertex_index[vertices[i]];
            int64_t row[6];  // before and after along x, y, z
            float gradient[3], norm = 1e-12f;
            vec4 around = {0};
            for (int axis = 0; axis < 3; axis++) {
                row[2 * axis] = vertex_index[vertices[i] - strides[axis]];
                row[2 * axis + 1] = vertex_index[vertices[i] + strides[axis]];
                const vec4 before = rows[row[2 * axis]], after = rows[row[2 * axis + 1]];
                gradient[axis] = (after[0] - before[0]) / (2 * voxel_size);
                norm += gradient[axis] * gradient[axis];
                around += before + after;
            }
            norm = sqrtf(norm);
            const vec4 laplacian = around / 6 - rows[center], square = laplacian * laplacian;
            thread_sums[LOSS_EIKONAL] += share * (norm - 1) * (norm - 1);
            thread_sums[LOSS_CURVATURE] += share * square[0] / (voxel_size * voxel_size);
            thread_sums[LOSS_COLOR_SMOOTHNESS] += share * (square[1] + square[2] + square[3]);

            const float pull = lambda_eikonal * share * (norm - 1) / (norm * voxel_size);
            const vec4 bend = twice * laplacian;
            for (int n = 0; n < 6; n++) {
                vec4 grad = bend / 6;
                grad[0] += (n % 2 ? pull : -pull) * gradient[n / 2];
                thread_grads[row[n]] += grad;
            }
            thread_grads[center] -= bend;
            int64_t far[6];
            if (far_rows(vertex_index, resolution, vertices[i], bending_reach, far)) {
                float wide = 0;
                for (int n = 0; n < 6; n++) wide += rows[far[n]][0];
                wide = (wide / 6 - rows[center][0]) / voxel_size;
                thread_sums[LOSS_BENDING] += share * wide * wide;
                const float wide_bend = lambda_bending * share * 2 * wide / voxel_size;
                for (int n = 0; n < 6; n++) thread_grads[far[n]][0] += wide_bend / 6;
                thread_grads[center][0] -= wide_bend;
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < num_active; i++) {
            vec4 total = ((const vec4 *)grads)[i];
            for (int copy = 1; copy < num_threads; copy++)
                total += ((const vec4 *)grads)[copy * num_active + i];
            grad_sdf[i] = total[0];
            for (int c = 0; c < 3; c++) grad_rgb_logits[3 * i + c] = total[1 + c];
        }
    }
}
