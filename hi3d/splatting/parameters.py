"""The Gaussians of a fit as optimized tensors, in the layout of gsplat's densification."""

import torch
from torch import Tensor

from hi3d.splats import GaussianSplats


class SplatParameters:
    """Tensors under optimization, each with an Adam of its own; their rows can be replaced.

    `tensors` and `optimizers` have the names that gsplat's strategies expect: means, quats, scales
    (logarithms), opacities (logits), sh0 and, above degree 0, shN.
    """

    def __init__(self, splats: GaussianSplats, learning_rates: dict[str, float]):
        self.learning_rates = learning_rates
        self.tensors: dict[str, Tensor] = {
            name: torch.nn.Parameter(tensor.clone()) for name, tensor in _parts(splats).items()
        }
        # eps far below the default: the loss is a mean over pixels, so gradients are tiny.
        self.optimizers = {
            name: torch.optim.Adam(
                [{"params": [tensor], "lr": learning_rates[name]}], eps=1e-15, fused=True
            )
            for name, tensor in self.tensors.items()
        }

    def __len__(self) -> int:
        return len(self.tensors["means"])

    def splats(self) -> GaussianSplats:
        """The Gaussians, in the graph of the tensors."""
        sh = self.tensors["sh0"]
        if "shN" in self.tensors:
            sh = torch.cat([sh, self.tensors["shN"]], dim=1)
        return GaussianSplats(
            means=self.tensors["means"],
            quats=self.tensors["quats"],
            log_scales=self.tensors["scales"],
            logit_opacities=self.tensors["opacities"],
            sh=sh,
        )

    def decay(self, factor: float) -> None:
        """Set all learning rates to `factor` times their first values."""
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.learning_rates[name] * factor

    def step(self) -> None:
        """One step of every optimizer; the gradients are gone afterwards."""
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def replace(self, splats: GaussianSplats, source: Tensor, is_new: Tensor) -> None:
        """Put in other splats; old ones keep their moments, new ones start without.

        Args:
            splats: N' Gaussians.
            source: [N'] int64, the number of the old Gaussian that each comes from.
            is_new: [N'] bool.
        """
        for name, tensor in _parts(splats).items():
            optimizer = self.optimizers[name]
            state = optimizer.state.pop(self.tensors[name], {})
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state:
                    state[moment] = state[moment][source]
                    state[moment][is_new] = 0
            self.tensors[name] = torch.nn.Parameter(tensor.detach().clone())
            optimizer.param_groups[0]["params"] = [self.tensors[name]]
            optimizer.state[self.tensors[name]] = state


def _parts(splats: GaussianSplats) -> dict[str, Tensor]:
    parts = {
        "means": splats.means,
        "quats": splats.quats,
        "scales": splats.log_scales,
        "opacities": splats.logit_opacities,
        "sh0": splats.sh[:, :1],
    }
    return {**parts, "shN": splats.sh[:, 1:]} if splats.sh_degree > 0 else parts
