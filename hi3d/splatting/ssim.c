// Structural similarity of image planes and its gradient.
//
// The same computation as `ssim_reference` of hi3d/splatting/ssim.py, which gives the source.
// Gaussian means of the planes, their squares and their product are taken row by row, so that no
// blurred plane is ever stored. The window is its own adjoint: the gradient is the blur of the
// derivatives by the means.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define C1 (0.01f * 0.01f)
#define C2 (0.03f * 0.03f)

enum { MEAN_X, MEAN_Y, MEAN_XX, MEAN_YY, MEAN_XY, MEANS };
enum { BY_MEAN_X, BY_MEAN_XX, BY_MEAN_XY, DERIVATIVES };

// Blurs along a row whose margins of `radius` are zero. row: [width + 2 radius]
static void blur_row(const float *row, const float *kernel, int64_t radius, int64_t width,
                     float *blurred) {
  memset(blurred, 0, (size_t)width * sizeof(float));
  for (int64_t k = 0; k <= 2 * radius; k++)
    for (int64_t x = 0; x < width; x++)
      blurred[x] += kernel[k] * row[x + k];
}

// Adds to `total` the similarities of a row, and writes their derivatives by its means.
static double similarities(const float *const means[MEANS], int64_t width,
                           float *const derivatives[DERIVATIVES]) {
  double total = 0;
  for (int64_t i = 0; i < width; i++) {
    const float mean_x = means[MEAN_X][i], mean_y = means[MEAN_Y][i];
    const float product = mean_x * mean_y, squares = mean_x * mean_x + mean_y * mean_y;
    const float a1 = 2 * product + C1, a2 = 2 * (means[MEAN_XY][i] - product) + C2;
    const float b1 = squares + C1, b2 = means[MEAN_XX][i] + means[MEAN_YY][i] - squares + C2;
    const float inverse = 1 / (b1 * b2), similarity = a1 * a2 * inverse;
    total += similarity;
    derivatives[BY_MEAN_X][i] =
        2 * (mean_y * (a2 - a1) * inverse + similarity * mean_x * (1 / b2 - 1 / b1));
    derivatives[BY_MEAN_XX][i] = -similarity / b2;
    derivatives[BY_MEAN_XY][i] = 2 * a1 * inverse;
  }
  return total;
}

// x, y, gradients [P, H, W]; kernel [2 radius + 1]; derivatives [3, P, H, W], scratch; totals [P, H]:
// the sum of the similarities of each row. gradients: of the sum of all, by x.
// Returns 0, or 1 if memory ran out.
int ssim(const float *x, const float *y, const float *kernel, int64_t radius, int64_t num_planes,
         int64_t height, int64_t width, int num_threads, float *derivatives, double *totals,
         float *gradients) {
  const int64_t padded = width + 2 * radius, size = num_planes * height * width;
  int failed = 0;
#pragma omp parallel num_threads(num_threads)
  {
    // Rows of which the margins stay zero, and their blurs.
    float *rows = calloc((size_t)(MEANS * (padded + width)), sizeof(float));
    float *blurs = rows ? rows + MEANS * padded : NULL;
    if (!rows) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp for schedule(static)
    for (int64_t line = 0; line < num_planes * height; line++) {
      if (!rows)
        continue;
      const int64_t v = line % height;
      for (int q = 0; q < MEANS; q++)
        memset(rows + q * padded + radius, 0, (size_t)width * sizeof(float));
      for (int64_t k = -radius; k <= radius; k++) {
        if (v + k < 0 || v + k >= height)
          continue;
        const float weight = kernel[k + radius];
        const float *a = x + (line + k) * width, *b = y + (line + k) * width;
        float *restrict sums = rows + radius;
        for (int64_t i = 0; i < width; i++) {
          sums[MEAN_X * padded + i] += weight * a[i];
          sums[MEAN_Y * padded + i] += weight * b[i];
          sums[MEAN_XX * padded + i] += weight * a[i] * a[i];
          sums[MEAN_YY * padded + i] += weight * b[i] * b[i];
          sums[MEAN_XY * padded + i] += weight * a[i] * b[i];
        }
      }
      const float *means[MEANS];
      for (int q = 0; q < MEANS; q++) {
        blur_row(rows + q * padded, kernel, radius, width, blurs + q * width);
        means[q] = blurs + q * width;
      }
      float *const out[DERIVATIVES] = {derivatives + line * width, derivatives + size + line * width,
                                       derivatives + 2 * size + line * width};
      totals[line] = similarities(means, width, out);
    }
#pragma omp for schedule(static)
    for (int64_t line = 0; line < num_planes * height; line++) {
      if (!rows)
        continue;
      const int64_t v = line % height;
      for (int q = 0; q < DERIVATIVES; q++) {
        float *row = rows + q * padded;
        memset(row + radius, 0, (size_t)width * sizeof(float));
        for (int64_t k = -radius; k <= radius; k++) {
          if (v + k < 0 || v + k >= height)
            continue;
          const float *source = derivatives + q * size + (line + k) * width;
          for (int64_t i = 0; i < width; i++)
            row[radius + i] += kernel[k + radius] * source[i];
        }
        blur_row(row, kernel, radius, width, blurs + q * width);
      }
      for (int64_t i = 0; i < width; i++)
        gradients[line * width + i] = blurs[BY_MEAN_X * width + i] +
                                      2 * x[line * width + i] * blurs[BY_MEAN_XX * width + i] +
                                      y[line * width + i] * blurs[BY_MEAN_XY * width + i];
    }
    free(rows);
  }
  return failed;
}
