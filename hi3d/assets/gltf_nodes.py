"""Where the nodes of a glTF scene, their joints and their instances stand."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from hi3d.assets.gltf_file import GltfFile

INSTANCING = "EXT_mesh_gpu_instancing"


def world_matrices(gltf: GltfFile) -> dict[int, np.ndarray]:
    """World matrix [4, 4] of every node of the default scene by index, in drawing order."""
    nodes, scenes = gltf.content.get("nodes", []), gltf.content.get("scenes", [])
    if scenes:
        roots = gltf.entry("scenes", gltf.content.get("scene", 0)).get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
    return _reached(gltf, roots, {})


def posed_matrices(gltf: GltfFile, world: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """World matrix of every node, also of those outside the scene: joints may lie there."""
    nodes = gltf.content.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    roots = [index for index in range(len(nodes)) if index not in children]
    return _reached(gltf, roots, dict(world))


def _reached(
    gltf: GltfFile, roots: list[int], world: dict[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """`world` with the matrices of the nodes below `roots` added."""
    queue = [(index, np.eye(4)) for index in reversed(roots)]
    while queue:
        index, parent = queue.pop()
        if index in world:  # a tree by the standard; in broken files it may hold a loop
            continue
        node = gltf.entry("nodes", index)
        world[index] = parent @ _local_matrix(node)
        queue += [(child, world[index]) for child in reversed(node.get("children", []))]
    return world


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    return _trs(
        node.get("translation", (0, 0, 0)), node.get("rotation", (0, 0, 0, 1)), node.get("scale", 1)
    )


def _trs(translation: Any, rotation: Any, scale: Any) -> np.ndarray:
    """Translation @ rotation (xyzw) @ scale. [4, 4]"""
    matrix = np.eye(4)
    rotation = np.asarray(rotation, np.float64)
    if np.linalg.norm(rotation) > 0:
        matrix[:3, :3] = Rotation.from_quat(rotation).as_matrix()
    matrix[:3, :3] *= np.asarray(scale, np.float64)
    matrix[:3, 3] = translation
    return matrix


def instance_matrices(gltf: GltfFile, node: dict[str, Any]) -> np.ndarray:
    """Matrices of EXT_mesh_gpu_instancing [I, 4, 4]; one identity where it is not used."""
    attributes = node.get("extensions", {}).get(INSTANCING, {}).get("attributes", {})
    values = {
        name: gltf.accessor(index)
        for name, index in attributes.items()
        if name in ("TRANSLATION", "ROTATION", "SCALE")
    }
    if not values:
        return np.eye(4)[None]
    count = len(next(iter(values.values())))
    translation = values.get("TRANSLATION", np.zeros((count, 3)))
    rotation = values.get("ROTATION", np.tile([0, 0, 0, 1], (count, 1)))
    scale = values.get("SCALE", np.ones((count, 3)))
    rows = [_trs(*row) for row in zip(translation, rotation, scale, strict=True)]
    return np.array(rows).reshape(-1, 4, 4)


def joined_influences(
    names: Iterable[str], attribute: Callable[[str], np.ndarray | None]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Joints and weights [V, K] of all sets JOINTS_n, WEIGHTS_n of a primitive; None without.

    Args:
        names: of its attributes.
        attribute: gives the values of one.
    """
    sets = sorted(name.removeprefix("JOINTS_") for name in names if name.startswith("JOINTS_"))
    found = [(attribute(f"JOINTS_{n}"), attribute(f"WEIGHTS_{n}")) for n in sets]
    pairs = [(j, w) for j, w in found if j is not None and w is not None]
    if not pairs:
        return None, None
    joints = np.concatenate([joints for joints, _ in pairs], axis=1).astype(np.int64)
    weights = np.concatenate([weights for _, weights in pairs], axis=1).astype(np.float64)
    total = weights.sum(axis=1, keepdims=True)
    weights[total[:, 0] <= 0, 0] = 1  # such vertices follow their first joint
    return joints, weights / np.where(total > 0, total, 1)


def joint_matrices(
    gltf: GltfFile, node: dict[str, Any], posed: dict[int, np.ndarray]
) -> np.ndarray | None:
    """World matrix times inverse bind matrix of every joint of the node's skin. [J, 4, 4]

    Args:
        posed: of `posed_matrices`.
    """
    if "skin" not in node:
        return None
    skin = gltf.entry("skins", node["skin"])
    joints = np.stack([posed.get(index, np.eye(4)) for index in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return joints
    inverse_bind = gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    return joints @ inverse_bind[: len(joints)]
