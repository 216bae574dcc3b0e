"""The exponential moving average of the trained weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Averages a network's trained parameters; its copy is the only memory it takes.

    The decay rises from 0 to its value as 1 - (1 + n)^(-3/4) in the n-th step, so that the first
    weights, which are random or another model's, are soon forgotten. Parameters may be sharded.
    """

    def __init__(self, network: nn.Module, decay: float):
        """Args:
        network: whose parameters are averaged.
        decay: in (0, 1): about the last 1 / (1 - decay) steps count.
        """
        self.network = network
        self.decay = decay
        self.num_updates = 0
        self.is_in = False
        """Whether network and average have changed places."""
        self.restart()

    def restart(self) -> None:
        """Begin from the present weights, for example after they were sharded or set."""
        self.average = {name: p.detach().clone() for name, p in self._parameters()}

    def to(self, device: torch.device) -> None:
        """Move the average to where the network is."""
        self.average = {name: value.to(device) for name, value in self.average.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after a step into account."""
        decay = min(self.decay, 1 - (1 + self.num_updates) ** -0.75)
        self.num_updates += 1
        averages = list(self.average.values())
        get_ema_multi_avg_fn(decay)(averages, [p for _, p in self._parameters()], 0)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the average into the network and the weights in its place, or back."""
        for name, parameter in self._parameters():
            weights = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(weights)
        self.is_in = not self.is_in

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors on the CPU, also of sharded parameters; not while it is in the network."""
        values = {name: whole(value) for name, value in self.average.items()}
        return {"num_updates": self.num_updates, "average": values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.num_updates = state["num_updates"]
        for name, value in self.average.items():
            found = state["average"][name].to(value.device)
            if isinstance(value, DTensor):
                found = distribute_tensor(found, value.device_mesh, value.placements)
            value.copy_(found)

    def _parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.network.named_parameters() if p.requires_grad)


def whole(value: Tensor) -> Tensor:
    """A tensor on the CPU, gathered from all processes if it is sharded."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()


def is_sharded(network: nn.Module) -> bool:
    """Whether processes hold parts of its parameters."""
    return any(isinstance(parameter, DTensor) for parameter in network.parameters())
