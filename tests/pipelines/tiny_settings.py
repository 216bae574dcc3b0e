"""Settings with which the whole chain takes seconds."""

TINY = [
    "foreground.resolution=32",
    "orbit.num_inference_steps=2",
    "refiner.num_inference_steps=1",
    "mesh.interpolated_views=4",
    "mesh.splats.steps=5",
    "mesh.splats.num_initial=200",
    "mesh.neus.steps=6",
    "mesh.neus.rays_per_step=128",
    "mesh.neus.resolutions=[16]",
    "mesh.neus.resolution_starts=[0.0]",
    "mesh.neus.regularized_vertices=64",
    "mesh.meshing.target_faces=500",
    "mesh.texture.resolution=128",
    "turntable.num_frames=4",
    "turntable.resolution=64",
]
