"""Networks that are loaded once, and what is made with them: the functions of the scripts."""

import zipfile
from dataclasses import replace
from pathlib import Path

from hi3d.demo.job import Turns
from hi3d.demo.settings import DemoConfig
from hi3d.errors import InputError
from hi3d.files import atomic_path
from hi3d.pipelines.image_to_3d import Photo, Photo3D, one_result, read_photo
from hi3d.pipelines.loading import StagePipeline, load_pipeline
from hi3d.pipelines.orbit import OrbitPipeline
from hi3d.pipelines.refiner import RefinerPipeline
from hi3d.text_to_image.drawing import TextToImage

OBJ_FILES = ("mesh.obj", "mesh.mtl", "mesh.png")


class Studio:
    """Where photos become meshes, one at a time."""

    def __init__(self, config: DemoConfig):
        """Args:
        config: of the owner, checked; both stages are loaded.

        Raises:
            InputError: a model folder is missing, damaged or of the other stage.
        """
        self.config, self.memory = config, config.memory
        self.turns = Turns(config.limits.waiting)
        self.kept: dict[type[StagePipeline], StagePipeline] = {
            OrbitPipeline: load_pipeline(OrbitPipeline, config.stage1, config.memory)
        }
        if config.refine_with == "stage2":
            self.kept[RefinerPipeline] = load_pipeline(
                RefinerPipeline, config.stage2, config.memory
            )
        self.artist = (
            None
            if config.text_to_image is None
            else TextToImage(config.text_to_image, config.drawing)
        )

    def cut_out(self, photo: Path) -> Photo:
        """A photo, cut out and framed.

        Raises:
            InputError: it cannot be read, or shows no object.
        """
        return read_photo(photo, self.config)

    def elevation_deg(self, photo: Photo) -> float | None:
        """Of the photo's camera, by stage 1's part for it; None while it is busy."""
        if self.config.elevation_deg != "auto" or self.config.elevation_from != "regressor":
            return photo.elevation_deg
        ticket = self.turns.enter()
        try:
            if self.turns.ahead(ticket):
                return None
            pipeline = replace(photo, kept=self.kept).pipeline(OrbitPipeline, self.config.stage1)
            return pipeline.photo_elevation_deg(photo.reference)
        finally:
            self.turns.leave(ticket)

    def draw(self, prompt: str, path: Path) -> Photo:
        """The picture of a prompt, cut out and framed.

        Args:
            prompt: the words.
            path: where the picture is kept.

        Raises:
            InputError: no model is configured, or it cannot draw this.
        """
        if self.artist is None:
            raise InputError("no model draws prompts here: send a photo")
        picture = self.artist.draw(prompt, self.config.foreground)
        with atomic_path(path) as partial:
            picture.save(partial, "PNG")
        return self.cut_out(path)

    def make(self, photo: Photo, config: DemoConfig, folder: Path) -> Photo3D:
        """The chain, with all files in a folder.

        Args:
            photo: of `cut_out` or `draw`.
            config: of `hi3d.demo.settings.chosen`.
            folder: not there yet.

        Raises:
            InputError: the views show no object.
        """
        if config.memory != self.memory:  # where networks lie depends on it: load them anew
            self.kept.clear()
            self.memory = config.memory
        angle = None if config.elevation_deg == "auto" else float(config.elevation_deg)
        given = replace(photo, config=config, elevation_deg=angle, kept=self.kept)
        made = one_result(Path("photo"), given, folder)
        with (
            atomic_path(folder / "mesh_obj.zip") as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name in OBJ_FILES:
                if (folder / name).is_file():
                    archive.write(folder / name, name)
        return made
