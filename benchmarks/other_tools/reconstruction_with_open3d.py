"""The Open3D side of `benchmarks/reconstruction_tools.py`; runs in an environment with Open3D.

    python benchmarks/other_tools/reconstruction_with_open3d.py FOLDER...

Each folder holds `views.npz`: rgb [V, H, W, 3] uint8, depth [V, H, W] in world units, 0 where there
is none, viewmats [V, 4, 4] and Ks [V, 3, 3]. Writes `tsdf.npz` and `poisson.npz`, each with
vertices [N, 3] and faces [F, 3], and prints for each folder wall and CPU seconds of both as a line
of JSON. The truncation of 5 voxels and the octree of depth 8 are those of Open3D's tutorials.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open3d as o3d

SIDE, RESOLUTION = 1.1, 192  # of the cube around the origin that is fused, as in our own fusion
TRUNCATION = 5 * SIDE / RESOLUTION
FAR = 3.0  # depth beyond is ignored
NORMAL_RADIUS, NORMAL_NEIGHBOURS = 0.03, 30
OCTREE_DEPTH = 8


def fuse(views: dict[str, np.ndarray]) -> o3d.geometry.TriangleMesh:
    """Fusion of the depth maps (Curless and Levoy 1996)."""
    # Open3D 0.20's ScalableTSDFVolume came out empty here.
    volume = o3d.pipelines.integration.UniformTSDFVolume(
        SIDE,
        RESOLUTION,
        TRUNCATION,
        o3d.pipelines.integration.TSDFVolumeColorType.RGB8,
        np.full(3, -SIDE / 2),
    )
    for view, depth in enumerate(views["depth"]):
        image = o3d.geometry.RGBDImage.create_from_color_and_depth(
            o3d.geometry.Image(np.ascontiguousarray(views["rgb"][view])),
            o3d.geometry.Image(depth),
            depth_scale=1.0,
            depth_trunc=FAR,
            convert_rgb_to_intensity=False,
        )
        volume.integrate(image, intrinsics(views, view), views["viewmats"][view])
    return volume.extract_triangle_mesh()


def poisson(views: dict[str, np.ndarray]) -> o3d.geometry.TriangleMesh:
    """Screened Poisson reconstruction (Kazhdan and Hoppe 2013) of the depth maps' points."""
    cloud = o3d.geometry.PointCloud()
    for view, depth in enumerate(views["depth"]):
        viewmat = views["viewmats"][view]
        part = o3d.geometry.PointCloud.create_from_depth_image(
            o3d.geometry.Image(depth), intrinsics(views, view), viewmat, 1.0, FAR
        )
        if len(part.points) < NORMAL_NEIGHBOURS:
            continue
        part.estimate_normals(
            o3d.geometry.KDTreeSearchParamHybrid(NORMAL_RADIUS, NORMAL_NEIGHBOURS)
        )
        part.orient_normals_towards_camera_location(np.linalg.inv(viewmat)[:3, 3])
        cloud += part
    return o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=OCTREE_DEPTH)[0]


def intrinsics(views: dict[str, np.ndarray], view: int) -> o3d.camera.PinholeCameraIntrinsic:
    """The camera of a view; Open3D's pixel centers are whole numbers, ours half ones."""
    height, width = views["depth"].shape[1:]
    K = views["Ks"][view]
    return o3d.camera.PinholeCameraIntrinsic(
        width, height, K[0, 0], K[1, 1], K[0, 2] - 0.5, K[1, 2] - 0.5
    )


METHODS: dict[str, Callable[[dict[str, np.ndarray]], o3d.geometry.TriangleMesh]] = {
    "tsdf": fuse,
    "poisson": poisson,
}


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        with np.load(folder / "views.npz") as file:
            views = dict(file)
        seconds = {}
        for name, method in METHODS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            mesh = method(views)
            seconds[name] = [time.perf_counter() - wall, time.process_time() - cpu]
            np.savez(
                folder / f"{name}.npz",
                vertices=np.asarray(mesh.vertices, dtype=np.float32),
                faces=np.asarray(mesh.triangles, dtype=np.int64),
            )
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
