"""In what form a pipeline gives views."""

from typing import Any

from PIL import Image

from hi3d.config import check_choice
from hi3d.views import Views

OUTPUT_TYPES = ("views", "pt", "np", "pil")


def check_output_type(output_type: str) -> None:
    """Refuse an unknown form.

    Raises:
        InputError: none of `OUTPUT_TYPES`.
    """
    check_choice("output_type", output_type, OUTPUT_TYPES)


def frames_as(views: Views, output_type: str) -> Any:
    """Views as asked for.

    Args:
        views: V of them.
        output_type: `views` leaves them; `pt` a tensor [V, 3, H, W], `np` an array [V, H, W, 3],
            both over white in [0, 1]; `pil` a list of RGB images.
    """
    if output_type == "views":
        return views
    if output_type == "pt":
        return views.rgb
    array = views.rgb.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return array
    return [Image.fromarray(frame) for frame in (array * 255).round().astype("uint8")]
