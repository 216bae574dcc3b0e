"""The protocols by name: what each number means."""

from dataclasses import dataclass, replace
from typing import Any

from hi3d.errors import InputError
from hi3d.evaluation.protocols.alignment import ALIGNMENTS
from hi3d.images.lpips import LpipsNetwork
from hi3d.images.st_lpips import weights_of


@dataclass(frozen=True)
class Protocol:
    """What a number means. Numbers of two protocols do not belong in one table."""

    name: str
    statement: str
    """One line for the reader of a table."""
    view_size: int = 256
    """Side of the compared views in pixels."""
    first_view_counts: bool = True
    """View 0 is the photo itself, which lifts the mean."""
    pooled: bool = False
    """PSNR and SSIM of all views as one set, instead of the mean over views."""
    lpips_network: LpipsNetwork = LpipsNetwork.vgg
    shift_tolerant: bool = False
    """ST-LPIPS (AlexNet) instead of LPIPS, in a column of its own."""
    mesh_points: str | None = "seen"
    """`seen` by the 16 cameras of elevation 30, samples of the `surface`, or None: no mesh."""
    alignment: str = "none"
    """Key of `ALIGNMENTS`."""

    def check_size(self, resolution: int) -> None:
        """Raise where the truth is smaller than the compared views.

        Args:
            resolution: side of the true views in pixels.
        """
        if resolution < self.view_size:
            raise InputError(
                f"protocol {self.name} compares views of {self.view_size} pixels: add "
                f"truth.resolution={self.view_size}"
            )

    def check_package(self) -> None:
        """Raise where the weights that it needs are not installed."""
        if self.shift_tolerant:
            weights_of(LpipsNetwork.alex)


SYNCDREAMER = Protocol(
    "syncdreamer",
    "16 views of 256x256 with view 0, over white: PSNR and SSIM per view, LPIPS (VGG), then means; "
    "Chamfer of points seen from elevation 30, unsquared and halved; IoU at 64^3 over [-1, 1]^3; "
    "the prediction as it is",
)
SURFACE = Protocol(
    "whole-surface",
    "views 1-15 of 256x256; Chamfer (unsquared, halved), F-scores and normal consistency of "
    "100,000 samples of whole surfaces; IoU at 64^3 and 128^3; the prediction as it is",
    first_view_counts=False,
    mesh_points="surface",
)


def _views_only(name: str, statement: str, **changes: Any) -> Protocol:
    return replace(SYNCDREAMER, name=name, statement=statement, mesh_points=None, **changes)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        SYNCDREAMER,
        replace(
            SYNCDREAMER,
            name="syncdreamer-excluding-view0",
            statement="as syncdreamer, views 1-15",
            first_view_counts=False,
        ),
        _views_only("views512", "as syncdreamer, truth of 512x512, views only", view_size=512),
        _views_only("views1024", "as syncdreamer, truth of 1024x1024, views only", view_size=1024),
        _views_only(
            "st-lpips",
            "as syncdreamer, views 1-15 only; ST-LPIPS (AlexNet) in place of LPIPS",
            first_view_counts=False,
            shift_tolerant=True,
        ),
        _views_only(
            "epidiff",
            "16 views of 256x256: PSNR of the pooled squared error and SSIM of the set per object, "
            "LPIPS (AlexNet)",
            pooled=True,
            lpips_network=LpipsNetwork.alex,
        ),
        SURFACE,
        *(
            replace(
                SURFACE,
                name=f"whole-surface-{alignment}",
                statement=f"as whole-surface, the prediction aligned first ({alignment})",
                alignment=alignment,
            )
            for alignment in ALIGNMENTS
            if alignment != "none"
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no protocol named {name}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
