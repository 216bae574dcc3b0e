"""The ray casting backend: embreex and numpy, for machines without OpenGL."""

from typing import Any

import numpy as np

from hi3d.assets.parts import RenderObject, Sampler
from hi3d.color import linear_from_srgb, srgb_from_linear
from hi3d.rendering.material_groups import MaterialGroup, material_groups
from hi3d.rendering.shading import MIN_ALPHA, Drawing, Shading, empty_drawing, key_light

MAX_LAYERS = 32  # see-through surfaces along one ray
STEP = 1e-4  # from a see-through hit to the start of the next ray, in world units


class RayScene:
    """One object, ready to be hit by rays."""

    def __init__(self, render_object: RenderObject, shading: Shading = "unlit") -> None:
        self.shading = shading
        self.groups = material_groups(render_object.parts)
        vertices = [group.vertices for group in self.groups]
        offsets = np.cumsum([0] + [len(v) for v in vertices])
        self.vertices = np.concatenate(vertices)
        self.faces = np.concatenate(
            [group.faces + o for group, o in zip(self.groups, offsets, strict=False)]
        )
        self.uvs = np.concatenate([group.uvs for group in self.groups])
        self.linear_rgba = np.concatenate([group.linear_rgba for group in self.groups])
        counts = [len(group.faces) for group in self.groups]
        self.group_of_face = np.repeat(np.arange(len(self.groups)), counts)
        self.pyramids = _pyramids(self.groups)
        self.texel_density = self._texel_density()
        self.single_sided = np.repeat([group.single_sided for group in self.groups], counts)
        self.scene: Any = None

    def look_from(self, eye: np.ndarray) -> None:
        """Take the triangles that show in rays from `eye`: no backs of single-sided ones."""
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        if self.scene is not None and not self.single_sided.any():
            return
        a, b, c = self.vertices[self.faces].astype(np.float64).transpose(1, 0, 2)
        turned_away = (np.cross(b - a, c - a) * (eye - a)).sum(axis=1) <= 0
        self.shown = np.flatnonzero(~(self.single_sided & turned_away))
        self.scene = EmbreeScene()
        TriangleMesh(self.scene, self.vertices[self.faces[self.shown]].astype(np.float32))

    def _texel_density(self) -> np.ndarray:
        """Level-0 texels per world unit, of each face. [F]"""
        a, b, c = self.vertices[self.faces].transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
        (u1, v1), (u2, v2) = (self.uvs[self.faces][:, 1:] - self.uvs[self.faces][:, :1]).transpose(
            1, 2, 0
        )
        texels = np.array(
            [1 if b.texture is None else np.prod(b.texture.shape[:2]) for b in self.groups]
        )
        return np.sqrt(
            np.abs(u1 * v2 - u2 * v1) * texels[self.group_of_face] / np.maximum(area, 1e-12)
        )

    def cast(
        self, origin: np.ndarray, directions: np.ndarray, footprint: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Follow rays until nothing behind can show.

        Args:
            origin: [3] where all rays start, and where the scene is looked at from.
            directions: [N, 3], of any length.
            footprint: width of a ray at distance 1 along `directions`, in world units.

        Returns:
            premultiplied [N, 4] sRGB with alpha, [N] distance to the first surface in units of
            `directions`, 0 where there is none, and [N] its face, -1 where there is none.
        """
        premultiplied = np.zeros((len(directions), 4), np.float32)
        first_hit = np.zeros(len(directions), np.float32)
        first_face = np.full(len(directions), -1)
        active = np.arange(len(directions) if len(self.shown) else 0)
        start = np.zeros(len(directions), np.float32)
        for _ in range(MAX_LAYERS if len(active) else 0):
            rays = directions[active].astype(np.float32)
            origins = (origin + start[active, None] * rays).astype(np.float32)
            hit = self.scene.run(origins, rays, query="INTERSECT", output=True)
            found = hit["primID"] >= 0
            active, face = active[found], self.shown[hit["primID"][found]]
            if not len(active):
                break
            distance = start[active] + hit["tfar"][found]
            srgb, alpha = self._shade(
                face, hit["u"][found], hit["v"][found], distance * footprint, rays[found]
            )
            first = (alpha > 0) & (first_face[active] < 0)
            first_hit[active[first]] = distance[first]
            first_face[active[first]] = face[first]
            weight = alpha * (1 - premultiplied[active, 3])
            premultiplied[active, :3] += weight[:, None] * srgb
            premultiplied[active, 3] += weight
            start[active] = distance + STEP
            active = active[premultiplied[active, 3] < 1 - MIN_ALPHA]
            if not len(active):
                break
        return premultiplied, first_hit, first_face

    def normals(self, face: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Unit normals of faces, turned against the rays that hit them. [N, 3]"""
        a, b, c = self.vertices[self.faces[face]].astype(np.float64).transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)
        away = (normals * directions).sum(axis=-1, keepdims=True) > 0
        return np.where(away, -normals, normals).astype(np.float32)

    def _shade(
        self,
        face: np.ndarray,
        u: np.ndarray,
        v: np.ndarray,
        footprint: np.ndarray,
        directions: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Color [N, 3] in sRGB and alpha [N] of hits with barycentric u, v and ray width."""
        weights = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
        corners = self.faces[face]
        light = (weights * self.linear_rgba[corners]).sum(axis=1).clip(0, 1)
        uv = (weights * self.uvs[corners]).sum(axis=1)
        group_of_hit = self.group_of_face[face]
        level = np.log2(np.maximum(footprint * self.texel_density[face], 1)).round().astype(int)
        alpha = np.ones(len(face), np.float32)
        for index in np.unique(group_of_hit):
            group, hits = self.groups[index], np.flatnonzero(group_of_hit == index)
            if group.texture is not None:
                # Averaged alpha would thin out masks (nets, leaves) with distance.
                levels = np.zeros_like(level[hits]) if group.alpha_mode == "MASK" else level[hits]
                pyramid = self.pyramids[id(group.texture)]
                light[hits] *= _sample(pyramid, uv[hits], levels, group.sampler)
            if group.alpha_mode == "BLEND":
                alpha[hits] = np.where(light[hits, 3] < MIN_ALPHA, 0, light[hits, 3])
            elif group.alpha_mode == "MASK":
                alpha[hits] = light[hits, 3] >= max(group.alpha_cutoff, MIN_ALPHA)
        if self.shading == "key":
            light[:, :3] *= key_light(self.normals(face, directions))[:, None]
        return srgb_from_linear(light)[:, :3], alpha


def draw(
    render_object: RenderObject,
    viewmats: np.ndarray,  # [V, 4, 4]
    Ks: np.ndarray,  # [V, 3, 3]
    width: int,
    height: int,
    supersampling: int = 2,
    shading: Shading = "unlit",
    normals: bool = False,
) -> Drawing:
    """Draw all views of one object.

    Args:
        viewmats: [V, 4, 4] world-to-camera, OpenCV axes.
        Ks: [V, 3, 3] in pixels.
        width: of the images.
        height: of the images.
        supersampling: S, a pixel's color is the mean of S x S rays.
        shading: see `hi3d.rendering.shading`.
        normals: also draw normals.
    """
    scene = RayScene(render_object, shading)
    drawing = empty_drawing(len(viewmats), width, height, normals)
    offsets = (np.arange(supersampling) + 0.5) / supersampling
    for view, (viewmat, K) in enumerate(zip(viewmats, Ks, strict=True)):
        world_from_pixel = viewmat[:3, :3].T @ np.linalg.inv(K)
        origin = -viewmat[:3, :3].T @ viewmat[:3, 3]
        scene.look_from(origin)
        width_at_1 = 1 / np.sqrt(K[0, 0] * K[1, 1])

        def directions(dx: float, dy: float, matrix: np.ndarray = world_from_pixel) -> np.ndarray:
            y, x = np.mgrid[:height, :width].astype(np.float64)
            return np.stack([x + dx, y + dy, np.ones_like(x)], axis=-1).reshape(-1, 3) @ matrix.T

        premultiplied = np.zeros((height * width, 4), np.float32)
        for dy in offsets:
            for dx in offsets:
                rgba, _, _ = scene.cast(origin, directions(dx, dy), width_at_1 / supersampling)
                premultiplied += rgba / supersampling**2
        premultiplied[:, :3] += 1 - premultiplied[:, 3:]
        pixels = (premultiplied.clip(0, 1) * 255).round()
        drawing.rgba8[view] = pixels.reshape(height, width, 4)
        # Directions have length 1 along the camera's z axis, so distances along them are depths.
        rays = directions(0.5, 0.5)
        _, depth, face = scene.cast(origin, rays, width_at_1)
        drawing.depth[view] = depth.reshape(height, width)
        if drawing.normals is not None:
            hit = face >= 0
            drawing.normals[view][hit.reshape(height, width)] = scene.normals(face[hit], rays[hit])
    return drawing


def _pyramids(groups: list[MaterialGroup]) -> dict[int, list[np.ndarray]]:
    """Box-filtered levels of each texture, in linear light, by the texture's id."""
    pyramids: dict[int, list[np.ndarray]] = {}
    for group in groups:
        if group.texture is None or id(group.texture) in pyramids:
            continue
        levels = [linear_from_srgb(group.texture.astype(np.float32) / 255)]
        while min(levels[-1].shape[:2]) > 1:
            height, width = (side // 2 for side in levels[-1].shape[:2])
            even = levels[-1][: 2 * height, : 2 * width]
            levels.append(even.reshape(height, 2, width, 2, 4).mean(axis=(1, 3)))
        pyramids[id(group.texture)] = levels
    return pyramids


def _sample(
    pyramid: list[np.ndarray], uv: np.ndarray, level: np.ndarray, sampler: Sampler
) -> np.ndarray:
    """Lookup at the nearest level. Returns [N, 4] in linear light."""
    level = level.clip(0, len(pyramid) - 1)
    rgba = np.empty((len(uv), 4), np.float32)
    for index in np.unique(level):
        texels, hits = pyramid[index], np.flatnonzero(level == index)
        height, width = texels.shape[:2]
        x = uv[hits, 0] * width - 0.5
        y = (1 - uv[hits, 1]) * height - 0.5
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        if sampler.nearest and index == 0:
            fx, fy = fx >= 0.5, fy >= 0.5
        rows = [sampler.indices(top + step, height, 1) for step in (0, 1)]
        columns = [sampler.indices(left + step, width, 0) for step in (0, 1)]
        upper = texels[rows[0], columns[0]] * (1 - fx) + texels[rows[0], columns[1]] * fx
        lower = texels[rows[1], columns[0]] * (1 - fx) + texels[rows[1], columns[1]] * fx
        rgba[hits] = upper * (1 - fy) + lower * fy
    return rgba
