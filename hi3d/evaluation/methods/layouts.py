"""One table of how methods name their files, and of their axes, front and scale.

`{object}` is the object's name, `{seed}` the seed; `*` is anything. The first pattern with a file
counts. An object's front is the side that the photo shows.
"""

from dataclasses import dataclass
from typing import Literal

ORBIT_16 = tuple(22.5 * i for i in range(16))
SIX_SIDES = ("front", "front_right", "right", "back", "left", "front_left")


@dataclass(frozen=True)
class Layout:
    """Where a method's outputs lie, and in what coordinates."""

    views: tuple[str, ...] = ()
    """Of a folder of images, one image of all views, or a video."""
    kind: Literal["files", "strip", "grid", "video"] = "files"
    """A folder of images in order of their names, a row of square views, a grid of them, a
    video."""
    columns: int = 1
    """Of a grid."""
    names: tuple[str, ...] = ()
    """Of the files, where they are not in order of their names."""
    azimuths_deg: tuple[float, ...] = ORBIT_16
    """Of the views from the photo on."""
    same_cameras: bool = True
    """Whether the views are those of the tables: elevation, field of view and distance too. Others
    are read, and not scored by pixel."""
    meshes: tuple[str, ...] = ()
    declared: bool = False
    """Whether the files say their axes themselves, or have those of their format."""
    up: str = "z"
    """Upward axis of the meshes: y or z."""
    front: str = "x"
    """Axis that the photo sees: x, -x, y, -y, z or -z."""
    scale: Literal["as is", "unit"] = "as is"
    """`unit`: its unit is not the truth's; the longest side is made 1 and centered."""
    certain: bool = True
    """Whether front and scale are those that the method's code states; else align the meshes."""


ANY_MESH: tuple[str, ...] = (
    "{object}.glb",
    "{object}.obj",
    "{object}.ply",
    "{object}/mesh.glb",
    "{object}/*.glb",
)
ANY_MESH += ("{object}/mesh.obj", "{object}/*.obj", "{object}/mesh.ply", "{object}/*.ply")
ANY_VIEWS = ("{object}/{seed}", "{object}/views", "{object}")

LAYOUTS: dict[str, Layout] = {
    # Any method: a folder of numbered images in the order of the orbit; meshes as this project has.
    "plain": Layout(views=ANY_VIEWS, meshes=ANY_MESH, declared=True),
    # This project's own results: scripts/generate.py --output FOLDER.
    "hi3d": Layout(views=("{object}/refined",), meshes=("{object}/mesh.glb",), declared=True),
    "syncdreamer": Layout(
        views=("{object}/{seed}.png", "{object}.png"),
        kind="strip",
        meshes=("{object}/mesh.ply", "{object}-neus/mesh.ply", "{object}.ply"),
    ),
    "epidiff": Layout(views=("{object}.jpg", "{object}/{object}.jpg"), kind="strip"),
    # Asked for each of the 16 azimuths with the photo's elevation.
    "zero123": Layout(views=ANY_VIEWS, meshes=ANY_MESH, scale="unit", certain=False),
    "zero123_xl": Layout(views=ANY_VIEWS, meshes=ANY_MESH, scale="unit", certain=False),
    # As threestudio exports it: the photo's camera of azimuth 0 is on +x, z up
    # (default_azimuth_deg in threestudio/data/image.py).
    "stable_zero123": Layout(
        views=ANY_VIEWS,
        meshes=("{object}/save/it*-export/model.obj", "{object}*/save/it*-export/model.obj"),
        scale="unit",
    ),
    "wonder3d": Layout(
        views=("cropsize-*/{object}/masked_colors", "cropsize-*/{object}", "{object}"),
        names=tuple(f"rgb_000_{side}.png" for side in SIX_SIDES),
        azimuths_deg=(0, 45, 90, 180, 270, 315),
        same_cameras=False,  # orthographic
        meshes=("mesh-ortho-{object}/*/save/*.obj", "{object}.obj", "{object}.glb"),
        front="-y",
        scale="unit",
        certain=False,  # the pose files beside instant-nsr-pl/datasets/ortho.py decide
    ),
    # The photo is at 30 degrees of the poses (get_poses in utils/utils.py against the turns in
    # utils/zero123_utils.py), which is none of the axes.
    "one2345": Layout(
        meshes=("{object}/mesh.ply", "exp/{object}/mesh.ply"), scale="unit", certain=False
    ),
    # y up, the camera of the photo (azimuth 0: default_azimuth of main.py) on +z: circle_poses in
    # nerf/provider.py, and alike in nerf/provider_image.py. Vertices are written as they come.
    "magic123": Layout(
        meshes=("{object}/mesh/mesh.obj", "{object}*/mesh/mesh.obj"),
        up="y",
        front="z",
        scale="unit",
    ),
    "realfusion": Layout(
        meshes=("{object}/mesh/mesh.obj", "{object}*/mesh/mesh.obj"),
        up="y",
        front="z",
        scale="unit",
    ),
    "point_e": Layout(meshes=("{object}.ply", "{object}/mesh.ply"), scale="unit", certain=False),
    "shap_e": Layout(
        meshes=("{object}.ply", "{object}.obj", "{object}/*.ply"), scale="unit", certain=False
    ),
    "hi3d_official": Layout(
        views=("{object}/second_step_video/second.mp4", "{object}/first_step/first.mp4"),
        kind="video",
    ),
    # The last of 21 frames is the photo's; its framing is its own.
    "sv3d": Layout(
        views=("{object}.mp4", "{object}/*.mp4"),
        kind="video",
        azimuths_deg=tuple((i + 1) % 21 * 360 / 21 for i in range(21)),
        same_cameras=False,
    ),
    # GLB, y up, in a frame of the object rather than of the photo.
    "trellis": Layout(meshes=ANY_MESH, up="y", front="z", scale="unit", certain=False),
    "hunyuan3d": Layout(meshes=ANY_MESH, up="y", front="z", scale="unit", certain=False),
    # z up, the photo's camera on +x: get_zero123plus_input_cameras in src/utils/camera_util.py has
    # the views at 30 to 330 degrees from the photo; src/utils/mesh_util.py writes vertices as they
    # are.
    "instantmesh": Layout(
        views=("images/{object}.png", "*/images/{object}.png"),
        kind="grid",
        columns=2,
        azimuths_deg=(30, 90, 150, 210, 270, 330),
        same_cameras=False,
        meshes=("meshes/{object}.obj", "*/meshes/{object}.obj"),
        scale="unit",
    ),
    # run.py writes vertices as they are, z up, azimuth 0 on +x (get_spherical_cameras in
    # tsr/utils.py); that the photo is at azimuth 0 is nowhere said.
    "triposr": Layout(
        meshes=("{object}/mesh.glb", "{object}/mesh.obj", "{object}/0/mesh.*"),
        scale="unit",
        certain=False,
    ),
}
"""By the name that `reader` takes."""
