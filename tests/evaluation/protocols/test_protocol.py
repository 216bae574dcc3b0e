from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import gaussian_filter

from hi3d.errors import InputError
from hi3d.evaluation.mesh_metrics import rotated_about_up, sample_surface
from hi3d.evaluation.protocols.alignment import ALIGNMENTS
from hi3d.evaluation.protocols.depth_points import depth_chamfer
from hi3d.evaluation.protocols.mesh_scores import score_mesh
from hi3d.evaluation.protocols.protocol import PROTOCOLS, find_protocol
from hi3d.evaluation.protocols.scores import score_object
from hi3d.evaluation.protocols.validity import mesh_validity, self_intersecting_faces
from hi3d.evaluation.protocols.view_scores import ssim_around
from hi3d.evaluation.view_metrics import ssim
from hi3d.mesh import SurfaceMesh
from tests.evaluation.protocols.shapes import surface


def views(num: int = 16, size: int = 256, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(num, 3, 16, 16, generator=generator)
    truth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    strength = torch.linspace(0, noise, num).view(-1, 1, 1, 1)
    pred = truth + strength * torch.randn(truth.shape, generator=generator)
    return pred.clamp(0, 1), truth


BOX = trimesh.creation.box((1.0, 0.6, 0.4))


def test_views_equal_an_independent_computation():
    pred, truth = views(num=4)
    pred[0] = (pred[0] + 0.05).clamp(0, 1)
    scores, notes = score_object(PROTOCOLS["syncdreamer"], pred, truth, None, None)
    a, b = (images.double().numpy().transpose(0, 2, 3, 1) for images in (pred, truth))
    psnr = np.mean([10 * np.log10(1 / np.mean((x - y) ** 2)) for x, y in zip(a, b, strict=True)])
    assert scores["psnr"] == pytest.approx(psnr, abs=1e-4)
    similar = []
    for x, y in zip(a, b, strict=True):
        span = max(np.ptp(x), np.ptp(y))

        def mean(image: np.ndarray) -> np.ndarray:
            # 11 taps of sigma 1.5; `mirror` does not repeat the border's pixel.
            return gaussian_filter(image, (1.5, 1.5, 0), mode="mirror", truncate=3.5)

        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        full = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        similar.append(full.mean())
    assert scores["ssim"] == pytest.approx(np.mean(similar), abs=1e-5)
    assert notes == []


@pytest.mark.parametrize("box", [(20, 50, 3, 31), (0, 64, 30, 64), (0, 0, 0, 0), (63, 64, 0, 1)])
def test_similarity_around_the_object_is_that_of_the_whole_image(box):
    pred, truth = views(num=1, size=64)
    for images in (pred, truth):
        inside = images[..., box[0] : box[1], box[2] : box[3]].clone()
        images.fill_(1)[..., box[0] : box[1], box[2] : box[3]] = inside
    expected = ssim(pred, truth).item() if box[1] else 1
    assert ssim_around(pred[0], truth[0]) == pytest.approx(expected, abs=1e-6)


def test_protocols_differ_as_they_say():
    pred, truth = views()
    pred[0] = truth[0]

    def score(name: str) -> dict[str, float]:
        return score_object(PROTOCOLS[name], pred, truth, None, None)[0]

    each = [
        -10 * np.log10(((p - t).double() ** 2).mean().item()) if n else 100.0
        for n, (p, t) in enumerate(zip(pred, truth, strict=True))
    ]
    assert score("syncdreamer")["psnr"] == pytest.approx(np.mean(each), abs=1e-4)
    assert score("syncdreamer-excluding-view0")["psnr"] == pytest.approx(
        np.mean(each[1:]), abs=1e-4
    )
    pooled = -10 * np.log10(((pred - truth).double() ** 2).mean().item())
    assert score("epidiff")["psnr"] == pytest.approx(pooled, abs=1e-4)


def test_unusual_views_are_said_or_not_scored():
    pred, truth = views(size=128)
    scores, notes = score_object(PROTOCOLS["syncdreamer"], pred, truth, None, None)
    assert scores["psnr"] is not None
    assert notes[0] == "predicted views resized from 128x128 to 256x256"
    for bad, line in (
        (None, "0 of 16 views"), (pred[:12], "12 of 16 views"), (pred * np.nan, "not finite")
    ):  # fmt: skip
        scores, notes = score_object(PROTOCOLS["syncdreamer"], bad, truth, None, None)
        assert set(scores.values()) == {None}
        assert line in notes[-1]
    with pytest.raises(InputError, match=r"no protocol named x: choose one of syncdreamer"):
        find_protocol("x")


def test_surface_scores_of_a_moved_box():
    truth, moved = surface(BOX), surface(BOX.copy().apply_translation((0, 0, 0.1)))
    same = score_mesh(PROTOCOLS["whole-surface"], truth, truth, [])
    assert same["chamfer"] < 4e-3
    assert same["iou64"] == same["iou128"] == 1.0
    assert same["normal_consistency"] == pytest.approx(1, abs=0.01)  # edges
    scores = score_mesh(PROTOCOLS["whole-surface"], moved, truth, [])
    assert scores["iou128"] == pytest.approx(0.3 / 0.5, abs=0.03)
    assert scores["f_score_0.01"] < scores["f_score_0.05"] < same["f_score_0.05"]
    seen = score_mesh(PROTOCOLS["syncdreamer"], moved, truth, [])
    assert seen["iou64"] == pytest.approx(0.6, abs=0.08)
    assert 0.02 < seen["chamfer"] < 0.08


def test_alignments_undo_what_they_say():
    truth = surface(trimesh.util.concatenate(
        [BOX, trimesh.creation.box((0.2, 0.2, 0.3)).apply_translation((0.4, 0.2, 0.3))]
    ))  # fmt: skip
    truth = ALIGNMENTS["scale-centre"](truth, truth)
    larger = replace(truth, vertices=truth.vertices * 1.7 + 0.2)
    turned = rotated_about_up(larger, 47)
    tilted = rotated_about_up(truth, 12)

    def chamfer(pred: SurfaceMesh, way: str) -> float:
        aligned = ALIGNMENTS[way](pred, truth)
        points = [sample_surface(mesh, 4000, seed) for seed, mesh in enumerate((aligned, truth))]
        return depth_chamfer(*points)

    assert chamfer(larger, "none") > 0.1
    assert chamfer(larger, "scale-centre") < 0.015
    assert chamfer(turned, "scale-centre") > 0.02
    assert chamfer(turned, "best-yaw") < 0.015
    assert chamfer(tilted, "icp") < 0.5 * chamfer(tilted, "scale-centre")


def test_broken_meshes_are_never_a_silent_number():
    truth = surface(BOX)

    def notes_of(mesh: SurfaceMesh | None) -> tuple[dict, str]:
        scores, notes = score_object(PROTOCOLS["syncdreamer"], None, None, mesh, truth)
        return scores, "; ".join(notes)

    scores, line = notes_of(None)
    assert set(scores.values()) == {None}
    assert "no mesh" in line
    empty = replace(truth, faces=truth.faces[:0])
    assert "has no faces" in notes_of(empty)[1]
    holed = replace(truth, faces=truth.faces[1:])
    scores, line = notes_of(holed)
    assert "open (3 edges)" in line
    assert scores["iou64"] > 0.5
    inverted = replace(truth, faces=truth.faces.flip(1))
    scores, line = notes_of(inverted)
    assert "inside out" in line
    assert scores["iou64"] == 1.0
    bad = truth.vertices.clone()
    bad[0] = torch.nan
    scores, line = notes_of(replace(truth, vertices=bad))
    assert "faces with NaN" in line
    assert np.isfinite(scores["chamfer"])
    assert "reaches 1.5" in notes_of(replace(truth, vertices=truth.vertices * 3))[1]
    far = replace(truth, vertices=truth.vertices + 50)
    assert "no camera sees" in notes_of(far)[1]


def test_validity_counts():
    good = mesh_validity(surface(BOX))
    assert good == {"watertight": 1, "manifold": 1, "oriented": 1, "has_uvs": 0,
                    "debris_pieces": 0, "self_intersecting_faces": 0}  # fmt: skip
    crossing = BOX.copy().apply_translation((0.3, 0.2, 0.1))
    speck = trimesh.creation.icosphere(0, 0.01).apply_translation((2, 0, 0))
    bad = mesh_validity(surface(trimesh.util.concatenate([BOX, crossing, speck])))
    assert bad["self_intersecting_faces"] > 4
    assert bad["debris_pieces"] == 1
    assert mesh_validity(surface(BOX.submesh([range(5)], append=True)))["watertight"] == 0
    ball = trimesh.creation.icosphere(3)
    assert len(self_intersecting_faces(ball.vertices, ball.faces)) == 0
