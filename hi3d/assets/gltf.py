"""Objects from glTF 2.0: the default scene at rest, with unlit base colors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hi3d.assets.gltf_file import DRACO, GltfFile, converter
from hi3d.assets.gltf_materials import (
    SPECULAR_GLOSSINESS,
    TEXTURE_TRANSFORM,
    GltfMaterial,
    brightened,
    image_index,
    read_material,
    read_sampler,
    transformed_uvs,
    with_mirror_images,
)
from hi3d.assets.gltf_nodes import (
    INSTANCING,
    instance_matrices,
    joined_influences,
    joint_matrices,
    posed_matrices,
    world_matrices,
)
from hi3d.assets.parts import MAX_FACES, ObjectPart
from hi3d.assets.textures import decode_textures
from hi3d.color import srgb_from_linear
from hi3d.errors import InputError
from hi3d.progress import console

MANY_FACES = 5_000_000
"""Objects with more triangles are announced: they take many seconds."""
TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 4, 5, 6
READ_EXTENSIONS = {
    DRACO,
    SPECULAR_GLOSSINESS,
    TEXTURE_TRANSFORM,
    INSTANCING,
    "EXT_texture_webp",
    "KHR_mesh_quantization",
}
# Extensions of these kinds change light, animation or names, not the unlit base color at rest.
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


_Place = Callable[[ObjectPart, _Primitive, np.ndarray], ObjectPart]


def read_gltf(path: Path, max_texture_side: int, root: Path | None = None) -> list[ObjectPart]:
    """Parts of a `.gltf` or `.glb` file, y up; those that are drawn often are one part.

    Node transforms, skins, instances and default morph weights are applied; animations are not.
    Points and lines are left out. A black base color with emission, an old way to say "unlit",
    takes the emission as base color.

    Args:
        path: of the file.
        max_texture_side: larger textures are reduced to it, in texels.
        root: of `hi3d.assets.textures.texture_root`.

    Raises:
        InputError: a texture or buffer is missing, a required extension is not read, or there are
            over `MAX_FACES` triangles.
    """
    gltf = GltfFile(path, root)
    for name in gltf.content.get("extensionsRequired", []):
        if name not in READ_EXTENSIONS and not name.startswith(IRRELEVANT_EXTENSIONS):
            remedy = converter(name, path)
            raise InputError(f"{path} requires {name}, which is not read: {remedy}")
    placed = list(_placed_primitives(gltf))
    images = {}
    for _, primitive, _ in placed:
        if primitive.material.texture_info is not None:
            index = image_index(gltf, primitive.material.texture_info)
            if index not in images:
                images[index] = gltf.image(index)
    decoded = decode_textures(dict(images.values()), max_texture_side)
    textures = {index: decoded[label] for index, (label, _) in images.items()}
    changed: dict[tuple, np.ndarray] = {}
    return [
        place(_part(gltf, primitive, textures, changed), primitive, matrices)
        for place, primitive, matrices in placed
    ]


def _part(
    gltf: GltfFile,
    primitive: _Primitive,
    textures: dict[int, np.ndarray],
    changed: dict[tuple, np.ndarray],
) -> ObjectPart:
    """A primitive in the coordinates of its mesh.

    Args:
        changed: mirrored and brightened textures; added to.
    """
    material, vertex_rgba = primitive.material, primitive.vertex_rgba
    if vertex_rgba is not None and material.emissive:
        vertex_rgba = np.concatenate([np.ones_like(vertex_rgba[:, :3]), vertex_rgba[:, 3:]], axis=1)
    part = ObjectPart(
        primitive.positions,
        primitive.faces,
        srgb_from_linear(material.factor),
        vertex_rgba=None if vertex_rgba is None else srgb_from_linear(vertex_rgba),
        alpha_mode=material.alpha_mode,
        alpha_cutoff=material.alpha_cutoff,
        single_sided=material.single_sided,
    )
    if material.texture_info is None or primitive.uvs is None:
        return part
    index = image_index(gltf, material.texture_info)
    texture = textures[index]
    uvs = np.nan_to_num(primitive.uvs) * [1, -1] + [0, 1]  # v up
    sampler, along = read_sampler(gltf, material.texture_info, uvs)
    if any(along) or material.gain != 1:
        key = (index, *along, material.gain)
        if key not in changed:
            changed[key] = with_mirror_images(brightened(texture, material.gain), *along)
        texture = changed[key]
        uvs = uvs / (np.array(along) + 1)
    return replace(part, uvs=uvs.astype(np.float32), texture=texture, sampler=sampler)


def _placed_primitives(gltf: GltfFile) -> Iterator[tuple[_Place, _Primitive, np.ndarray]]:
    """Each primitive with the matrices of all its places, or of its joints. [I or J, 4, 4]"""
    world = world_matrices(gltf)
    posed = posed_matrices(gltf, world)
    primitives: dict[tuple, list[_Primitive]] = {}
    places: dict[tuple, list[np.ndarray]] = {}
    for index, node_matrix in world.items():
        node = gltf.entry("nodes", index)
        if "mesh" not in node:
            continue
        weights = tuple(node.get("weights", gltf.entry("meshes", node["mesh"]).get("weights", ())))
        key = (node["mesh"], weights)
        if key not in primitives:
            primitives[key] = list(_primitives(gltf, *key))
        matrices = joint_matrices(gltf, node, posed)
        if matrices is None:
            matrices = node_matrix @ instance_matrices(gltf, node)
            skin = None
        else:  # skinned vertices follow their joints alone (glTF 2.0, Section 3.7.3.3)
            skin = index
        places.setdefault((key, skin), []).append(matrices)
    _check_size(
        gltf,
        [
            (primitives[key], sum(map(len, found)) if skin is None else 1)
            for (key, skin), found in places.items()
        ],
    )
    for (key, skin), found in places.items():
        for primitive in primitives[key]:
            if skin is None:
                yield _placed, primitive, np.concatenate(found)
            elif primitive.joints is None:
                yield _placed, primitive, world[skin][None]
            else:
                yield _skinned, primitive, np.concatenate(found)


def _check_size(gltf: GltfFile, placed: list[tuple[list[_Primitive], int]]) -> None:
    """Refuse too many triangles, and announce what will take long."""
    num_faces = sum(len(p.faces) * count for primitives, count in placed for p in primitives)
    if num_faces > MAX_FACES:
        raise InputError(f"{gltf.path} has over {MAX_FACES} triangles: simplify it")
    most = max((count for _, count in placed), default=0)
    if num_faces > MANY_FACES:
        console.print(
            f"{gltf.path.name} has {num_faces / 1e6:.1f} million triangles"
            + (f" in up to {most} instances of a mesh" if most > 1 else "")
            + ": this takes a while"
        )


def _skinned(part: ObjectPart, primitive: _Primitive, matrices: np.ndarray) -> ObjectPart:
    """The part in the world, moved by its joints."""
    assert primitive.joints is not None
    assert primitive.weights is not None
    blended = np.zeros((len(part.vertices), 4, 4))
    for joint, weight in zip(primitive.joints.T, primitive.weights.T, strict=True):
        blended += weight[:, None, None] * matrices[joint]
    linear = blended[:, :3, :3]
    vertices = (linear @ part.vertices[:, :, None])[:, :, 0] + blended[:, :3, 3]
    mirrored = np.linalg.det(linear.mean(axis=0)) < 0
    return replace(part, vertices=vertices, faces=part.faces[:, ::-1] if mirrored else part.faces)


def _placed(part: ObjectPart, primitive: _Primitive, matrices: np.ndarray) -> ObjectPart:
    """The part in the world, once for each matrix; mirrored faces are turned."""
    count, size = len(matrices), len(part.vertices)
    linear = matrices[:, :3, :3]
    vertices = part.vertices @ linear.swapaxes(1, 2) + matrices[:, None, :3, 3]
    faces = np.tile(part.faces, (count, 1, 1))
    mirrored = np.linalg.det(linear) < 0
    faces[mirrored] = faces[mirrored][:, :, ::-1]
    faces += (np.arange(count) * size)[:, None, None]
    return replace(
        part,
        vertices=vertices.reshape(-1, 3),
        faces=faces.reshape(-1, 3),
        uvs=None if part.uvs is None else np.tile(part.uvs, (count, 1)),
        vertex_rgba=None if part.vertex_rgba is None else np.tile(part.vertex_rgba, (count, 1)),
    )


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
        joints, joint_weights = joined_influences(accessors, attribute)
        yield _Primitive(
            positions[used],
            faces.reshape(-1, 3),
            material,
            None if uvs is None else uvs[used],
            None if rgba is None else _rgba(rgba[used]),
            None if joints is None else joints[used],
            None if joint_weights is None else joint_weights[used],
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
