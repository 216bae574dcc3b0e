"""The OpenGL backend: moderngl on a standalone EGL context, in hardware or with llvmpipe."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from hi3d.assets.parts import RenderObject
from hi3d.errors import InputError
from hi3d.rendering.material_groups import MaterialGroup, material_groups
from hi3d.rendering.opengl.context import compiled_program, current, opengl_error
from hi3d.rendering.opengl.projection import hidden_side, projection, visible_region
from hi3d.rendering.opengl.shaders import (
    OPAQUE_ALPHA,
    TRIANGLE_VERTEX_SHADER,
    average_shader,
    shader_sources,
)
from hi3d.rendering.shading import MIN_ALPHA, Drawing, Shading, empty_drawing

SRGB8_ALPHA8 = 0x8C43  # GL_SRGB8_ALPHA8: texels are decoded to linear light before filtering
MSAA_SAMPLES = 4  # more is not to be had from llvmpipe
NO_MAX_ALPHA = 2.0
BACK_SIDE = "front"
"""What GL calls the back of counter-clockwise triangles in images whose row 0 is at the top."""

Owned = Callable[[Any], Any]
"""Registers a GL resource for release and returns it."""


def draw(
    render_object: RenderObject,
    viewmats: np.ndarray,  # [V, 4, 4]
    Ks: np.ndarray,  # [V, 3, 3]
    width: int,
    height: int,
    supersampling: int = 1,
    shading: Shading = "unlit",
    normals: bool = False,
) -> Drawing:
    """Draw all views of one object; its GL resources are released before returning.

    Only the part of each image that the object's vertices span is drawn and read back.

    Args:
        viewmats: [V, 4, 4] world-to-camera, OpenCV axes.
        Ks: [V, 3, 3] in pixels.
        width: of the images.
        height: of the images.
        supersampling: S, images are drawn S times as wide and high, with 4 samples per pixel.
        shading: see `hi3d.rendering.shading`.
        normals: also draw normals.

    Raises:
        InputError: there is no OpenGL, or the images are too large for it.
    """
    if error := opengl_error():
        raise InputError(f"no OpenGL ({error}): install libegl1 + libgl1-mesa-dri or use embreex")
    gl = current.gl
    drawing = empty_drawing(len(viewmats), width, height, normals)
    points = render_object.points.astype(np.float64)
    cameras = zip(viewmats, Ks, strict=True)
    regions = [visible_region(points, viewmat, K, width, height) for viewmat, K in cameras]
    if not any(regions):
        return drawing
    # All views share one set of framebuffers, so every region gets the size of the largest.
    size = max(r[2] for r in regions if r), max(r[3] for r in regions if r)
    if max(size) * supersampling > gl.info["GL_MAX_TEXTURE_SIZE"]:
        limit = gl.info["GL_MAX_TEXTURE_SIZE"] // supersampling
        raise InputError(f"images of {width}x{height} are too large: OpenGL allows {limit}")
    # The context is entered first and left last: releasing outside of it would leak silently.
    with gl, ExitStack() as resources:

        def owned(resource: Any) -> Any:
            resources.callback(resource.release)
            return resource

        targets = _Targets(gl, size, supersampling, normals, owned)
        textures: dict[tuple, Any] = {}
        uploads = [
            _Upload(gl, group, shading == "key", 2 if normals else 1, textures, owned)
            for group in material_groups(render_object.parts)
        ]
        for view, (viewmat, K, region) in enumerate(zip(viewmats, Ks, regions, strict=True)):
            if region is None:
                continue
            left = min(region[0], width - size[0])
            top = min(region[1], height - size[1])
            near, far = region[4:]
            moved_K = K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])
            clip_from_world = projection(moved_K, *size, near, far) @ viewmat
            eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
            for upload in uploads:
                upload.set_camera(clip_from_world, eye)
            order = _far_to_near(uploads, viewmat)
            rows, columns = slice(top, top + size[1]), slice(left, left + size[0])
            surface = targets.draw_surface(order)
            signed_z = surface[..., -1]
            np.abs(signed_z, out=drawing.depth[view, rows, columns])
            if drawing.normals is not None:
                drawing.normals[view, rows, columns] = surface[..., :3]
            hidden = hidden_side(signed_z)
            drawing.rgba8[view, rows, columns] = targets.draw_images(order, hidden)
    return drawing


class _Targets:
    """The framebuffers that views are drawn into."""

    def __init__(
        self, gl: Any, size: tuple[int, int], supersampling: int, normals: bool, owned: Owned
    ) -> None:
        self.gl, self.size = gl, size
        large = (size[0] * supersampling, size[1] * supersampling)
        self.samples = owned(gl.texture(large, 4, samples=MSAA_SAMPLES))
        self.msaa = owned(
            gl.framebuffer(self.samples, owned(gl.depth_renderbuffer(large, samples=MSAA_SAMPLES)))
        )
        self.image = owned(gl.framebuffer(owned(gl.renderbuffer(size, 4))))
        self.channels = 4 if normals else 1
        self.surface = owned(
            gl.framebuffer(
                owned(gl.renderbuffer(size, self.channels, dtype="f4")),
                owned(gl.depth_renderbuffer(size)),
            )
        )
        average = compiled_program(
            ("average", supersampling),
            TRIANGLE_VERTEX_SHADER,
            average_shader(supersampling, MSAA_SAMPLES),
        )
        self.triangle = owned(gl.vertex_array(average, []))

    def draw_images(self, order: list["_Upload"], hidden: str | None) -> np.ndarray:
        """sRGB over white with alpha. [h, w, 4] uint8

        Args:
            order: what to draw.
            hidden: the sides of opaque triangles, "front" or "back", that need not be drawn.
        """
        gl = self.gl
        self.msaa.use()
        # Blending premultiplied colors over white with alpha 0 gives "RGB over white" directly.
        self.msaa.clear(1.0, 1.0, 1.0, 0.0, depth=1.0)
        gl.enable_only(gl.DEPTH_TEST)
        blended = [upload for upload in order if upload.group.alpha_mode == "BLEND"]
        for upload in order:
            alpha_mode = upload.group.alpha_mode
            self._cull(upload, hidden if alpha_mode == "OPAQUE" else None)
            cutoff = max(upload.group.alpha_cutoff, MIN_ALPHA)
            upload.draw_image(OPAQUE_ALPHA if alpha_mode == "BLEND" else cutoff, NO_MAX_ALPHA)
        gl.disable(gl.CULL_FACE)
        if blended:
            gl.enable(gl.BLEND)
            gl.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
            self.msaa.depth_mask = False
            for upload in blended:
                self._cull(upload)
                upload.draw_image(MIN_ALPHA, OPAQUE_ALPHA)
            self.msaa.depth_mask = True
        self.image.use()
        gl.enable_only(gl.NOTHING)
        self.samples.use(0)
        self.triangle.render(gl.TRIANGLES, vertices=3)
        pixels = self.image.read(components=4, alignment=1)
        return np.frombuffer(pixels, np.uint8).reshape(*self.size[::-1], 4)

    def _cull(self, upload: "_Upload", hidden: str | None = None) -> None:
        """Leave out back sides of single-sided triangles, and a side that nothing shows of."""
        hidden = BACK_SIDE if upload.group.single_sided else hidden
        if hidden:
            self.gl.cull_face = hidden
            self.gl.enable(self.gl.CULL_FACE)
        else:
            self.gl.disable(self.gl.CULL_FACE)

    def draw_surface(self, order: list["_Upload"]) -> np.ndarray:
        """Camera z (negative on back sides), after normals if asked for. [h, w, 1 or 4] float32"""
        self.surface.use()
        self.surface.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self.gl.enable_only(self.gl.DEPTH_TEST)
        for upload in order:
            self._cull(upload)
            upload.draw_surface()
        self.gl.disable(self.gl.CULL_FACE)
        values = self.surface.read(components=self.channels, dtype="f4", alignment=1)
        return np.frombuffer(values, np.float32).reshape(*self.size[::-1], self.channels)


class _Upload:
    """One group in GL memory."""

    def __init__(
        self,
        gl: Any,
        group: MaterialGroup,
        key_lit: bool,
        surface: int,
        textures: dict[tuple, Any],
        owned: Owned,
    ) -> None:
        self.group = group
        attributes = np.concatenate([group.vertices, group.uvs, group.linear_rgba], axis=1)
        vertex_buffer = owned(gl.buffer(attributes.astype("f4").tobytes()))
        self.index_buffer = owned(gl.buffer(group.faces.astype("i4").tobytes()))
        self.vertex_arrays = []
        kinds: list[tuple] = [(group.alpha_mode, group.texture is not None, 0, key_lit)]
        kinds.append((group.alpha_mode, group.texture is not None, surface))
        for kind in kinds:
            program = compiled_program(kind, *shader_sources(*kind))
            # Attributes that a shader has no use for are skipped by their size in bytes.
            sizes = {"position": 3, "uv": 2, "linear_rgba": 4}
            used = [name for name in sizes if name in program]
            layout = " ".join(f"{n}f" if name in used else f"{4 * n}x" for name, n in sizes.items())
            self.vertex_arrays.append(
                owned(
                    gl.vertex_array(
                        program,
                        [(vertex_buffer, layout, *used)],
                        index_buffer=self.index_buffer,
                        index_element_size=4,
                    )
                )
            )
        self.texture = None
        if group.texture is not None:
            # Averaged alpha would thin out masks (nets, leaves) with distance: they get no mipmaps.
            masked = group.alpha_mode == "MASK"
            key = (id(group.texture), masked, group.sampler)
            if key not in textures:
                height, width = group.texture.shape[:2]
                rows_from_bottom = np.ascontiguousarray(group.texture[::-1]).tobytes()
                texture = owned(
                    gl.texture((width, height), 4, rows_from_bottom, internal_format=SRGB8_ALPHA8)
                )
                if not masked:
                    texture.build_mipmaps()
                near = gl.NEAREST if group.sampler.nearest else gl.LINEAR
                texture.filter = near if masked else gl.LINEAR_MIPMAP_LINEAR, near
                texture.repeat_x, texture.repeat_y = (not c for c in group.sampler.clamped)
                textures[key] = texture
            self.texture = textures[key]

    def set_camera(self, clip_from_world: np.ndarray, eye: np.ndarray) -> None:
        """Look from here in what is drawn next."""
        for vertex_array in self.vertex_arrays:
            program = vertex_array.program
            program["clip_from_world"].write(clip_from_world.T.astype("f4").tobytes())
            if "eye" in program:
                program["eye"].value = tuple(eye)

    def draw_image(self, min_alpha: float, max_alpha: float) -> None:
        """Draw what is at least `min_alpha` and less than `max_alpha` opaque."""
        self._draw(self.vertex_arrays[0], min_alpha, max_alpha)

    def draw_surface(self) -> None:
        """Draw everything that counts as surface."""
        self._draw(self.vertex_arrays[1], max(self.group.alpha_cutoff, MIN_ALPHA), NO_MAX_ALPHA)

    def _draw(self, vertex_array: Any, min_alpha: float, max_alpha: float) -> None:
        if "min_alpha" in vertex_array.program:
            vertex_array.program["min_alpha"].value = min_alpha
            vertex_array.program["max_alpha"].value = max_alpha
        if self.texture is not None:
            self.texture.use(0)
        vertex_array.render()


def _far_to_near(uploads: list[_Upload], viewmat: np.ndarray) -> list[_Upload]:
    """Order of drawing: solid groups, then BLEND groups and their triangles from far to near."""
    solid = [upload for upload in uploads if upload.group.alpha_mode != "BLEND"]
    blended = []
    for upload in uploads:
        if upload.group.alpha_mode == "BLEND":
            centres = upload.group.vertices[upload.group.faces].mean(axis=1)
            z = centres @ viewmat[2, :3]
            faces = upload.group.faces[np.argsort(-z, kind="stable")]
            upload.index_buffer.write(faces.astype("i4").tobytes())
            blended.append((float(z.mean()), upload))
    return solid + [upload for _, upload in sorted(blended, key=lambda entry: -entry[0])]
