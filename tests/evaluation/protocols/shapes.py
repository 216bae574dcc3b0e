"""trimesh's shapes as the values that are scored."""

import numpy as np
import torch
import trimesh

from hi3d.mesh import SurfaceMesh


def surface(mesh: trimesh.Trimesh) -> SurfaceMesh:
    vertices = torch.from_numpy(np.asarray(mesh.vertices)).float()
    grey = torch.full_like(vertices, 0.5)
    return SurfaceMesh(vertices, torch.from_numpy(mesh.faces).long(), grey)
