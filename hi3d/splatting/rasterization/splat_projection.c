// EWA projection of Gaussians and its gradient.
//
// The same computation as `project_splats` of hi3d/splatting/rasterization/projection.py, which
// explains it and gives the sources. Arrays are contiguous:
//   means [N, 3], quats [N, 4] wxyz, scales [N, 3], opacities [N]
//   viewmats [V, 4, 4], Ks [V, 3, 3]
//   means2d [V, N, 2], conics [V, N, 3], depths [V, N], projected_opacities [V, N], radii [V, N, 2]

#include <math.h>
#include <stdint.h>
#include <string.h>

// The constants of projection.py.
static const float NEAR_PLANE = 0.01f;
static const float DILATION = 0.3f;
static const float MIN_ALPHA = 1.0f / 255.0f;
static const float BORDER = 0.15f; // of the image's size, beyond which slopes are clamped

typedef struct {
  const float *R, *t; // rows of the rotation stand 4 apart, entries of the translation too
  float fx, fy, cx, cy;
  float slope_low[2], slope_high[2];
} Camera;

typedef struct {
  float local[3], z; // z: the depth, or 1 behind the near plane
  int in_front;
  float slope[2];       // clamped x / z and y / z
  int slope_is_free[2]; // whether they were not clamped
  float row[2][3];      // of the Jacobian times the rotation
  float along[2][3];    // those rows times the rotation of the Gaussian
  float axes[2][3];     // and times its standard deviations
  float normal[3], xx, xy, yy, area, determinant;
} Projection;

static Camera load_camera(const float *viewmats, const float *Ks, int64_t view, int64_t width,
                          int64_t height) {
  const float *m = viewmats + 16 * view, *K = Ks + 9 * view;
  Camera c = {.R = m, .t = m + 3, .fx = K[0], .fy = K[4], .cx = K[2], .cy = K[5]};
  const float margin_x = BORDER * (float)width / c.fx, margin_y = BORDER * (float)height / c.fy;
  c.slope_low[0] = -c.cx / c.fx - margin_x;
  c.slope_high[0] = ((float)width - c.cx) / c.fx + margin_x;
  c.slope_low[1] = -c.cy / c.fy - margin_y;
  c.slope_high[1] = ((float)height - c.cy) / c.fy + margin_y;
  return c;
}

// The rotation of a quaternion of any length but zero; returns the length.
static float rotation_of(const float *quat, float unit[4], float Q[3][3]) {
  float square = 0;
  for (int i = 0; i < 4; i++)
    square += quat[i] * quat[i];
  const float length = sqrtf(square);
  for (int i = 0; i < 4; i++)
    unit[i] = quat[i] / length;
  const float w = unit[0], x = unit[1], y = unit[2], z = unit[3];
  const float rows[3][3] = {
      {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
      {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
      {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}};
  memcpy(Q, rows, sizeof rows);
  return length;
}

static Projection project_one(const Camera *c, const float *mean, float Q[3][3],
                              const float *scale) {
  Projection p;
  for (int i = 0; i < 3; i++)
    p.local[i] = c->R[4 * i] * mean[0] + c->R[4 * i + 1] * mean[1] + c->R[4 * i + 2] * mean[2] +
                 c->t[4 * i];
  p.in_front = p.local[2] > NEAR_PLANE;
  p.z = p.in_front ? p.local[2] : 1.0f;
  const float focal[2] = {c->fx, c->fy};
  for (int i = 0; i < 2; i++) {
    const float slope = p.local[i] / p.z;
    p.slope_is_free[i] = slope >= c->slope_low[i] && slope <= c->slope_high[i];
    p.slope[i] = fminf(fmaxf(slope, c->slope_low[i]), c->slope_high[i]);
    for (int j = 0; j < 3; j++)
      p.row[i][j] = focal[i] / p.z * (c->R[4 * i + j] - p.slope[i] * c->R[8 + j]);
    for (int k = 0; k < 3; k++) {
      p.along[i][k] = p.row[i][0] * Q[0][k] + p.row[i][1] * Q[1][k] + p.row[i][2] * Q[2][k];
      p.axes[i][k] = scale[k] * p.along[i][k];
    }
  }
  const float *a = p.axes[0], *b = p.axes[1];
  p.xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2];
  p.yy = b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
  p.xy = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  p.normal[0] = a[1] * b[2] - a[2] * b[1];
  p.normal[1] = a[2] * b[0] - a[0] * b[2];
  p.normal[2] = a[0] * b[1] - a[1] * b[0];
  p.area = p.normal[0] * p.normal[0] + p.normal[1] * p.normal[1] + p.normal[2] * p.normal[2];
  p.determinant = p.area + DILATION * (p.xx + p.yy) + DILATION * DILATION;
  p.xx += DILATION;
  p.yy += DILATION;
  return p;
}

void splat_project(const float *means, const float *quats, const float *scales,
                   const float *opacities, const float *viewmats, const float *Ks,
                   int64_t num_splats, int64_t num_views, int64_t width, int64_t height,
                   int num_threads, float *means2d, float *conics, float *depths,
                   float *projected_opacities, float *radii) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int64_t n = 0; n < num_splats; n++) {
    float unit[4], Q[3][3];
    rotation_of(quats + 4 * n, unit, Q);
    for (int64_t view = 0; view < num_views; view++) {
      const Camera c = load_camera(viewmats, Ks, view, width, height);
      const Projection p = project_one(&c, means + 3 * n, Q, scales + 3 * n);
      const int64_t at = view * num_splats + n;
      const float x = c.fx * p.local[0] / p.z + c.cx, y = c.fy * p.local[1] / p.z + c.cy;
      const float opacity = opacities[n];
      means2d[2 * at] = x;
      means2d[2 * at + 1] = y;
      conics[3 * at] = p.yy / p.determinant;
      conics[3 * at + 1] = -p.xy / p.determinant;
      conics[3 * at + 2] = p.xx / p.determinant;
      depths[at] = p.local[2];
      projected_opacities[at] = opacity;
      const float power = logf(fmaxf(opacity / MIN_ALPHA, 1.0f));
      const float rx = sqrtf(2 * power * p.xx), ry = sqrtf(2 * power * p.yy);
      const int seen = p.in_front && power > 0 && x + rx > 0 && x - rx < (float)width &&
                       y + ry > 0 && y - ry < (float)height;
      radii[2 * at] = seen ? rx : 0.0f;
      radii[2 * at + 1] = seen ? ry : 0.0f;
    }
  }
}

// Adds to `grad_local` and `grad_Q` and `grad_scale` what the ellipse depends on, given the
// gradient of its conic.
static void ellipse_backward(const Camera *c, const Projection *p, float Q[3][3],
                             const float *scale, const float *grad_conic, float grad_local[3],
                             float grad_Q[3][3], float grad_scale[3]) {
  const float inverse = 1 / p->determinant;
  const float grad_determinant =
      -(grad_conic[0] * p->yy - grad_conic[1] * p->xy + grad_conic[2] * p->xx) * inverse * inverse;
  const float grad_xx = grad_conic[2] * inverse + DILATION * grad_determinant;
  const float grad_yy = grad_conic[0] * inverse + DILATION * grad_determinant;
  const float grad_xy = -grad_conic[1] * inverse;
  const float *a = p->axes[0], *b = p->axes[1], *n = p->normal;
  // Of |a x b|^2: b x n and n x a.
  const float turned[2][3] = {
      {b[1] * n[2] - b[2] * n[1], b[2] * n[0] - b[0] * n[2], b[0] * n[1] - b[1] * n[0]},
      {n[1] * a[2] - n[2] * a[1], n[2] * a[0] - n[0] * a[2], n[0] * a[1] - n[1] * a[0]}};
  float grad_row[2][3] = {{0}};
  for (int k = 0; k < 3; k++) {
    const float grad_axes[2] = {
        2 * grad_xx * a[k] + grad_xy * b[k] + 2 * grad_determinant * turned[0][k],
        2 * grad_yy * b[k] + grad_xy * a[k] + 2 * grad_determinant * turned[1][k]};
    for (int i = 0; i < 2; i++) {
      grad_scale[k] += grad_axes[i] * p->along[i][k];
      for (int j = 0; j < 3; j++) {
        grad_row[i][j] += grad_axes[i] * scale[k] * Q[j][k];
        grad_Q[j][k] += grad_axes[i] * scale[k] * p->row[i][j];
      }
    }
  }
  const float focal[2] = {c->fx, c->fy};
  for (int i = 0; i < 2; i++) {
    float toward_row = 0, toward_depth = 0;
    for (int j = 0; j < 3; j++) {
      toward_row += grad_row[i][j] * p->row[i][j];
      toward_depth += grad_row[i][j] * c->R[8 + j];
    }
    grad_local[2] -= toward_row / p->z;
    if (!p->slope_is_free[i])
      continue;
    const float grad_slope = -focal[i] / p->z * toward_depth;
    grad_local[i] += grad_slope / p->z;
    grad_local[2] -= grad_slope * p->slope[i] / p->z;
  }
}

// From the gradient of the rotation matrix to that of the quaternion.
static void rotation_backward(const float q[4], float length, float g[3][3], float grad_quat[4]) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  const float unit[4] = {
      2 * (x * (g[2][1] - g[1][2]) + y * (g[0][2] - g[2][0]) + z * (g[1][0] - g[0][1])),
      2 * (y * (g[0][1] + g[1][0]) + z * (g[0][2] + g[2][0]) + w * (g[2][1] - g[1][2])) -
          4 * x * (g[1][1] + g[2][2]),
      2 * (x * (g[0][1] + g[1][0]) + z * (g[1][2] + g[2][1]) + w * (g[0][2] - g[2][0])) -
          4 * y * (g[0][0] + g[2][2]),
      2 * (x * (g[0][2] + g[2][0]) + y * (g[1][2] + g[2][1]) + w * (g[1][0] - g[0][1])) -
          4 * z * (g[0][0] + g[1][1])};
  const float outward = unit[0] * w + unit[1] * x + unit[2] * y + unit[3] * z;
  for (int i = 0; i < 4; i++)
    grad_quat[i] = (unit[i] - outward * q[i]) / length;
}

void splat_project_backward(const float *means, const float *quats, const float *scales,
                            const float *opacities, const float *viewmats, const float *Ks,
                            int64_t num_splats, int64_t num_views, int64_t width, int64_t height,
                            int num_threads, const float *grad_means2d,
                            const float *grad_conics, const float *grad_depths,
                            const float *grad_projected_opacities, float *grad_means,
                            float *grad_quats, float *grad_scales, float *grad_opacities) {
#pragma omp parallel for schedule(static) num_threads(num_threads)
  for (int64_t n = 0; n < num_splats; n++) {
    float unit[4], Q[3][3], grad_mean[3] = {0}, grad_Q[3][3] = {{0}}, grad_scale[3] = {0};
    float grad_opacity = 0;
    const float *scale = scales + 3 * n;
    const float length = rotation_of(quats + 4 * n, unit, Q);
    for (int64_t view = 0; view < num_views; view++) {
      const Camera c = load_camera(viewmats, Ks, view, width, height);
      const Projection p = project_one(&c, means + 3 * n, Q, scale);
      const int64_t at = view * num_splats + n;
      grad_opacity += grad_projected_opacities[at];
      const float gx = grad_means2d[2 * at] * c.fx / p.z;
      const float gy = grad_means2d[2 * at + 1] * c.fy / p.z;
      float grad_local[3] = {gx, gy, -(gx * p.local[0] + gy * p.local[1]) / p.z};
      ellipse_backward(&c, &p, Q, scale, grad_conics + 3 * at, grad_local, grad_Q, grad_scale);
      if (!p.in_front) // z was not the depth
        grad_local[2] = 0;
      grad_local[2] += grad_depths[at];
      for (int j = 0; j < 3; j++)
        for (int i = 0; i < 3; i++)
          grad_mean[j] += c.R[4 * i + j] * grad_local[i];
    }
    memcpy(grad_means + 3 * n, grad_mean, sizeof grad_mean);
    memcpy(grad_scales + 3 * n, grad_scale, sizeof grad_scale);
    rotation_backward(unit, length, grad_Q, grad_quats + 4 * n);
    grad_opacities[n] = grad_opacity;
  }
}
