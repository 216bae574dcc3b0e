"""Runs inside Blender's Python: renders what `hi3d.rendering.blender` sends, one object at a time.

Only bpy, numpy and the standard library are imported, so that any Blender 4.2 to 4.5 can run it. A
request is a line on standard input, the name of a folder with `job.json`, `geometry.npz` and the
textures; the answer is a line of JSON on the file descriptor that the last argument names.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

PR_SET_PDEATHSIG = 1
POINT_FILTER = 0.01  # pixels: the narrowest that Cycles takes
SENSOR = 32.0  # mm; only the ratio to the focal length counts


class Session:
    """One Blender scene that is emptied between objects."""

    def __init__(self) -> None:
        import bpy

        self.data, self.context, self.ops = bpy.data, bpy.context, bpy.ops
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.single_sided: list[tuple[Any, dict[str, np.ndarray]]] = []

    def render(self, folder: Path) -> dict[str, Any]:
        """Render every view to `NNN.exr` and `NNN-surface.exr` in the folder."""
        job = json.loads((folder / "job.json").read_text())
        self._clear()
        scene = self.context.scene
        scene.render.engine = "CYCLES"
        device = self._use_device(job["device"], job["worker"])
        with np.load(folder / "geometry.npz") as geometry:
            for index, group in enumerate(job["groups"]):
                arrays = {k: geometry[f"{k}{index}"] for k in ("vertices", "faces", "uvs", "rgba")}
                part = self.data.objects.new("part", self.data.meshes.new("part"))
                scene.collection.objects.link(part)
                self._fill_mesh(part.data, arrays)
                part.data.materials.append(self._material(job, group, folder))
                if group["single_sided"]:
                    self.single_sided.append((part, arrays))
        self._light(job)
        camera = self.data.objects.new("camera", self.data.cameras.new("camera"))
        scene.collection.objects.link(camera)
        scene.camera = camera
        render, layer = scene.render, self.context.view_layer
        render.use_persistent_data = True
        render.resolution_percentage = 100
        render.resolution_x, render.resolution_y = job["width"], job["height"]
        render.film_transparent = True
        render.use_file_extension = False
        render.threads_mode = "FIXED" if job["threads"] else "AUTO"
        if job["threads"]:
            render.threads = job["threads"]
        image = render.image_settings
        image.file_format, image.color_mode = "OPEN_EXR_MULTILAYER", "RGBA"
        image.color_depth, image.exr_codec = "32", "NONE"
        scene.view_settings.view_transform = "Standard"
        cycles = scene.cycles
        cycles.use_adaptive_sampling = False
        cycles.seed = 0
        cycles.diffuse_bounces = job["diffuse_bounces"]
        cycles.transparent_max_bounces = job["transparent_bounces"]
        cycles.max_bounces = max(job["diffuse_bounces"], 1)
        layer.use_pass_z = layer.use_pass_normal = False
        cycles.samples, cycles.use_denoising = job["samples"], job["denoise"]
        cycles.pixel_filter_type, cycles.filter_width = job["filter"], job["filter_width"]
        self._render_views(job, camera, folder, "")
        # The z pass is that of the first sample: with a point filter it lies at the pixel center.
        cycles.samples, cycles.use_denoising, cycles.max_bounces = 1, False, 0
        cycles.pixel_filter_type, cycles.filter_width = "BOX", POINT_FILTER
        layer.pass_alpha_threshold = job["min_alpha"]
        layer.use_pass_z, layer.use_pass_normal = True, job["normals"]
        self._render_views(job, camera, folder, "-surface")
        return {"device": device}

    def _render_views(self, job: dict, camera: Any, folder: Path, suffix: str) -> None:
        from mathutils import Matrix

        camera.data.sensor_fit, camera.data.sensor_width = "HORIZONTAL", SENSOR
        camera.data.clip_start, camera.data.clip_end = job["near"], job["far"]
        width, height = job["width"], job["height"]
        for view, (camtoworld, K) in enumerate(zip(job["camtoworlds"], job["Ks"], strict=True)):
            matrix = np.array(camtoworld)
            self._turn_to(matrix[:3, 3])
            matrix[:3, 1:3] *= -1  # from x right, y down, z forward to Blender's y up, z backward
            camera.matrix_world = Matrix(matrix.tolist())
            camera.data.lens = K[0][0] * SENSOR / width
            camera.data.shift_x = (width / 2 - K[0][2]) / width
            camera.data.shift_y = (K[1][2] - height / 2) / width
            self.context.scene.render.filepath = str(folder / f"{view:03d}{suffix}.exr")
            self.ops.render.render(write_still=True)

    def _turn_to(self, eye: np.ndarray) -> None:
        """Leave only those triangles of single-sided parts that turn their front to a point."""
        for part, arrays in self.single_sided:
            a, b, c = arrays["vertices"][arrays["faces"]].astype(np.float64).transpose(1, 0, 2)
            turned = (np.cross(b - a, c - a) * (eye - a)).sum(axis=1) > 0
            part.data.clear_geometry()
            self._fill_mesh(part.data, arrays | {"faces": arrays["faces"][turned]})
            part.hide_render = not turned.any()

    def _clear(self) -> None:
        self.single_sided = []
        for kind in ("objects", "meshes", "materials", "images", "cameras", "lights", "worlds"):
            collection = getattr(self.data, kind)
            for block in list(collection):
                if kind != "images" or block.type != "RENDER_RESULT":
                    collection.remove(block)

    def _fill_mesh(self, mesh: Any, arrays: dict[str, np.ndarray]) -> None:
        faces = arrays["faces"]
        mesh.vertices.add(len(arrays["vertices"]))
        mesh.vertices.foreach_set("co", arrays["vertices"].ravel())
        mesh.loops.add(faces.size)
        mesh.loops.foreach_set("vertex_index", faces.ravel())
        mesh.polygons.add(len(faces))
        mesh.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
        mesh.polygons.foreach_set("use_smooth", np.zeros(len(faces), bool))
        mesh.uv_layers.new(name="uv").data.foreach_set("uv", arrays["uvs"][faces].ravel())
        colors = mesh.color_attributes.new("linear_rgba", "FLOAT_COLOR", "POINT")
        colors.data.foreach_set("color", arrays["rgba"].ravel())
        mesh.update(calc_edges=True)

    def _material(self, job: dict, group: dict, folder: Path) -> Any:
        material = self.data.materials.new("part")
        material.use_nodes = True
        nodes, link = material.node_tree.nodes, material.node_tree.links.new
        nodes.clear()

        def node(kind: str, **settings: Any) -> Any:
            made = nodes.new(kind)
            for name, value in settings.items():
                setattr(made, name, value)
            return made

        factor = node("ShaderNodeAttribute", attribute_name="linear_rgba")
        color, alpha = factor.outputs["Color"], factor.outputs["Alpha"]
        if group["texture"]:
            picture = self.data.images.load(str(folder / group["texture"]), check_existing=True)
            picture.alpha_mode = "CHANNEL_PACKED"
            interpolation = "Closest" if group["nearest"] else "Linear"
            texture = node("ShaderNodeTexImage", image=picture, interpolation=interpolation)
            uv = node("ShaderNodeUVMap", uv_map="uv").outputs[0]
            if any(group["clamped"]):
                uv = self._clamped(node, link, uv, group["clamped"], picture.size)
            link(uv, texture.inputs[0])
            product = node("ShaderNodeVectorMath", operation="MULTIPLY")
            link(color, product.inputs[0])
            link(texture.outputs["Color"], product.inputs[1])
            product_alpha = node("ShaderNodeMath", operation="MULTIPLY")
            link(alpha, product_alpha.inputs[0])
            link(texture.outputs["Alpha"], product_alpha.inputs[1])
            color, alpha = product.outputs[0], product_alpha.outputs[0]
        lit = job["shading"] != "unlit"
        surface = node("ShaderNodeBsdfDiffuse" if lit else "ShaderNodeEmission")
        link(color, surface.inputs["Color"])
        shader = surface.outputs[0]
        if group["alpha_mode"] != "OPAQUE":
            if group["alpha_mode"] == "MASK":
                cut = node("ShaderNodeMath", operation="GREATER_THAN")
                link(alpha, cut.inputs[0])
                cut.inputs[1].default_value = max(group["alpha_cutoff"], job["min_alpha"]) - 1e-6
                alpha = cut.outputs[0]
            mix = node("ShaderNodeMixShader")
            link(alpha, mix.inputs[0])
            link(node("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
            link(shader, mix.inputs[2])
            shader = mix.outputs[0]
        link(shader, node("ShaderNodeOutputMaterial").inputs["Surface"])
        return material

    def _clamped(self, node: Any, link: Any, uv: Any, clamped: list[bool], size: Any) -> Any:
        """UVs held between the centers of the edge texels along the axes that are clamped."""
        parts, joined = node("ShaderNodeSeparateXYZ"), node("ShaderNodeCombineXYZ")
        link(uv, parts.inputs[0])
        for axis in (0, 1):
            value = parts.outputs[axis]
            if clamped[axis]:
                held = node("ShaderNodeClamp")
                link(value, held.inputs["Value"])
                held.inputs["Min"].default_value = 0.5 / size[axis]
                held.inputs["Max"].default_value = 1 - 0.5 / size[axis]
                value = held.outputs[0]
            link(value, joined.inputs[axis])
        return joined.outputs[0]

    def _light(self, job: dict) -> None:
        from mathutils import Vector

        world = self.data.worlds.new("world")
        world.use_nodes = True
        world.node_tree.nodes.clear()
        background = world.node_tree.nodes.new("ShaderNodeBackground")
        background.inputs["Color"].default_value = (*[job["world_radiance"]] * 3, 1.0)
        output = world.node_tree.nodes.new("ShaderNodeOutputWorld")
        world.node_tree.links.new(background.outputs[0], output.inputs["Surface"])
        self.context.scene.world = world
        if job["sun_irradiance"] > 0:
            sun = self.data.lights.new("sun", "SUN")
            sun.energy, sun.angle = job["sun_irradiance"], 0.0
            light = self.data.objects.new("sun", sun)
            light.rotation_mode = "QUATERNION"  # a sun shines along its own -z
            light.rotation_quaternion = Vector(job["sun_direction"]).to_track_quat("Z", "Y")
            self.context.scene.collection.objects.link(light)

    def _use_device(self, device: str, worker: int) -> str:
        """Choose the CPU or one GPU of the node; returns its name."""
        cycles = self.context.scene.cycles
        cycles.device = "CPU"
        if device == "cpu":
            return "CPU"
        preferences = self.context.preferences.addons["cycles"].preferences
        for kind in ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL"):
            try:
                preferences.compute_device_type = kind
                preferences.refresh_devices()
            except (TypeError, AttributeError):
                continue
            gpus = [entry for entry in preferences.devices if entry.type == kind]
            if gpus:
                chosen = gpus[worker % len(gpus)]
                for entry in preferences.devices:
                    entry.use = entry == chosen
                cycles.device = "GPU"
                return f"{chosen.name} ({kind})"
        if device == "gpu":
            raise RuntimeError("Cycles finds no GPU here")
        preferences.compute_device_type = "NONE"
        return "CPU"


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(int(sys.argv[-1]), "w")
    if sys.platform == "linux":  # or a killed parent would leave a hanging render behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    session = Session()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = session.render(Path(line.rstrip("\n")))
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
