// 3x3 convolutions of images whose surroundings are known, and distances between such features.
//
// Features are arrays [rows, columns, channels] inside a box [top, bottom, left, right] of the whole
// image; beyond the box they are those of `background`, and beyond the image zero. The convolution
// is Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, CVPR 2016, Section 4.3): tiles of 6x6
// pixels become 36 points, at each of which the channels are mixed by one matrix product, and every
// tile gives 4x4 outputs: a quarter of the multiplications.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, TILE = 4, PATCH = 6, POINTS = 36, ROWS = 6, COLUMNS = 16 };
enum { DEPTH = 256 };  // channels of one product: a panel of filters stays in the first cache
enum { SPREAD = 16 };  // floats between the points' matrices: else all fall into one set of the cache
enum { TOP, BOTTOM, LEFT, RIGHT };

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));

static inline lanes load(const float *from) {
  lanes values;
  memcpy(&values, from, sizeof values);
  return values;
}

static inline void store(float *to, lanes values) { memcpy(to, &values, sizeof values); }

// The features of a pixel; NULL beyond the image.
static inline const float *pixel(const float *x, const int64_t *box, const float *background,
                                 int64_t height, int64_t width, int64_t channels, int64_t row,
                                 int64_t column) {
  if (row < 0 || row >= height || column < 0 || column >= width) return NULL;
  if (row < box[TOP] || row >= box[BOTTOM] || column < box[LEFT] || column >= box[RIGHT])
    return background + (row * width + column) * channels;
  const int64_t inside = (row - box[TOP]) * (box[RIGHT] - box[LEFT]) + column - box[LEFT];
  return x + inside * channels;
}

// Values of six pixels of a line at the six points.
static inline void to_points(const lanes *d, int64_t step, lanes *points) {
  const lanes even = d[4 * step] - 4 * d[2 * step], odd = d[3 * step] - 4 * d[step];
  const lanes near = d[4 * step] - d[2 * step], twice = 2 * (d[3 * step] - d[step]);
  points[0] = 4 * d[0] - 5 * d[2 * step] + d[4 * step];
  points[step] = even + odd;
  points[2 * step] = even - odd;
  points[3 * step] = near + twice;
  points[4 * step] = near - twice;
  points[5 * step] = 4 * d[step] - 5 * d[3 * step] + d[5 * step];
}

// Four outputs of a line from its six points.
static inline void from_points(const lanes *m, int64_t step, lanes *outputs, int64_t output_step) {
  const lanes sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
  const lanes far = m[3 * step] + m[4 * step], far_difference = m[3 * step] - m[4 * step];
  outputs[0] = m[0] + sum + far;
  outputs[output_step] = difference + 2 * far_difference;
  outputs[2 * output_step] = sum + 4 * far;
  outputs[3 * output_step] = difference + 8 * far_difference + m[5 * step];
}

// pixels [36] of a tile -> points [36][stride], of which `channels` are written.
static void transform_tile(const float *const *pixels, int64_t channels, float *points,
                           int64_t stride) {
  for (int64_t c = 0; c < channels; c += LANES) {
    lanes d[POINTS], columns[POINTS];
    for (int i = 0; i < POINTS; i++) d[i] = load(pixels[i] + c);
    for (int j = 0; j < PATCH; j++) to_points(d + j, PATCH, columns + j);
    for (int i = 0; i < PATCH; i++) to_points(columns + PATCH * i, 1, d + PATCH * i);
    for (int i = 0; i < POINTS; i++) store(points + i * stride + c, d[i]);
  }
}

// points [36][stride] -> outputs [4 x 4]: rectified, where the address is not NULL.
static void inverse_tile(const float *points, int64_t stride, const float *bias, int64_t channels,
                         float *const *outputs) {
  for (int64_t c = 0; c < channels; c += LANES) {
    lanes m[POINTS], columns[TILE * PATCH], y[TILE * TILE];
    for (int i = 0; i < POINTS; i++) m[i] = load(points + i * stride + c);
    for (int j = 0; j < PATCH; j++) from_points(m + j, PATCH, columns + j, PATCH);
    for (int i = 0; i < TILE; i++) from_points(columns + PATCH * i, 1, y + TILE * i, 1);
    const lanes shift = load(bias + c);
    for (int i = 0; i < TILE * TILE; i++) {
      const lanes value = y[i] + shift;
      if (outputs[i]) store(outputs[i] + c, (lanes)((bits)value & (value > 0)));
    }
  }
}

// m [6][ldm] = a [6][lda] panel [depth][16], or added to what is there.
static inline void product(const float *a, int64_t lda, int64_t depth, const float *panel,
                           int add, float *m, int64_t ldm) {
  lanes sums[ROWS][2];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < 2; j++) sums[i][j] = add ? load(m + i * ldm + LANES * j) : (lanes){0};
  for (int64_t k = 0; k < depth; k++) {
    const lanes first = load(panel + COLUMNS * k), second = load(panel + COLUMNS * k + LANES);
    for (int i = 0; i < ROWS; i++) {
      const float value = a[i * lda + k];
      sums[i][0] += value * first;
      sums[i][1] += value * second;
    }
  }
  for (int i = 0; i < ROWS; i++) {
    store(m + i * ldm, sums[i][0]);
    store(m + i * ldm + LANES, sums[i][1]);
  }
}

// Where a tile of the output begins, in the coordinates of its box.
typedef struct {
  int64_t image, row, column;
} place;

// Lists the tiles that can differ from a white image's, and fills the others with its features.
static int64_t list_tiles(const uint8_t *mask, const float *after, int64_t num_images,
                          int64_t height, int64_t width, int64_t channels, const int64_t *box,
                          float *y, place *tiles) {
  const int64_t down = box[BOTTOM] - box[TOP], across = box[RIGHT] - box[LEFT];
  int64_t count = 0;
  for (int64_t image = 0; image < num_images; image++)
    for (int64_t row = 0; row < down; row += TILE)
      for (int64_t column = 0; column < across; column += TILE) {
        const int64_t rows = down - row < TILE ? down - row : TILE;
        const int64_t columns = across - column < TILE ? across - column : TILE;
        int differs = 0;
        for (int64_t r = 0; r < rows; r++)
          for (int64_t c = 0; c < columns; c++)
            differs |= mask[(image * height + box[TOP] + row + r) * width + box[LEFT] + column + c];
        if (differs) {
          tiles[count++] = (place){image, row, column};
          continue;
        }
        for (int64_t r = 0; r < rows; r++)
          memcpy(y + ((image * down + row + r) * across + column) * channels,
                 after + ((box[TOP] + row + r) * width + box[LEFT] + column) * channels,
                 (size_t)(columns * channels) * sizeof(float));
      }
  return count;
}

// x [V, h, w, C] in x_box; background [height, width, C] and the output after it [height, width, K];
// filters [36, K / 16, C, 16]; bias [K]; mask [V, height, width]: outputs that can differ from
// `after`; y [V, h', w', K] in y_box: convolved and rectified. C is a multiple of 8, K of 16.
// Returns 0, or 1 if memory ran out.
int convolve(const float *x, const int64_t *x_box, const float *background, const float *after,
             const float *filters, const float *bias, const uint8_t *mask, int64_t num_images,
             int64_t height, int64_t width, int64_t channels, int64_t out_channels,
             const int64_t *y_box, float *y, int num_threads) {
  const int64_t x_size = (x_box[BOTTOM] - x_box[TOP]) * (x_box[RIGHT] - x_box[LEFT]) * channels;
  const int64_t y_height = y_box[BOTTOM] - y_box[TOP], y_width = y_box[RIGHT] - y_box[LEFT];
  const int64_t most = num_images * ((y_height + TILE - 1) / TILE) * ((y_width + TILE - 1) / TILE);
  const int64_t block = channels < DEPTH ? 48 : 96;
  const int64_t v_stride = block * channels + SPREAD, m_stride = block * out_channels + SPREAD;
  place *tiles = malloc((size_t)(most + 1) * sizeof(place));
  if (!tiles) return 1;
  const int64_t count = list_tiles(mask, after, num_images, height, width, out_channels, y_box, y,
                                   tiles);
  int failed = 0;
#pragma omp parallel num_threads(num_threads)
  {
    float *zeros = calloc((size_t)channels, sizeof(float));
    float *v = malloc((size_t)(POINTS * (v_stride + m_stride)) * sizeof(float));
    float *m = v ? v + POINTS * v_stride : NULL;
    if (!zeros || !v) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
    if (!failed) {
#pragma omp for schedule(dynamic)
      for (int64_t start = 0; start < count; start += block) {
        const int64_t here = count - start < block ? count - start : block;
        const int64_t groups = (here + ROWS - 1) / ROWS;
        for (int64_t t = 0; t < groups * ROWS; t++) {
          const place tile = tiles[t < here ? start + t : start];
          const float *pixels[POINTS];
          for (int i = 0; i < POINTS; i++) {
            const float *found =
                pixel(x + tile.image * x_size, x_box, background, height, width, channels,
                      y_box[TOP] + tile.row - 1 + i / PATCH,
                      y_box[LEFT] + tile.column - 1 + i % PATCH);
            pixels[i] = found ? found : zeros;
          }
          transform_tile(pixels, channels, v + t * channels, v_stride);
        }
        for (int64_t point = 0; point < POINTS; point++)
          for (int64_t panel = 0; panel < out_channels; panel += COLUMNS)
            for (int64_t k = 0; k < channels; k += DEPTH)
              for (int64_t g = 0; g < groups; g++)
                product(v + point * v_stride + g * ROWS * channels + k, channels,
                        channels - k < DEPTH ? channels - k : DEPTH,
                        filters + (point * out_channels + panel) * channels + k * COLUMNS, k > 0,
                        m + point * m_stride + g * ROWS * out_channels + panel, out_channels);
        for (int64_t t = 0; t < here; t++) {
          const place tile = tiles[start + t];
          float *outputs[TILE * TILE];
          for (int i = 0; i < TILE * TILE; i++) {
            const int64_t r = tile.row + i / TILE, c = tile.column + i % TILE;
            const int64_t to = (tile.image * y_height + r) * y_width + c;
            outputs[i] = r < y_height && c < y_width ? y + to * out_channels : NULL;
          }
          inverse_tile(m + t * out_channels, m_stride, bias, out_channels, outputs);
        }
      }
    }
    free(zeros);
    free(v);
  }
  free(tiles);
  return failed;
}

// x [V, h, w, C] in x_box, background [height, width, C] -> y [V, h', w', C] in y_box: the largest of
// each 2x2 pixels.
void pool(const float *x, const int64_t *x_box, const float *background, int64_t num_images,
          int64_t height, int64_t width, int64_t channels, const int64_t *y_box, float *y,
          int num_threads) {
  const int64_t x_size = (x_box[BOTTOM] - x_box[TOP]) * (x_box[RIGHT] - x_box[LEFT]) * channels;
  const int64_t y_height = y_box[BOTTOM] - y_box[TOP], y_width = y_box[RIGHT] - y_box[LEFT];
#pragma omp parallel for num_threads(num_threads)
  for (int64_t line = 0; line < num_images * y_height; line++) {
    const float *image = x + line / y_height * x_size;
    const int64_t row = 2 * (y_box[TOP] + line % y_height);
    for (int64_t i = 0; i < y_width; i++) {
      const int64_t column = 2 * (y_box[LEFT] + i);
      const float *from[4];
      for (int k = 0; k < 4; k++)
        from[k] = pixel(image, x_box, background, height, width, channels, row + k / 2,
                        column + k % 2);
      float *to = y + (line * y_width + i) * channels;
      for (int64_t c = 0; c < channels; c++) {
        const float upper = from[0][c] > from[1][c] ? from[0][c] : from[1][c];
        const float lower = from[2][c] > from[3][c] ? from[2][c] : from[3][c];
        to[c] = upper > lower ? upper : lower;
      }
    }
  }
}

// The inverse length of a vector, with `eps` below its square.
static inline float inverse_length(const float *x, int64_t channels, float eps) {
  float square = 0;
  for (int64_t c = 0; c < channels; c++) square += x[c] * x[c];
  return 1 / __builtin_sqrtf(square + eps);
}

// x [V, h, w, C] in x_box, y [V or 1, h', w', C] in y_box, background [height, width, C], weights [C]
// -> sums [V]: the weighted squared differences of unit vectors, over all pixels of an image.
void distances(const float *x, const int64_t *x_box, int64_t num_x, const float *y,
               const int64_t *y_box, int64_t num_y, const float *background, const float *weights,
               int64_t num_images, int64_t height, int64_t width, int64_t channels, float eps,
               double *sums, int num_threads) {
  const int64_t x_size = (x_box[BOTTOM] - x_box[TOP]) * (x_box[RIGHT] - x_box[LEFT]) * channels;
  const int64_t y_size = (y_box[BOTTOM] - y_box[TOP]) * (y_box[RIGHT] - y_box[LEFT]) * channels;
#pragma omp parallel for num_threads(num_threads)
  for (int64_t image = 0; image < num_images; image++) {
    double total = 0;
    for (int64_t row = 0; row < height; row++)
      for (int64_t column = 0; column < width; column++) {
        const float *a = pixel(x + (num_x > 1 ? image : 0) * x_size, x_box, background, height,
                               width, channels, row, column);
        const float *b = pixel(y + (num_y > 1 ? image : 0) * y_size, y_box, background, height,
                               width, channels, row, column);
        if (a == b) continue;  // both are the background's
        const float inverse_a = inverse_length(a, channels, eps);
        const float inverse_b = inverse_length(b, channels, eps);
        float sum = 0;
        for (int64_t c = 0; c < channels; c++) {  // a[c] inverse_a - b[c] inverse_b, 0 if equal
          const float difference = (a[c] - b[c]) * inverse_a + b[c] * (inverse_a - inverse_b);
          sum += weights[c] * difference * difference;
        }
        total += sum;
      }
    sums[image] = total;
  }
}
