"""First hits of rays on a triangle mesh: Embree behind a tensor interface."""

import torch
from torch import Tensor

from hi3d.cameras import Cameras


class RayCaster:
    """A triangle mesh prepared for ray casting. Embree runs on the CPU, in float32."""

    def __init__(self, vertices: Tensor, faces: Tensor):
        """Args:
        vertices: [V, 3] of a size around 1.
        faces: [F, 3] vertex indices, at least one face.
        """
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        if len(faces) == 0:
            raise ValueError("a mesh without faces cannot be hit by rays")
        self._scene = EmbreeScene()
        self._geometry = TriangleMesh(
            scene=self._scene,
            vertices=vertices.detach().cpu().float().contiguous().numpy(),
            indices=faces.cpu().int().contiguous().numpy(),
        )

    def distances(
        self,
        origins: Tensor,  # [N, 3]
        directions: Tensor,  # [N, 3]
    ) -> Tensor:
        """Distance to the first hit in units of the direction's length; infinity for a miss. [N]"""
        distances = torch.from_numpy(self._run(origins, directions, query="DISTANCE"))
        return torch.where(distances < 1e30, distances, torch.inf)

    def hits(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """What each ray hits first.

        Args:
            origins: [N, 3]
            directions: [N, 3], of any length

        Returns:
            face: [N] int64 face index, -1 for a miss
            barycentric: [N, 3] weights of the face's vertices, adding up to 1
        """
        found = self._run(origins, directions, output=1)
        face = torch.from_numpy(found["primID"]).long()
        u, v = torch.from_numpy(found["u"]), torch.from_numpy(found["v"])
        return face, torch.stack([1 - u - v, u, v], dim=-1)

    def depth(self, cameras: Cameras, view: int) -> Tensor:
        """Depth along one camera's z axis at the pixel centers, infinity where there is no surface.

        Returns:
            [H, W], in world units, on the CPU.
        """
        origins, directions = (ray.cpu() for ray in cameras.rays(view))
        forward = cameras.viewmats[view, 2, :3].cpu()
        distances = self.distances(origins.reshape(-1, 3), directions.reshape(-1, 3))
        return distances.reshape(directions.shape[:2]) * (directions @ forward)

    def _run(self, origins: Tensor, directions: Tensor, **options):
        arrays = (x.detach().cpu().float().contiguous().numpy() for x in (origins, directions))
        return self._scene.run(*arrays, **options)
