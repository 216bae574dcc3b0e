import pytest
import torch
import trimesh

from hi3d.cameras import Cameras, orbit_cameras
from hi3d.errors import InputError
from hi3d.mesh import SurfaceMesh, is_closed
from hi3d.surface.ray_casting import RayCaster
from hi3d.texture import atlas
from hi3d.texture.atlas import sample_texture, unwrap
from hi3d.texture.bake import TextureConfig, bake_texture
from hi3d.views import Views

RADIUS = 0.45
CONFIG = TextureConfig(resolution=256)


def direction_rgb(points: torch.Tensor) -> torch.Tensor:
    """A smooth colour by direction, far from black and white: in [0.3, 0.7]."""
    return 0.5 + 0.2 * torch.nn.functional.normalize(points, dim=-1)


def sphere_views(cameras: Cameras, radius: float = RADIUS, supersampling: int = 4) -> Views:
    """The analytic image of a sphere, anti-aliased, over white."""
    fine = cameras.resized(cameras.width * supersampling, cameras.height * supersampling)
    rgb, alpha = [], []
    for view in range(len(cameras)):
        origins, directions = fine.rays(view)
        b = (origins * directions).sum(-1)
        discriminant = b**2 - (origins**2).sum(-1) + radius**2
        distance = -b - discriminant.clamp_min(0).sqrt()
        hit = (discriminant > 0).float()
        color = direction_rgb(origins + distance[..., None] * directions)
        over_white = color * hit[..., None] + 1 - hit[..., None]
        image = torch.cat([over_white.permute(2, 0, 1), hit[None]])
        image = torch.nn.functional.avg_pool2d(image, supersampling)
        rgb.append(image[:3])
        alpha.append(image[3:])
    return Views(torch.stack(rgb), torch.stack(alpha), cameras)


def from_trimesh(mesh: trimesh.Trimesh) -> SurfaceMesh:
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    return SurfaceMesh(vertices, torch.tensor(mesh.faces), torch.zeros_like(vertices))


@pytest.fixture(scope="module")
def sphere() -> SurfaceMesh:
    return from_trimesh(trimesh.creation.icosphere(subdivisions=3, radius=RADIUS))


@pytest.fixture(scope="module")
def baked(sphere) -> SurfaceMesh:
    return bake_texture(sphere, sphere_views(orbit_cameras(20, 128)), CONFIG)


def error_at(mesh: SurfaceMesh, low: float, high: float) -> torch.Tensor:
    """Colour errors at points in the middle of faces with latitudes between two, in degrees."""
    middle = mesh.vertices[mesh.faces].mean(1)
    latitude = torch.rad2deg(torch.asin(middle[:, 2] / middle.norm(dim=-1)))
    rgb = sample_texture(mesh.texture, mesh.uvs[mesh.faces].mean(1))
    chosen = (latitude > low) & (latitude < high)
    return (rgb - direction_rgb(middle)).abs()[chosen].amax(-1)


def test_baked_sphere_has_the_colors_of_the_directions(baked):
    # Two 8-bit steps; texels that no camera sees well start below latitude -35 and above 75.
    assert error_at(baked, -30, 60).max() < 0.008


def test_silhouettes_leave_no_white(baked):
    # All colours lie in [0.3, 0.7]: any white or black that got in would show.
    assert baked.texture.max() < 0.71
    assert baked.texture.min() > 0.29


def test_unseen_texels_continue_the_seen_ones(baked):
    # The underside is unseen: at latitude -60 the nearest seen colour is about 20 degrees away,
    # which is 0.2 * 2 sin(10 deg) = 0.07 in colour, twice that at the pole.
    assert error_at(baked, -60, -50).max() < 0.09
    assert error_at(baked, -90, -60).max() < 0.2


def test_shape_is_kept(baked, sphere):
    assert torch.equal(baked.vertices[baked.faces], sphere.vertices[sphere.faces])
    assert is_closed(baked)
    assert baked.texture.shape == (3, 256, 256)
    assert torch.allclose(baked.vertex_rgb, sample_texture(baked.texture, baked.uvs))


def test_a_surface_larger_than_its_image_takes_no_background(sphere):
    # The views show a smaller sphere: the mesh reaches 2.5 pixels into the white background.
    views = sphere_views(orbit_cameras(0, 96), radius=RADIUS - 0.03)
    texture = bake_texture(sphere, views, CONFIG).texture
    assert texture.max() < 0.72
    assert texture.min() > 0.28


def test_hidden_surface_takes_no_color_from_the_one_in_front():
    # A green plate behind a red one, of the same size, both facing the only camera at +x.
    plate = torch.tensor([[0.0, -0.2, -0.2], [0, 0.2, -0.2], [0, 0.2, 0.2], [0, -0.2, 0.2]])
    larger = plate * 1.6 - torch.tensor([0.3, 0, 0])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    mesh = SurfaceMesh(torch.cat([plate, larger]), torch.cat([faces, faces + 4]), torch.zeros(8, 3))
    cameras = orbit_cameras(0, 128, num_views=1)
    origins, directions = cameras.rays(0)
    caster = RayCaster(mesh.vertices, mesh.faces)
    face, _ = caster.hits(origins.reshape(-1, 3), directions.reshape(-1, 3))
    colors = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [1.0, 1.0, 1.0]])
    part = torch.where(face < 0, 2, face.clamp_min(0) // 2)
    rgb = colors[part].reshape(128, 128, 3).permute(2, 0, 1)
    alpha = (face >= 0).float().reshape(1, 1, 128, 128)
    out = bake_texture(mesh, Views(rgb[None], alpha, cameras), CONFIG)
    middle = sample_texture(out.texture, out.uvs[out.faces].mean(1))
    assert torch.allclose(middle[:2], colors[[0, 0]], atol=0.01)
    assert torch.allclose(middle[2:], colors[[1, 1]], atol=0.01)
    # A ring of about a pixel around the step mixes both plates, some 3 % of their area.
    mixed = (out.texture[0] > 0.3) & (out.texture[0] < 0.7)
    assert mixed.float().mean() < 0.06


@pytest.mark.parametrize("max_piece_faces", [100, 10**6])
def test_unwrap_keeps_faces_and_does_not_overlap(max_piece_faces, sphere, monkeypatch):
    monkeypatch.setattr(atlas, "MAX_PIECE_FACES", max_piece_faces)
    source, faces, uvs = unwrap(sphere, 128, 2)
    assert torch.equal(source[faces], sphere.faces)
    assert uvs.min() >= 0
    assert uvs.max() <= 1
    a, b, c = uvs[faces].unbind(1)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs() / 2
    assert 0.3 < area.sum() < 1


def test_sample_texture_reads_v_upwards():
    texture = torch.zeros(3, 2, 2)
    texture[0, 0, 1] = 1.0  # red at the top right
    corners = torch.tensor([[0.75, 0.75], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    assert torch.allclose(sample_texture(texture, corners)[:, 0], torch.tensor([1.0, 0, 0, 0.25]))


def test_ray_caster_measures_a_sphere(sphere):
    cameras = orbit_cameras(10, 9)
    depth = RayCaster(sphere.vertices, sphere.faces).depth(cameras, 3)
    assert depth[4, 4].item() == pytest.approx(1.5 - RADIUS, abs=2e-3)
    assert depth[0, 0].isinf()


def test_bad_input_is_one_line(sphere):
    empty = SurfaceMesh(sphere.vertices, sphere.faces[:0], sphere.vertex_rgb)
    views = sphere_views(orbit_cameras(0, 32, num_views=2), supersampling=1)
    with pytest.raises(InputError, match="no faces"):
        bake_texture(empty, views, CONFIG)
    away = SurfaceMesh(sphere.vertices + 10, sphere.faces, sphere.vertex_rgb)
    with pytest.raises(InputError, match="no view sees"):
        bake_texture(away, views, CONFIG)
    with pytest.raises(InputError, match="resolution is 0"):
        TextureConfig(resolution=0)


def test_tiny_meshes_have_charts():
    """A mesh of a single voxel: xatlas would leave its triangles out."""
    speck = from_trimesh(trimesh.creation.icosphere(subdivisions=0, radius=0.003))
    _, faces, uvs = unwrap(speck, 64, 4)
    a, b, c = uvs[faces].unbind(1)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs() / 2
    assert (area > 1e-3).all()
