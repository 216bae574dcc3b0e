"""All that can be trained: the paper's stages and the parts of the small model."""

from hi3d.nano.experiment import (
    DepthExperiment,
    ElevationExperiment,
    ImageEncoderExperiment,
    NanoStage1Experiment,
    NanoStage2Experiment,
    VAEExperiment,
)
from hi3d.nano.grid.training import GridPredictorExperiment, GridPredictorModule
from hi3d.nano.stages import NanoStage1Module, NanoStage2Module
from hi3d.nano.train_networks import (
    DepthModule,
    ElevationModule,
    ImageEncoderModule,
    VAEModule,
)
from hi3d.training.tasks import TASKS, Task

NANO_TASKS: dict[str, Task] = {
    "vae": Task(VAEExperiment, VAEModule),
    "image_encoder": Task(ImageEncoderExperiment, ImageEncoderModule),
    "elevation": Task(ElevationExperiment, ElevationModule),
    "depth": Task(DepthExperiment, DepthModule, load_depth=True),
    "grid_predictor": Task(GridPredictorExperiment, GridPredictorModule, load_depth=True),
    "nano_stage1": Task(NanoStage1Experiment, NanoStage1Module),
    "nano_stage2": Task(NanoStage2Experiment, NanoStage2Module),
}
ALL_TASKS = TASKS | NANO_TASKS
