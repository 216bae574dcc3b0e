"""Where the nodes of a glTF scene, their joints and their instances stand."""

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
    world: dict[int, np.ndarray] = {}
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


def instance_matrices(gltf: GltfFile, node: dict[str, Any]) -> list[np.ndarray]:
    """Matrices of EXT_mesh_gpu_instancing; one identity where it is not used."""
    attributes = node.get("extensions", {}).get(INSTANCING, {}).get("attributes", {})
    values = {
        name: gltf.accessor(index)
        for name, index in attributes.items()
        if name in ("TRANSLATION", "ROTATION", "SCALE")
    }
    if not values:
        return [np.eye(4)]
    count = len(next(iter(values.values())))
    translation = values.get("TRANSLATION", np.zeros((count, 3)))
    rotation = values.get("ROTATION", np.tile([0, 0, 0, 1], (count, 1)))
    scale = values.get("SCALE", np.ones((count, 3)))
    return [_trs(*row) for row in zip(translation, rotation, scale, strict=True)]


def joint_matrices(
    gltf: GltfFile, node: dict[str, Any], world: dict[int, np.ndarray]
) -> np.ndarray | None:
    """World matrix times inverse bind matrix of every joint of the node's skin. [J, 4, 4]"""
    if "skin" not in node:
        return None
    skin = gltf.entry("skins", node["skin"])
    joints = np.stack([world.get(index, np.eye(4)) for index in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return joints
    inverse_bind = gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    return joints @ inverse_bind[: len(joints)]
