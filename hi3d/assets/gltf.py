"""Objects from glTF 2.0: the default scene at rest, with unlit base colours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hi3d.assets.gltf_file import DRACO, GltfFile
from hi3d.assets.gltf_materials import (
    SPECULAR_GLOSSINESS,
    TEXTURE_TRANSFORM,
    GltfMaterial,
    image_index,
    mirrors,
    read_material,
    transformed_uvs,
    with_mirror_images,
)
from hi3d.assets.gltf_nodes import INSTANCING, instance_matrices, joint_matrices, world_matrices
from hi3d.assets.parts import MAX_FACES, ObjectPart
from hi3d.assets.textures import decode_textures
from hi3d.color import srgb_from_linear
from hi3d.errors import InputError

TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 4, 5, 6
READ_EXTENSIONS = {
    DRACO,
    SPECULAR_GLOSSINESS,
    TEXTURE_TRANSFORM,
    INSTANCING,
    "EXT_texture_webp",
    "KHR_mesh_quantization",
}
# Extensions of these kinds change light, animation or names, not the unlit base colour at rest.
IRRELEVANT_EXTENSIONS = (
    "KHR_materials_",
    "KHR_lights_",
    "KHR_animation_",
    "KHR_xmp",
    "EXT_lights_",
)


@dataclass(frozen=True)
class _Primitive:
    """One primitive in the coordinates of its mesh."""

    positions: np.ndarray  # [V, 3] float64
    faces: np.ndarray  # [F, 3] int64
    material: GltfMaterial
    uvs: np.ndarray | None  # [V, 2], v down
    vertex_rgba: np.ndarray | None  # [V, 4], linear
    joints: np.ndarray | None  # [V, K]
    weights: np.ndarray | None  # [V, K]


def read_gltf(path: Path, max_texture_side: int) -> list[ObjectPart]:
    """Parts of a `.gltf` or `.glb` file, y up.

    Node transforms, skins, instances and default morph weights are applied; animations are not.
    Points and lines are left out. A black base colour with emission, an old way to say "unlit",
    takes the emission as base colour.

    Raises:
        InputError: a texture or buffer is missing, a required extension is not read, or there are
            over `MAX_FACES` triangles.
    """
    gltf = GltfFile(path)
    for name in gltf.content.get("extensionsRequired", []):
        if name not in READ_EXTENSIONS and not name.startswith(IRRELEVANT_EXTENSIONS):
            raise InputError(f"{path} requires {name}, which is not read: export it without")
    placed = list(_placed_primitives(gltf))
    images = {}
    for primitive, _, _ in placed:
        if primitive.material.texture_info is not None:
            index = image_index(gltf, primitive.material.texture_info)
            if index not in images:
                images[index] = gltf.image(index)
    decoded = decode_textures(dict(images.values()), max_texture_side)
    textures = {index: decoded[label] for index, (label, _) in images.items()}
    mirrored: dict[tuple[int, bool, bool], np.ndarray] = {}
    return [_part(gltf, *entry, textures, mirrored) for entry in placed]


def _part(
    gltf: GltfFile,
    primitive: _Primitive,
    vertices: np.ndarray,
    faces: np.ndarray,
    textures: dict[int, np.ndarray],
    mirrored: dict[tuple[int, bool, bool], np.ndarray],
) -> ObjectPart:
    material, texture, uvs = primitive.material, None, None
    if material.texture_info is not None and primitive.uvs is not None:
        index = image_index(gltf, material.texture_info)
        texture = textures[index]
        uvs = np.nan_to_num(primitive.uvs) * [1, -1] + [0, 1]  # v up
        key = (index, *mirrors(gltf, material.texture_info, uvs))
        if any(key[1:]):
            if key not in mirrored:
                mirrored[key] = with_mirror_images(texture, *key[1:])
            texture = mirrored[key]
            uvs = uvs / (np.array(key[1:]) + 1)
        uvs = uvs.astype(np.float32)
    vertex_rgba = primitive.vertex_rgba
    return ObjectPart(
        vertices,
        faces,
        srgb_from_linear(material.factor),
        uvs,
        texture,
        None if vertex_rgba is None else srgb_from_linear(vertex_rgba),
        material.alpha_mode,
        material.alpha_cutoff,
    )


def _placed_primitives(
    gltf: GltfFile,
) -> Iterator[tuple[_Primitive, np.ndarray, np.ndarray]]:
    """Each primitive with world vertices and faces, once for every instance."""
    world = world_matrices(gltf)
    cache: dict[tuple, list[_Primitive]] = {}
    num_faces = 0
    for index, node_matrix in world.items():
        node = gltf.entry("nodes", index)
        if "mesh" not in node:
            continue
        weights = tuple(node.get("weights", gltf.entry("meshes", node["mesh"]).get("weights", ())))
        key = (node["mesh"], weights)
        if key not in cache:
            cache[key] = list(_primitives(gltf, *key))
        matrices_of_joints = joint_matrices(gltf, node, world)
        instances = instance_matrices(gltf, node)
        for primitive in cache[key]:
            num_faces += len(primitive.faces) * len(instances)
            if num_faces > MAX_FACES:
                raise InputError(f"{gltf.path} has over {MAX_FACES} triangles: simplify it")
            for instance in instances:
                matrices = (node_matrix @ instance)[None]
                if matrices_of_joints is not None and primitive.joints is not None:
                    # Skinned vertices follow their joints alone (glTF 2.0, Section 3.7.3.3).
                    matrices = matrices_of_joints
                yield primitive, *_placed(primitive, matrices)


def _placed(primitive: _Primitive, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices moved by one matrix, or by the weighted joints' ones; mirrored faces turned."""
    if primitive.joints is None or primitive.weights is None or len(matrices) == 1:
        blended = matrices[:1]
    else:
        blended = np.zeros((len(primitive.positions), 4, 4))
        for joint, weight in zip(primitive.joints.T, primitive.weights.T, strict=True):
            blended += weight[:, None, None] * matrices[joint]
    linear = blended[:, :3, :3]
    vertices = (linear @ primitive.positions[:, :, None])[:, :, 0] + blended[:, :3, 3]
    mirrored = np.linalg.det(linear.mean(axis=0)) < 0
    return vertices, primitive.faces[:, ::-1] if mirrored else primitive.faces


def _primitives(gltf: GltfFile, mesh: int, weights: tuple[float, ...]) -> Iterator[_Primitive]:
    """Triangles of a mesh with its morph targets mixed in."""
    for primitive in gltf.entry("meshes", mesh)["primitives"]:
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN):
            continue
        compressed, corners = gltf.draco(primitive)
        accessors = primitive["attributes"]
        if "POSITION" not in accessors:
            continue

        def attribute(
            name: str,
            accessors: dict[str, int] = accessors,
            compressed: dict[str, np.ndarray] = compressed,
        ) -> np.ndarray | None:
            if name in compressed:
                return compressed[name]
            return gltf.accessor(accessors[name]) if name in accessors else None

        positions = np.asarray(attribute("POSITION"), np.float64)
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            if weight and "POSITION" in target:
                positions = positions + weight * gltf.accessor(target["POSITION"])
        if corners is None:
            indices = (
                gltf.accessor(primitive["indices"])[:, 0].astype(np.int64)
                if "indices" in primitive
                else np.arange(len(positions))
            )
            corners = _triangles(indices, mode)
        corners = corners[(corners < len(positions)).all(axis=1)].astype(np.int64)
        # Primitives often share one long vertex buffer: keep what this one uses.
        used, faces = np.unique(corners, return_inverse=True)
        if not len(used):
            continue
        material = read_material(gltf, primitive.get("material"), "COLOR_0" in accessors)
        uvs = None
        if material.texture_info is not None:
            uvs = transformed_uvs(material.texture_info, attribute, len(positions))
        rgba = attribute("COLOR_0")
        joints, joint_weights = attribute("JOINTS_0"), attribute("WEIGHTS_0")
        if joints is not None and joint_weights is not None:
            joint_weights = joint_weights / np.maximum(joint_weights.sum(1, keepdims=True), 1e-8)
            joints, joint_weights = joints[used].astype(np.int64), joint_weights[used]
        yield _Primitive(
            positions[used],
            faces.reshape(-1, 3),
            material,
            None if uvs is None else uvs[used],
            None if rgba is None else _rgba(rgba[used]),
            joints,
            joint_weights,
        )


def _triangles(indices: np.ndarray, mode: int) -> np.ndarray:
    """Corners [F, 3] of triangle lists, strips and fans (glTF 2.0, Section 3.7.2.1)."""
    if mode == TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == TRIANGLE_FAN:
        first = np.full(len(indices) - 2, indices[0])
        return np.stack([indices[1:-1], indices[2:], first], axis=1)
    corners = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    corners[1::2] = corners[1::2][:, [0, 2, 1]]
    return corners


def _rgba(colors: np.ndarray) -> np.ndarray:
    """COLOR_0 as linear RGBA in [0, 1]. [V, 4]"""
    if colors.dtype.kind in "iu":  # without the `normalized` that the standard asks for
        colors = colors / np.iinfo(colors.dtype).max
    rgba = np.ones((len(colors), 4), np.float32)
    rgba[:, : colors.shape[1]] = np.nan_to_num(colors).clip(0, 1)
    return rgba
