// One NeuS step on the active vertices of a trilinear grid: losses and their gradients.
//
// The same computation as hi3d/reconstruction/neus/renderer.py, which explains the symbols. Each
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

typedef struct {
    int32_t corner[8];  // rows of the parameters
    float weight[8];    // trilinear
    float sdf, cdf, rgb[3];
    float grad_sdf, grad_rgb[3];
    float alpha, transmittance;  // of the section from this sample to the next
    int joined;                  // whether that section exists
    int colored;                 // whether a section uses this sample's colour
} Sample;

typedef struct {
    const float *sdf;             // [A]
    const float *rgb_logits;      // [A, 3]
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

// Fills the sample's corners and sdf; returns 0 where the point is in no active cell.
static int sample_sdf(const Grid *g, const float *point, Sample *sample) {
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
    float sdf = 0;
    for (int q = 0; q < 8; q++) {
        const int dx = q >> 2, dy = (q >> 1) & 1, dz = q & 1;
        const int32_t row = g->vertex_index[base + dx * R * R + dy * R + dz];
        const float weight = (dx ? fraction[0] : 1 - fraction[0]) *
                             (dy ? fraction[1] : 1 - fraction[1]) *
                             (dz ? fraction[2] : 1 - fraction[2]);
        sample->corner[q] = row;
        sample->weight[q] = weight;
        sdf += weight * g->sdf[row];
    }
    sample->sdf = sdf;
    sample->joined = sample->colored = 0;
    return 1;
}

// Fills the sample's colour, unless it has one, and clears its gradients.
static void sample_color(const Grid *g, Sample *sample) {
    if (sample->colored) return;
    float logits[3] = {0, 0, 0};
    for (int q = 0; q < 8; q++) {
        const float *corner = g->rgb_logits + 3 * (int64_t)sample->corner[q];
        for (int c = 0; c < 3; c++) logits[c] += sample->weight[q] * corner[c];
    }
    sample->grad_sdf = 0;
    for (int c = 0; c < 3; c++) {
        sample->rgb[c] = sigmoid(logits[c]);
        sample->grad_rgb[c] = 0;
    }
    sample->colored = 1;
}

// Marches one ray. Returns the number of samples; adds up colour (without background) and opacity.
static int64_t march(const Grid *g, const float *origin, const float *direction, float t_near,
                     float t_far, float step, float inv_s, float min_transmittance,
                     int64_t max_samples, Sample *samples, float *rgb, float *opacity) {
    int64_t count = 0;
    int previous_active = 0;
    float through = 1;
    rgb[0] = rgb[1] = rgb[2] = *opacity = 0;
    for (int64_t k = 0; count < max_samples; k++) {
        const float t = t_near + (float)k * step;
        if (!(t < t_far)) break;
        float point[3];
        for (int axis = 0; axis < 3; axis++) point[axis] = origin[axis] + t * direction[axis];
        Sample *end = &samples[count];
        if (!sample_sdf(g, point, end)) {
            previous_active = 0;
            continue;
        }
        Sample *start = count > 0 ? end - 1 : end;
        if (previous_active && !(inv_s * start->sdf > FREE_SPACE && inv_s * end->sdf > FREE_SPACE)) {
            // NeuS, Eq. 13, from the SDF at both ends of the section
            sample_color(g, start);
            sample_color(g, end);
            start->cdf = sigmoid(inv_s * start->sdf);
            end->cdf = sigmoid(inv_s * end->sdf);
            const float alpha = (start->cdf - end->cdf + CDF_EPS) / (start->cdf + CDF_EPS);
            start->joined = 1;
            start->alpha = clamp(alpha, 0.f, MAX_ALPHA);
            start->transmittance = through;
            const float weight = through * start->alpha;
            for (int c = 0; c < 3; c++) rgb[c] += weight * 0.5f * (start->rgb[c] + end->rgb[c]);
            *opacity += weight;
            through *= 1 - start->alpha;
        }
        previous_active = 1;
        count++;
        if (through < min_transmittance) break;
    }
    return count;
}

// From the gradients of colour and opacity to those of every sample; returns that of inv_s.
static float backward(Sample *samples, int64_t count, float inv_s, const float *grad_rgb,
                      float grad_opacity) {
    float behind = 0, grad_inv_s = 0;  // behind: sum of w_j dL/dw_j over the sections further away
    for (int64_t i = count - 2; i >= 0; i--) {
        Sample *start = &samples[i], *end = &samples[i + 1];
        if (!start->joined) continue;
        const float weight = start->transmittance * start->alpha;
        float grad_weight = grad_opacity;
        for (int c = 0; c < 3; c++) {
            grad_weight += grad_rgb[c] * 0.5f * (start->rgb[c] + end->rgb[c]);
            start->grad_rgb[c] += 0.5f * weight * grad_rgb[c];
            end->grad_rgb[c] += 0.5f * weight * grad_rgb[c];
        }
        const float grad_alpha =
            start->transmittance * grad_weight - behind / (1 - start->alpha);
        behind += weight * grad_weight;
        if (start->alpha <= 0.f || start->alpha >= MAX_ALPHA) continue;
        const float inverse = 1.f / (start->cdf + CDF_EPS);
        const float slope_start = grad_alpha * end->cdf * inverse * inverse * start->cdf *
                                  (1 - start->cdf);
        const float slope_end = -grad_alpha * inverse * end->cdf * (1 - end->cdf);
        start->grad_sdf += slope_start * inv_s;
        end->grad_sdf += slope_end * inv_s;
        grad_inv_s += slope_start * start->sdf + slope_end * end->sdf;
    }
    return grad_inv_s;
}

// Writes the gradients of loss_color + lambda_mask * loss_mask. The gradient arrays hold one copy per
// thread. sums: [num_threads, RENDER_SUMS], zeroed. Returns 0, or 1 if memory ran out.
int neus_render(const float *sdf, const float *rgb_logits, int64_t num_active,
                const int32_t *vertex_index, const uint8_t *cell_active, int64_t resolution,
                float half_extent, const float *origins, const float *directions,
                const float *t_near, const float *t_far, const float *target_rgb,
                const float *target_alpha, const float *ray_weights, int64_t num_rays, float step,
                float inv_s, float lambda_mask, float min_transmittance, int num_threads,
                float *grad_sdf, float *grad_rgb_logits, double *sums) {
    const Grid grid = {sdf, rgb_logits, vertex_index, cell_active, resolution, half_extent};
    const int64_t max_samples = (int64_t)(2 * sqrtf(3.f) * half_extent / step) + 4;
    int failed = 0;
#pragma omp parallel num_threads(num_threads)
    {
        const int thread = this_thread();
        float *thread_sdf = grad_sdf + thread * num_active;
        float *thread_rgb = grad_rgb_logits + 3 * thread * num_active;
        double *thread_sums = sums + RENDER_SUMS * thread;
#pragma omp for schedule(static)
        for (int copy = 0; copy < num_threads; copy++) {
            memset(grad_sdf + copy * num_active, 0, (size_t)num_active * sizeof(float));
            memset(grad_rgb_logits + 3 * copy * num_active, 0,
                   (size_t)num_active * 3 * sizeof(float));
        }
        Sample *samples = malloc((size_t)max_samples * sizeof(Sample));
        if (!samples) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static, 32)
        for (int64_t ray = 0; ray < num_rays; ray++) {
            if (!samples) continue;
            float rgb[3], opacity, grad_rgb[3];
            const int64_t count =
                march(&grid, origins + 3 * ray, directions + 3 * ray, t_near[ray], t_far[ray],
                      step, inv_s, min_transmittance, max_samples, samples, rgb, &opacity);
            const float scale = ray_weights[ray] / (float)num_rays;
            float error_sum = 0, grad_opacity = 0;
            for (int c = 0; c < 3; c++) {
                const float error = rgb[c] + 1 - opacity - target_rgb[3 * ray + c];
                const float size = fabsf(error);
                error_sum += size < COLOR_BETA ? 0.5f * error * error / COLOR_BETA
                                               : size - 0.5f * COLOR_BETA;
                grad_rgb[c] = scale / 3.f * clamp(error / COLOR_BETA, -1.f, 1.f);
                grad_opacity -= grad_rgb[c];
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
                float grad_logits[3];
                for (int c = 0; c < 3; c++)
                    grad_logits[c] = s->grad_rgb[c] * s->rgb[c] * (1 - s->rgb[c]);
                for (int q = 0; q < 8; q++) {
                    const int64_t row = s->corner[q];
                    thread_sdf[row] += s->weight[q] * s->grad_sdf;
                    for (int c = 0; c < 3; c++)
                        thread_rgb[3 * row + c] += s->weight[q] * grad_logits[c];
                }
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

// Adds the further threads' copies of an array to the first, within a parallel region.
static void add_copies(float *copies, int64_t size, int num_threads) {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < size; i++)
        for (int copy = 1; copy < num_threads; copy++) copies[i] += copies[copy * size + i];
}

// Adds the gradients of the four regularisers at `vertices`, flat indices of interior vertices, and
// then adds up the threads' copies into the first. sums: [num_threads, REGULARIZER_SUMS], zeroed.
void neus_regularize(const float *sdf, const float *rgb_logits, int64_t num_active,
                     const int32_t *vertex_index, int64_t resolution, float voxel_size,
                     const int64_t *vertices, int64_t num_vertices, float lambda_eikonal,
                     float lambda_curvature, float lambda_bending, int64_t bending_reach,
                     float lambda_color_smoothness, int num_threads, float *grad_sdf,
                     float *grad_rgb_logits, double *sums) {
    const int64_t strides[3] = {resolution * resolution, resolution, 1};
    const float share = 1.f / (float)num_vertices;
#pragma omp parallel num_threads(num_threads)
    {
        const int thread = this_thread();
        float *thread_sdf = grad_sdf + thread * num_active;
        float *thread_rgb = grad_rgb_logits + 3 * thread * num_active;
        double *thread_sums = sums + REGULARIZER_SUMS * thread;
#pragma omp for schedule(static, 256)
        for (int64_t i = 0; i < num_vertices; i++) {
            const int64_t center = vertex_index[vertices[i]];
            int64_t row[6];  // before and after along x, y, z
            float gradient[3], norm = 1e-12f, laplacian = 0;
            for (int axis = 0; axis < 3; axis++) {
                row[2 * axis] = vertex_index[vertices[i] - strides[axis]];
                row[2 * axis + 1] = vertex_index[vertices[i] + strides[axis]];
                const float before = sdf[row[2 * axis]], after = sdf[row[2 * axis + 1]];
                gradient[axis] = (after - before) / (2 * voxel_size);
                norm += gradient[axis] * gradient[axis];
                laplacian += before + after;
            }
            norm = sqrtf(norm);
            laplacian = (laplacian / 6 - sdf[center]) / voxel_size;
            thread_sums[LOSS_EIKONAL] += share * (norm - 1) * (norm - 1);
            thread_sums[LOSS_CURVATURE] += share * laplacian * laplacian;

            const float pull = lambda_eikonal * share * (norm - 1) / (norm * voxel_size);
            const float bend = lambda_curvature * share * 2 * laplacian / voxel_size;
            for (int n = 0; n < 6; n++) {
                const float side = n % 2 ? 1.f : -1.f;
                thread_sdf[row[n]] += side * pull * gradient[n / 2] + bend / 6;
            }
            thread_sdf[center] -= bend;
            int64_t far[6];
            if (far_rows(vertex_index, resolution, vertices[i], bending_reach, far)) {
                float wide = 0;
                for (int n = 0; n < 6; n++) wide += sdf[far[n]];
                wide = (wide / 6 - sdf[center]) / voxel_size;
                thread_sums[LOSS_BENDING] += share * wide * wide;
                const float wide_bend = lambda_bending * share * 2 * wide / voxel_size;
                for (int n = 0; n < 6; n++) thread_sdf[far[n]] += wide_bend / 6;
                thread_sdf[center] -= wide_bend;
            }
            for (int c = 0; c < 3; c++) {
                float difference = -rgb_logits[3 * center + c];
                for (int n = 0; n < 6; n++) difference += rgb_logits[3 * row[n] + c] / 6;
                thread_sums[LOSS_COLOR_SMOOTHNESS] += share * difference * difference;
                const float slope = lambda_color_smoothness * share * 2 * difference;
                for (int n = 0; n < 6; n++) thread_rgb[3 * row[n] + c] += slope / 6;
                thread_rgb[3 * center + c] -= slope;
            }
        }
        add_copies(grad_sdf, num_active, num_threads);
        add_copies(grad_rgb_logits, 3 * num_active, num_threads);
    }
}
