"""The ray casting backend: embreex and numpy, for machines without OpenGL."""

import numpy as np

from hi3d.rendering.batches import Batch, batches
from hi3d.rendering.objects import RenderObject, linear_from_srgb, srgb_from_linear

MAX_LAYERS = 32  # see-through surfaces along one ray
MIN_ALPHA = 1 / 255  # fainter points neither show nor count as surface
STEP = 1e-4  # from a see-through hit to the start of the next ray, in world units


class RayScene:
    """One object, ready to be hit by rays."""

    def __init__(self, render_object: RenderObject) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.batches = batches(render_object.parts)
        vertices = [batch.vertices for batch in self.batches]
        offsets = np.cumsum([0] + [len(v) for v in vertices])
        self.vertices = np.concatenate(vertices)
        self.faces = np.concatenate(
            [batch.faces + o for batch, o in zip(self.batches, offsets, strict=False)]
        )
        self.uvs = np.concatenate([batch.uvs for batch in self.batches])
        self.linear_rgba = np.concatenate([batch.linear_rgba for batch in self.batches])
        counts = [len(batch.faces) for batch in self.batches]
        self.batch_of_face = np.repeat(np.arange(len(self.batches)), counts)
        self.pyramids = _pyramids(self.batches)
        self.texel_density = self._texel_density()
        self.scene = EmbreeScene()
        TriangleMesh(self.scene, self.vertices[self.faces].astype(np.float32))

    def _texel_density(self) -> np.ndarray:
        """Level-0 texels per world unit, of each face. [F]"""
        a, b, c = self.vertices[self.faces].transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
        (u1, v1), (u2, v2) = (self.uvs[self.faces][:, 1:] - self.uvs[self.faces][:, :1]).transpose(
            1, 2, 0
        )
        texels = np.array(
            [1 if b.texture is None else np.prod(b.texture.shape[:2]) for b in self.batches]
        )
        return np.sqrt(
            np.abs(u1 * v2 - u2 * v1) * texels[self.batch_of_face] / np.maximum(area, 1e-12)
        )

    def cast(
        self, origin: np.ndarray, directions: np.ndarray, footprint: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Follow rays until nothing behind can show.

        Args:
            origin: [3] where all rays start.
            directions: [N, 3], of any length.
            footprint: width of a ray at distance 1 along `directions`, in world units.

        Returns:
            premultiplied [N, 4] sRGB with alpha, and [N] distance to the first surface in units of
            `directions`, 0 where there is none.
        """
        premultiplied = np.zeros((len(directions), 4), np.float32)
        first_hit = np.zeros(len(directions), np.float32)
        active = np.arange(len(directions))
        start = np.zeros(len(directions), np.float32)
        for _ in range(MAX_LAYERS):
            rays = directions[active].astype(np.float32)
            origins = (origin + start[active, None] * rays).astype(np.float32)
            hit = self.scene.run(origins, rays, query="INTERSECT", output=True)
            found = hit["primID"] >= 0
            active, face = active[found], hit["primID"][found]
            if not len(active):
                break
            distance = start[active] + hit["tfar"][found]
            srgb, alpha = self._shade(face, hit["u"][found], hit["v"][found], distance * footprint)
            seen = alpha > 0
            first_hit[active] = np.where(
                seen & (first_hit[active] == 0), distance, first_hit[active]
            )
            weight = alpha * (1 - premultiplied[active, 3])
            premultiplied[active, :3] += weight[:, None] * srgb
            premultiplied[active, 3] += weight
            start[active] = distance + STEP
            active = active[premultiplied[active, 3] < 1 - MIN_ALPHA]
            if not len(active):
                break
        return premultiplied, first_hit

    def _shade(
        self, face: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Base colour [N, 3] in sRGB and alpha [N] of hits with barycentric u, v and ray width."""
        weights = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
        corners = self.faces[face]
        light = (weights * self.linear_rgba[corners]).sum(axis=1).clip(0, 1)
        uv = (weights * self.uvs[corners]).sum(axis=1)
        batch_of_hit = self.batch_of_face[face]
        level = np.log2(np.maximum(footprint * self.texel_density[face], 1)).round().astype(int)
        alpha = np.ones(len(face), np.float32)
        for index in np.unique(batch_of_hit):
            batch, hits = self.batches[index], np.flatnonzero(batch_of_hit == index)
            if batch.texture is not None:
                # Averaged alpha would thin out masks (nets, leaves) with distance.
                levels = np.zeros_like(level[hits]) if batch.alpha_mode == "MASK" else level[hits]
                light[hits] *= _sample(self.pyramids[id(batch.texture)], uv[hits], levels)
            if batch.alpha_mode == "BLEND":
                alpha[hits] = np.where(light[hits, 3] < MIN_ALPHA, 0, light[hits, 3])
            elif batch.alpha_mode == "MASK":
                alpha[hits] = light[hits, 3] >= max(batch.alpha_cutoff, MIN_ALPHA)
        return srgb_from_linear(light)[:, :3], alpha


def draw(
    render_object: RenderObject,
    viewmats: np.ndarray,  # [V, 4, 4]
    Ks: np.ndarray,  # [V, 3, 3]
    width: int,
    height: int,
    supersampling: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all views of one object.

    Args:
        viewmats: [V, 4, 4] world-to-camera, OpenCV axes.
        Ks: [V, 3, 3] in pixels.
        width: of the images.
        height: of the images.
        supersampling: S, a pixel's colour is the mean of S x S rays.

    Returns:
        premultiplied [V, H, W, 4] sRGB in [0, 1] with alpha, and depth [V, H, W] at pixel centres,
        0 where empty.
    """
    scene = RayScene(render_object)
    premultiplied = np.zeros((len(viewmats), height, width, 4), np.float32)
    depth = np.zeros((len(viewmats), height, width), np.float32)
    offsets = (np.arange(supersampling) + 0.5) / supersampling
    for view, (viewmat, K) in enumerate(zip(viewmats, Ks, strict=True)):
        world_from_pixel = viewmat[:3, :3].T @ np.linalg.inv(K)
        origin = -viewmat[:3, :3].T @ viewmat[:3, 3]
        width_at_1 = 1 / np.sqrt(K[0, 0] * K[1, 1])

        def directions(dx: float, dy: float, matrix: np.ndarray = world_from_pixel) -> np.ndarray:
            y, x = np.mgrid[:height, :width].astype(np.float64)
            return np.stack([x + dx, y + dy, np.ones_like(x)], axis=-1).reshape(-1, 3) @ matrix.T

        for dy in offsets:
            for dx in offsets:
                rgba, _ = scene.cast(origin, directions(dx, dy), width_at_1 / supersampling)
                premultiplied[view] += rgba.reshape(height, width, 4) / supersampling**2
        # Directions have length 1 along the camera's z axis, so distances along them are depths.
        _, hits = scene.cast(origin, directions(0.5, 0.5), width_at_1)
        depth[view] = hits.reshape(height, width)
    return premultiplied, depth


def _pyramids(all_batches: list[Batch]) -> dict[int, list[np.ndarray]]:
    """Box-filtered levels of each texture, in linear light, by the texture's id."""
    pyramids: dict[int, list[np.ndarray]] = {}
    for batch in all_batches:
        if batch.texture is None or id(batch.texture) in pyramids:
            continue
        levels = [linear_from_srgb(batch.texture.astype(np.float32) / 255)]
        while min(levels[-1].shape[:2]) > 1:
            height, width = (side // 2 for side in levels[-1].shape[:2])
            even = levels[-1][: 2 * height, : 2 * width]
            levels.append(even.reshape(height, 2, width, 2, 4).mean(axis=(1, 3)))
        pyramids[id(batch.texture)] = levels
    return pyramids


def _sample(pyramid: list[np.ndarray], uv: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Bilinear lookup with repetition, at the nearest level. Returns [N, 4] in linear light."""
    level = level.clip(0, len(pyramid) - 1)
    rgba = np.empty((len(uv), 4), np.float32)
    for index in np.unique(level):
        texels, hits = pyramid[index], np.flatnonzero(level == index)
        height, width = texels.shape[:2]
        x = uv[hits, 0] * width - 0.5
        y = (1 - uv[hits, 1]) * height - 0.5
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
        upper = texels[rows[0], columns[0]] * (1 - fx) + texels[rows[0], columns[1]] * fx
        lower = texels[rows[1], columns[0]] * (1 - fx) + texels[rows[1], columns[1]] * fx
        rgba[hits] = upper * (1 - fy) + lower * fy
    return rgba
