// Gaussian blur of image planes with a symmetric kernel, zero beyond the border.
//
// The blur is its own adjoint: the gradient of a blurred plane, blurred, is that of the plane.
//
//   planes, blurred [P, H, W]; kernel [2 radius + 1]; scratch [P, W + 2 radius], zero in the margins

#include <stdint.h>
#include <string.h>

void separable_blur(const float *planes, const float *kernel, int64_t radius, int64_t num_planes,
                    int64_t height, int64_t width, int num_threads, float *scratch,
                    float *blurred) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int64_t p = 0; p < num_planes; p++) {
    const float *plane = planes + p * height * width;
    float *row = scratch + p * (width + 2 * radius);
    float *middle = row + radius;
    for (int64_t y = 0; y < height; y++) {
      memset(middle, 0, (size_t)width * sizeof(float));
      for (int64_t k = -radius; k <= radius; k++) {
        if (y + k < 0 || y + k >= height)
          continue;
        const float weight = kernel[k + radius];
        const float *source = plane + (y + k) * width;
        for (int64_t x = 0; x < width; x++)
          middle[x] += weight * source[x];
      }
      float *out = blurred + (p * height + y) * width;
      memset(out, 0, (size_t)width * sizeof(float));
      for (int64_t k = 0; k <= 2 * radius; k++) {
        const float weight = kernel[k];
        for (int64_t x = 0; x < width; x++)
          out[x] += weight * row[x + k];
      }
    }
  }
}
