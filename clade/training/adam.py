"""Adam without a first moment, for beta1 = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MomentumFreeAdam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015) with beta1 = 0, as these networks are trained; it keeps one copy of the weights less.

        m_t = 0 * m_{t-1} + 1 * g_t = g_t

    The first moment is the gradient itself, which torch's Adam is given in its place. Results are the same bit for bit.

    Args:
        params, lr: as ``torch.optim.Adam`` takes them.
        beta2: decay of the second moment.
    """

    def __init__(self, params: Any, lr: float, beta2: float) -> None:
        super().__init__(params, lr=lr, betas=(0.0, beta2), fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and self.state[parameter]:
                    self.state[parameter]["exp_avg"] = parameter.grad
        loss = super().step(closure)
        for moments in self.state.values():
            moments.pop("exp_avg", None)
        return loss
