// Tile rasteriser for projected Gaussians: alpha compositing (Hi3D paper, Eq. 3) and its gradient.
//
// The image is cut into tiles of 16x16 pixels. A tile's Gaussians are listed front to back; every
// row of the tile is one vector of 16 pixels (a vector type of GCC and Clang, which they map to
// whatever registers the CPU has).
//
// Arrays are contiguous:
//   means2d   [N, 2]  pixels, pixel centres at +0.5
//   conics    [N, 3]  inverse 2D covariance: xx, xy, yy
//   opacities [N]     in [0, 1]
//   radii     [N, 2]  half sizes of the boxes that hold all alpha >= 1/255, in pixels
//   features  [N, 4]  red, green, blue, depth
//   splat_ids [M]     Gaussians of all tiles, tile after tile, front to back in each
//   offsets   [T + 1] the first entry of each tile in splat_ids
//   slots     [M]     where each entry of splat_ids stands when the entries are ordered by Gaussian
//   firsts    [N + 1] the first of those places of each Gaussian
//   image     [4, H, W], transmittance [H, W], last [H, W]
//
// As in the reference implementation of 3DGS, alpha is capped at 0.999, contributions with alpha
// below 1/255 are left out, and a pixel is finished before its transmittance falls to 1e-4.
// `last` is the number of list entries of the tile up to the pixel's last contribution.
//
// splat_backward walks the lists back to front and recovers each transmittance by division, which is
// safe because the two limits keep it above 1e-4 and the divisor above 1e-3.

#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE 16
#define CHANNELS 4
#define GRADIENTS 10 // means2d 2, conic 3, opacity 1, features 4
static const float MAX_ALPHA = 0.999f;
static const float MIN_ALPHA = 1.0f / 255.0f;
static const float MIN_TRANSMITTANCE = 1e-4f;
static const float MAX_POWER = 20.0f; // exp(-20) is far below 1/255 and exp_negative is valid there

typedef float vec __attribute__((vector_size(4 * TILE)));
typedef int32_t ivec __attribute__((vector_size(4 * TILE)));
static const vec COLUMNS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// `yes` where the comparison `mask` holds (all bits set), else `no`.
static inline vec select(ivec mask, vec yes, vec no) {
  return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

static inline float sum_of(vec v) {
  float total = 0.0f;
  for (int x = 0; x < TILE; x++)
    total += v[x];
  return total;
}

// exp(-s) for s in [0, 20], relative error below 3e-7: 2^n from the exponent bits times a
// polynomial of 2^r, |r| <= 1/2.
static inline vec exp_negative(vec s) {
  vec t = s * -1.44269504f;
  ivec n = __builtin_convertvector(t - 0.5f, ivec); // t <= 0: truncation rounds to the nearest
  vec r = t - __builtin_convertvector(n, vec);
  vec p = 1.0f + r * (0.69314718f +
                      r * (0.24022651f +
                           r * (0.05550411f +
                                r * (0.00961813f + r * (0.00133336f + r * 0.00015404f)))));
  return (vec)((n + 127) << 23) * p;
}

typedef struct {
  float x, y, half_a, b, half_c, opacity;
  int first_row, last_row; // rows of the tile that the Gaussian can reach with alpha >= 1/255
} Splat;

// Reads Gaussian `id` for the tile whose first row is `tile_y`.
static inline Splat load_splat(const float *means2d, const float *conics, const float *opacities,
                               const float *radii, int64_t id, int64_t tile_y) {
  Splat s;
  s.x = means2d[2 * id];
  s.y = means2d[2 * id + 1];
  s.half_a = 0.5f * conics[3 * id];
  s.b = conics[3 * id + 1];
  s.half_c = 0.5f * conics[3 * id + 2];
  s.opacity = opacities[id];
  const float reach = radii[2 * id + 1] + 0.01f; // 0.01 px of slack, against rounding
  const float top = s.y - 0.5f - (float)tile_y;
  const float first = ceilf(top - reach), last = floorf(top + reach);
  s.first_row = first < 0.0f ? 0 : (first > TILE ? TILE : (int)first);
  s.last_row = last > TILE - 1 ? TILE - 1 : (last < -1.0f ? -1 : (int)last);
  return s;
}

// The exponent of the Gaussian along a row of pixels.
static inline vec power_at(const Splat *s, vec dx, float dy) {
  const vec zero = {0};
  const vec power = (s->half_a * dx + s->b * dy) * dx + s->half_c * dy * dy;
  return select(power > MAX_POWER, zero + MAX_POWER, select(power < 0.0f, zero, power));
}

// Number of entries that the boxes of the Gaussians could need, and the first of each. rooms: [N + 1]
int64_t splat_rooms(const float *means2d, const float *radii, int64_t num_splats, int64_t width,
                    int64_t height, int64_t *rooms) {
  const double tiles_x = (double)((width + TILE - 1) / TILE);
  const double tiles_y = (double)((height + TILE - 1) / TILE);
  rooms[0] = 0;
  for (int64_t n = 0; n < num_splats; n++) {
    const double rx = radii[2 * n], ry = radii[2 * n + 1];
    // With the slack of splat_lists.
    const double columns = (2 * rx + 0.1) / TILE + 2, rows = (2 * ry + 0.1) / TILE + 2;
    const double room = (columns < tiles_x ? columns : tiles_x) * (rows < tiles_y ? rows : tiles_y);
    rooms[n + 1] = rooms[n] + (rx > 0 && ry > 0 ? (int64_t)room : 0);
  }
  return rooms[num_splats];
}

static inline double clamp(double value, double low, double high) {
  return value < low ? low : (value > high ? high : value);
}

// The ellipse on which a Gaussian's alpha is 1/255, around its centre.
typedef struct {
  double a, b, c, level; // a dx^2 + 2 b dx dy + c dy^2 = level
  double rx, ry;         // half sizes of its box
} Ellipse;

static Ellipse load_ellipse(const float *conic, float opacity, const float *radii) {
  // Slack against rounding: here, and of the exponents in float32.
  Ellipse e = {conic[0], conic[1], conic[2], 0, radii[0] + 0.01, radii[1] + 0.01};
  const double size = e.a * e.rx * e.rx + 2 * fabs(e.b) * e.rx * e.ry + e.c * e.ry * e.ry;
  e.level = 2 * log(opacity / MIN_ALPHA) + 1e-3 + 1e-6 * size;
  return e;
}

// The largest dx of the ellipse (for side 1) or minus the smallest (-1) where dy is in [low, high].
static double reach(const Ellipse *e, double low, double high, double side) {
  const double dy = clamp(-side * e->b / e->c * e->rx, low, high); // where the ellipse is widest
  const double square = e->b * dy * e->b * dy - e->a * (e->c * dy * dy - e->level);
  const double dx = (sqrt(square > 0 ? square : 0) - side * e->b * dy) / e->a;
  return dx < e->rx ? dx : e->rx;
}

// Lists the tiles that each Gaussian reaches with alpha >= 1/255.
//
//   order      [N]      Gaussians front to back
//   rooms      [N + 1]  of splat_rooms
//   tiles      [rooms]  scratch
//   splat_ids, slots [rooms], offsets [T + 1], firsts [N + 1]: results, of which M entries are used
//
// Returns M.
int64_t splat_lists(const float *means2d, const float *conics, const float *opacities,
                    const float *radii, const int64_t *order, int64_t num_splats, int64_t width,
                    int64_t height, int num_threads, const int64_t *rooms, int64_t *tiles,
                    int64_t *splat_ids, int64_t *slots, int64_t *offsets, int64_t *firsts) {
  const int64_t tiles_x = (width + TILE - 1) / TILE, tiles_y = (height + TILE - 1) / TILE;
  const int64_t num_tiles = tiles_x * tiles_y;
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int64_t n = 0; n < num_splats; n++) {
    int64_t count = 0;
    if (rooms[n + 1] > rooms[n]) {
      const Ellipse e = load_ellipse(conics + 3 * n, opacities[n], radii + 2 * n);
      // Relative to the first pixel's centre.
      const double x = means2d[2 * n] - 0.5, y = means2d[2 * n + 1] - 0.5;
      const int64_t top = (int64_t)clamp(floor((y - e.ry) / TILE), 0, tiles_y);
      const int64_t bottom = (int64_t)clamp(floor((y + e.ry) / TILE), -1, tiles_y - 1);
      for (int64_t row = top; row <= bottom; row++) {
        const double low = clamp(row * TILE - y, -e.ry, e.ry);
        const double high = clamp(row * TILE + TILE - 1 - y, -e.ry, e.ry);
        const double first = floor((x - reach(&e, low, high, -1) - 0.01) / TILE);
        const double last = floor((x + reach(&e, low, high, 1) + 0.01) / TILE);
        const int64_t right = (int64_t)clamp(last, -1, tiles_x - 1);
        for (int64_t column = (int64_t)clamp(first, 0, tiles_x); column <= right; column++)
          tiles[rooms[n] + count++] = row * tiles_x + column;
      }
    }
    firsts[n + 1] = count;
  }
  memset(offsets, 0, (num_tiles + 1) * sizeof(int64_t));
  firsts[0] = 0;
  for (int64_t n = 0; n < num_splats; n++) {
    for (int64_t j = 0; j < firsts[n + 1]; j++)
      offsets[tiles[rooms[n] + j]]++;
    firsts[n + 1] += firsts[n];
  }
  for (int64_t tile = 0, sum = 0; tile <= num_tiles; tile++) {
    const int64_t count = offsets[tile];
    offsets[tile] = sum; // moves on to the tile's end below
    sum += count;
  }
  for (int64_t i = 0; i < num_splats; i++) {
    const int64_t n = order[i];
    for (int64_t j = 0; j < firsts[n + 1] - firsts[n]; j++) {
      const int64_t place = offsets[tiles[rooms[n] + j]]++;
      splat_ids[place] = n;
      slots[place] = firsts[n] + j;
    }
  }
  for (int64_t tile = num_tiles; tile > 0; tile--)
    offsets[tile] = offsets[tile - 1];
  offsets[0] = 0;
  return firsts[num_splats];
}

void splat_forward(const float *means2d, const float *conics, const float *opacities,
                   const float *radii, const float *features, const int64_t *splat_ids,
                   const int64_t *offsets, int64_t width, int64_t height, int num_threads,
                   float *image, float *transmittance, int32_t *last) {
  const int64_t tiles_x = (width + TILE - 1) / TILE, tiles_y = (height + TILE - 1) / TILE;
  const int64_t area = width * height;
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
  for (int64_t tile = 0; tile < tiles_x * tiles_y; tile++) {
    const int64_t x0 = (tile % tiles_x) * TILE, y0 = (tile / tiles_x) * TILE;
    vec T[TILE], live[TILE], sum[CHANNELS][TILE];
    ivec final[TILE];
    memset(sum, 0, sizeof sum);
    memset(final, 0, sizeof final);
    for (int row = 0; row < TILE; row++)
      for (int x = 0; x < TILE; x++) {
        T[row][x] = 1.0f;
        // Pixels beyond the image count as finished.
        live[row][x] = x0 + x < width && y0 + row < height ? 1.0f : 0.0f;
      }
    const vec zero = {0};
    const int64_t count = offsets[tile + 1] - offsets[tile];
    for (int64_t k = 0; k < count; k++) {
      const int64_t id = splat_ids[offsets[tile] + k];
      const Splat s = load_splat(means2d, conics, opacities, radii, id, y0);
      const float *f = features + CHANNELS * id;
      const vec dx = (float)x0 + 0.5f - s.x + COLUMNS;
      const ivec entry = (ivec){0} + (int32_t)(k + 1);
      for (int row = s.first_row; row <= s.last_row; row++) {
        const float dy = (float)(y0 + row) + 0.5f - s.y;
        const vec sigma = s.opacity * exp_negative(power_at(&s, dx, dy));
        vec alpha = select(sigma > MAX_ALPHA, zero + MAX_ALPHA, sigma);
        alpha = select(alpha < MIN_ALPHA, zero, alpha * live[row]);
        const vec after = T[row] * (1.0f - alpha);
        const ivec finished = after <= MIN_TRANSMITTANCE;
        const vec weight = select(finished, zero, alpha * T[row]);
        live[row] = select(finished, zero, live[row]);
        T[row] = select(finished, T[row], after);
        final[row] = (ivec)select(weight > 0.0f, (vec)entry, (vec)final[row]);
        for (int c = 0; c < CHANNELS; c++)
          sum[c][row] += weight * f[c];
      }
      if (k % 32 == 31) { // looking after every Gaussian would cost more than it saves
        vec any = zero;
        for (int row = 0; row < TILE; row++)
          any += live[row];
        if (sum_of(any) == 0.0f)
          break;
      }
    }
    for (int64_t y = y0; y < y0 + TILE && y < height; y++)
      for (int64_t x = x0; x < x0 + TILE && x < width; x++) {
        const int64_t pixel = y * width + x;
        for (int c = 0; c < CHANNELS; c++)
          image[c * area + pixel] = sum[c][y - y0][x - x0];
        transmittance[pixel] = T[y - y0][x - x0];
        last[pixel] = final[y - y0][x - x0];
      }
  }
}

// Gradients for every Gaussian, from those of `image` and of alpha = 1 - transmittance.
//
//   scratch [M, 10]  room for one gradient per entry; adding them up afterwards, Gaussian by
//                    Gaussian, needs no atomics and gives the same sum with any number of threads
//   grads   [N, 10]  means2d x y, conic xx xy yy, opacity, features 4
void splat_backward(const float *means2d, const float *conics, const float *opacities,
                    const float *radii, const float *features, const int64_t *splat_ids,
                    const int64_t *offsets, const int64_t *slots, const int64_t *firsts,
                    int64_t num_splats, int64_t width, int64_t height, int num_threads,
                    const float *transmittance, const int32_t *last, const float *grad_image,
                    const float *grad_alpha, float *scratch, float *grads) {
  const int64_t tiles_x = (width + TILE - 1) / TILE, tiles_y = (height + TILE - 1) / TILE;
  const int64_t area = width * height;
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads)
  for (int64_t tile = 0; tile < tiles_x * tiles_y; tile++) {
    const int64_t x0 = (tile % tiles_x) * TILE, y0 = (tile / tiles_x) * TILE;
    vec T[TILE], g[CHANNELS][TILE];
    vec behind[TILE]; // what all that lies behind adds to the loss, to first order
    ivec final[TILE];
    const vec zero = {0};
    memset(g, 0, sizeof g);
    memset(behind, 0, sizeof behind);
    memset(final, 0, sizeof final);
    for (int row = 0; row < TILE; row++)
      T[row] = zero + 1.0f;
    int32_t deepest = 0;
    for (int64_t y = y0; y < y0 + TILE && y < height; y++)
      for (int64_t x = x0; x < x0 + TILE && x < width; x++) {
        const int64_t pixel = y * width + x, row = y - y0, column = x - x0;
        T[row][column] = transmittance[pixel];
        final[row][column] = last[pixel];
        deepest = last[pixel] > deepest ? last[pixel] : deepest;
        for (int c = 0; c < CHANNELS; c++)
          g[c][row][column] = grad_image[c * area + pixel];
        behind[row][column] = -grad_alpha[pixel] * transmittance[pixel];
      }
    const int64_t begin = offsets[tile], count = offsets[tile + 1] - begin;
    for (int64_t k = deepest; k < count; k++)
      memset(scratch + GRADIENTS * slots[begin + k], 0, GRADIENTS * sizeof(float));
    for (int64_t k = (int64_t)deepest - 1; k >= 0; k--) {
      const int64_t id = splat_ids[begin + k];
      const Splat s = load_splat(means2d, conics, opacities, radii, id, y0);
      const float *f = features + CHANNELS * id;
      const vec dx = (float)x0 + 0.5f - s.x + COLUMNS;
      // Sums over the rows; those over the columns follow at the end.
      vec px = zero, py = zero, pxx = zero, pxy = zero, pyy = zero, so = zero;
      vec s0 = zero, s1 = zero, s2 = zero, s3 = zero;
      for (int row = s.first_row; row <= s.last_row; row++) {
        const float dy = (float)(y0 + row) + 0.5f - s.y;
        const vec density = exp_negative(power_at(&s, dx, dy));
        const vec sigma = s.opacity * density;
        vec alpha = select(sigma > MAX_ALPHA, zero + MAX_ALPHA, sigma);
        alpha = select((alpha < MIN_ALPHA) | (final[row] <= (int32_t)k), zero, alpha);
        const vec inverse = 1.0f / (1.0f - alpha);
        const vec before = T[row] * inverse, weight = alpha * before;
        const vec g0 = g[0][row], g1 = g[1][row], g2 = g[2][row], g3 = g[3][row];
        const vec value = f[0] * g0 + f[1] * g1 + f[2] * g2 + f[3] * g3;
        vec grad = value * before - behind[row] * inverse; // dL / dalpha
        grad = select((alpha > 0.0f) & (sigma <= MAX_ALPHA), grad, zero);
        behind[row] += weight * value;
        T[row] = before;
        const vec grad_power = -grad * sigma;
        const vec grad_power_x = grad_power * dx;
        px += grad_power_x;
        py += grad_power * dy;
        pxx += grad_power_x * dx;
        pxy += grad_power_x * dy;
        pyy += grad_power * (dy * dy);
        so += grad * density;
        s0 += weight * g0;
        s1 += weight * g1;
        s2 += weight * g2;
        s3 += weight * g3;
      }
      // power = a dx^2 / 2 + b dx dy + c dy^2 / 2, and the centre enters dx and dy with a minus.
      const float x = sum_of(px), y = sum_of(py);
      const float sums[GRADIENTS] = {
          -(2.0f * s.half_a * x + s.b * y), -(2.0f * s.half_c * y + s.b * x),
          0.5f * sum_of(pxx), sum_of(pxy), 0.5f * sum_of(pyy), sum_of(so),
          sum_of(s0), sum_of(s1), sum_of(s2), sum_of(s3)};
      memcpy(scratch + GRADIENTS * slots[begin + k], sums, sizeof sums);
    }
  }
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int64_t id = 0; id < num_splats; id++) {
    float total[GRADIENTS] = {0};
    for (int64_t slot = firsts[id]; slot < firsts[id + 1]; slot++)
      for (int j = 0; j < GRADIENTS; j++)
        total[j] += scratch[GRADIENTS * slot + j];
    memcpy(grads + GRADIENTS * id, total, sizeof total);
  }
}
