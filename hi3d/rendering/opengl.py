"""The OpenGL backend: moderngl on a standalone EGL context, in hardware or with llvmpipe."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from hi3d.errors import InputError
from hi3d.rendering.batches import Batch, batches
from hi3d.rendering.objects import RenderObject

SRGB8_ALPHA8 = 0x8C43  # GL_SRGB8_ALPHA8: texels are decoded to linear light before filtering
MSAA_SAMPLES = 4
MIN_ALPHA = 1 / 255  # fainter points neither show nor count as surface

VERTEX_SHADER = """
#version 330
uniform mat4 clip_from_world;
in vec3 position;
in vec2 uv;
in vec4 linear_rgba;
out vec2 fragment_uv;
out vec4 fragment_rgba;
void main() {
    gl_Position = clip_from_world * vec4(position, 1.0);
    fragment_uv = uv;
    fragment_rgba = linear_rgba;
}
"""

FRAGMENT_SHADER = """
#version 330
uniform sampler2D base_color;
uniform bool textured;
uniform bool opaque;
uniform bool masked;
uniform float min_alpha;
in vec2 fragment_uv;
in vec4 fragment_rgba;
out vec4 premultiplied;
void main() {
    vec4 light = clamp(fragment_rgba, 0.0, 1.0);
    if (textured) light *= texture(base_color, fragment_uv);
    float alpha = opaque ? 1.0 : light.a;
    if (alpha < min_alpha) discard;
    if (masked) alpha = 1.0;
    vec3 curve = 1.055 * pow(max(light.rgb, 0.0031308), vec3(1.0 / 2.4)) - 0.055;
    vec3 srgb = mix(curve, 12.92 * light.rgb, lessThanEqual(light.rgb, vec3(0.0031308)));
    premultiplied = vec4(srgb * alpha, alpha);
}
"""


class _Context(threading.local):
    """One GL context per thread, remade after a fork, where the parent's is not usable."""

    process_id = -1
    gl: Any = None
    program: Any = None
    error: str | None = None


_context = _Context()


def opengl_error() -> str | None:
    """Why OpenGL cannot be used here, in one line; None where it can."""
    if _context.process_id != os.getpid():
        _context.process_id, _context.error = os.getpid(), None
        try:
            import moderngl

            settings: dict[str, Any] = {"standalone": True, "backend": "egl", "require": 330}
            _context.gl = moderngl.create_context(**settings)
            _context.program = _context.gl.program(VERTEX_SHADER, FRAGMENT_SHADER)
        except Exception as error:
            _context.error = next(iter(str(error).splitlines()), type(error).__name__)
    return _context.error


def renderer_name() -> str:
    """The GL driver in use, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`."""
    error = opengl_error()
    return f"none ({error})" if error else _context.gl.info["GL_RENDERER"]


def draw(
    render_object: RenderObject,
    viewmats: np.ndarray,  # [V, 4, 4]
    Ks: np.ndarray,  # [V, 3, 3]
    width: int,
    height: int,
    supersampling: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw all views of one object; its GL resources are released before returning.

    Args:
        viewmats: [V, 4, 4] world-to-camera, OpenCV axes.
        Ks: [V, 3, 3] in pixels.
        width: of the images.
        height: of the images.
        supersampling: S, images are drawn S times as wide and high, with 4 samples per pixel.

    Returns:
        premultiplied [V, H, W, 4] sRGB in [0, 1] with alpha, and depth [V, H, W] at pixel centres,
        0 where empty.

    Raises:
        InputError: there is no OpenGL, or the images are too large for it.
    """
    if error := opengl_error():
        raise InputError(f"no OpenGL ({error}): install libegl1 + libgl1-mesa-dri or use embreex")
    gl, program = _context.gl, _context.program
    max_side = gl.info["GL_MAX_RENDERBUFFER_SIZE"]
    if max(width, height) * supersampling > max_side:
        raise InputError(f"images of {width}x{height} are too large: OpenGL allows {max_side}")
    points = np.concatenate([part.vertices[np.unique(part.faces)] for part in render_object.parts])
    premultiplied = np.zeros((len(viewmats), height, width, 4), np.float32)
    depth = np.zeros((len(viewmats), height, width), np.float32)
    # The context is entered first and left last: releasing outside of it would leak silently.
    with gl, ExitStack() as resources:

        def owned(resource: Any) -> Any:
            resources.callback(resource.release)
            return resource

        size = (width * supersampling, height * supersampling)
        msaa = owned(
            gl.framebuffer(
                owned(gl.renderbuffer(size, 4, samples=MSAA_SAMPLES)),
                owned(gl.depth_renderbuffer(size, samples=MSAA_SAMPLES)),
            )
        )
        resolved = owned(gl.framebuffer(owned(gl.renderbuffer(size, 4))))
        depth_texture = owned(gl.depth_texture((width, height)))
        # The colour attachment is unused; some drivers reject framebuffers without one.
        centres = owned(gl.framebuffer(owned(gl.renderbuffer((width, height), 4)), depth_texture))
        textures: dict[tuple[int, bool], Any] = {}
        uploads = [_Upload(gl, program, b, textures, owned) for b in batches(render_object.parts)]
        gl.enable_only(gl.DEPTH_TEST | gl.BLEND)
        gl.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
        for view, (viewmat, K) in enumerate(zip(viewmats, Ks, strict=True)):
            z = points @ viewmat[2, :3] + viewmat[2, 3]
            far = float(z.max()) * 1.01
            if far <= 0:
                continue
            near = max(float(z.min()) * 0.99, far * 1e-3)
            clip_from_world = projection(K, width, height, near, far) @ viewmat
            program["clip_from_world"].write(clip_from_world.T.astype("f4").tobytes())
            order = _far_to_near(uploads, viewmat)
            for framebuffer in (msaa, centres):
                framebuffer.use()
                framebuffer.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
                for upload in order:
                    upload.draw(program)
            gl.copy_framebuffer(resolved, msaa)
            samples = np.frombuffer(resolved.read(components=4), np.uint8).reshape(*size[::-1], 4)
            total = np.zeros((height, width, 4), np.uint32)
            for y, x in np.ndindex(supersampling, supersampling):
                total += samples[y::supersampling, x::supersampling]
            premultiplied[view] = total / np.float32(255 * supersampling**2)
            buffer = np.frombuffer(depth_texture.read(alignment=1), np.float32)
            ndc = 2 * buffer.reshape(height, width).astype(np.float64) - 1
            metric = 2 * far * near / ((far + near) - ndc * (far - near))
            depth[view] = np.where(ndc < 1, metric, 0)
    return premultiplied, depth


def projection(K: np.ndarray, width: int, height: int, near: float, far: float) -> np.ndarray:
    """Clip coordinates from OpenCV camera coordinates, without a flip.

    Pixel (x, y), y down, lands at window coordinate (x, y), so that row 0 of what GL returns is the
    top row of the image; GL samples at +0.5 like OpenCV.

    Returns:
        [4, 4] float64.
    """
    matrix = np.zeros((4, 4))
    matrix[0, :3] = 2 * K[0] / width
    matrix[1, :3] = 2 * K[1] / height
    matrix[0, 2] -= 1
    matrix[1, 2] -= 1
    matrix[2, 2:] = (far + near) / (far - near), -2 * far * near / (far - near)
    matrix[3, 2] = 1
    return matrix


class _Upload:
    """One batch in GL memory."""

    def __init__(
        self,
        gl: Any,
        program: Any,
        batch: Batch,
        textures: dict[tuple[int, bool], Any],
        owned: Callable[[Any], Any],
    ) -> None:
        self.batch = batch
        attributes = np.concatenate([batch.vertices, batch.uvs, batch.linear_rgba], axis=1)
        vertex_buffer = owned(gl.buffer(attributes.astype("f4").tobytes()))
        self.index_buffer = owned(gl.buffer(batch.faces.astype("i4").tobytes()))
        self.vertex_array = owned(
            gl.vertex_array(
                program,
                [(vertex_buffer, "3f 2f 4f", "position", "uv", "linear_rgba")],
                index_buffer=self.index_buffer,
                index_element_size=4,
            )
        )
        self.texture = None
        if batch.texture is not None:
            # Averaged alpha would thin out masks (nets, leaves) with distance: they get no mipmaps.
            masked = batch.alpha_mode == "MASK"
            if (id(batch.texture), masked) not in textures:
                height, width = batch.texture.shape[:2]
                rows_from_bottom = np.ascontiguousarray(batch.texture[::-1]).tobytes()
                texture = owned(
                    gl.texture((width, height), 4, rows_from_bottom, internal_format=SRGB8_ALPHA8)
                )
                if not masked:
                    texture.build_mipmaps()
                texture.filter = gl.LINEAR if masked else gl.LINEAR_MIPMAP_LINEAR, gl.LINEAR
                textures[id(batch.texture), masked] = texture
            self.texture = textures[id(batch.texture), masked]

    def draw(self, program: Any) -> None:
        """Draw into the framebuffer in use."""
        program["textured"].value = self.texture is not None
        program["opaque"].value = self.batch.alpha_mode == "OPAQUE"
        program["masked"].value = self.batch.alpha_mode == "MASK"
        program["min_alpha"].value = max(self.batch.alpha_cutoff, MIN_ALPHA)
        if self.texture is not None:
            self.texture.use(0)
        self.vertex_array.render()


def _far_to_near(uploads: list[_Upload], viewmat: np.ndarray) -> list[_Upload]:
    """Order of drawing: solid batches, then BLEND batches and their triangles from far to near."""
    solid = [upload for upload in uploads if upload.batch.alpha_mode != "BLEND"]
    blended = []
    for upload in uploads:
        if upload.batch.alpha_mode == "BLEND":
            centres = upload.batch.vertices[upload.batch.faces].mean(axis=1)
            z = centres @ viewmat[2, :3]
            faces = upload.batch.faces[np.argsort(-z, kind="stable")]
            upload.index_buffer.write(faces.astype("i4").tobytes())
            blended.append((float(z.mean()), upload))
    return solid + [upload for _, upload in sorted(blended, key=lambda entry: -entry[0])]
