"""How a training is spread over devices: DDP, FSDP or DeepSpeed ZeRO-2."""

from importlib.util import find_spec
from typing import Any

from pytorch_lightning.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from hi3d.errors import InputError

SHARDED_LISTS = ("resnets", "attentions")
"""Lists of a UNet's blocks whose modules are gathered one by one."""
DEEPSPEED = "deepspeed"
"""Beginning of the strategies that write and read folders of their own as checkpoints."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP of the second kind: weights, gradients and optimizer state are cut over all devices.

    Checkpoints are whole files as of any other strategy.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Shard over all processes of all nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def build_strategy(name: str) -> str | Strategy:
    """The strategy that `trainer.strategy` names, which may be one of Lightning's.

    Raises:
        InputError: it needs a package that is not installed.
    """
    if name == "fsdp":
        return ShardedStrategy()
    if name.startswith(DEEPSPEED):
        if find_spec(DEEPSPEED) is None:
            raise InputError(
                f"trainer.strategy={name} needs DeepSpeed: pip install 'hi3d[deepspeed]', "
                "or use trainer.strategy=fsdp"
            )
        if name == "deepspeed_zero2":
            settings: dict[str, Any] = {"stage": 2, "exclude_frozen_parameters": True}
            return DeepSpeedStrategy(**settings)
    return name


def can_skip(strategy: Strategy) -> bool:
    """Whether taking the gradients away skips a step: DeepSpeed keeps its own."""
    return not isinstance(strategy, DeepSpeedStrategy)


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Cut a network's parameters over a mesh; blocks are gathered when they run, one by one."""
    for name, blocks in network.named_modules():
        if isinstance(blocks, nn.ModuleList) and name.endswith(SHARDED_LISTS):
            for block in blocks:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
