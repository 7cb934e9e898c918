"""LPIPS: how different two pictures look, and how much a multi-modal model varies one label map."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image.lpips import _normalize_tensor, _NoTrainLpips

from clade.errors import CheckpointError, CladeError, DataError
from clade.metrics.judges.pixels import Images, as_pixels
from clade.metrics.weights import full_precision, hub_file, network_key, randomized, read_tensors, seeded
from clade.registry import near_match

_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""Torchvision's ImageNet weights of the backbones, by the name of LPIPS's network."""


class LPIPS(nn.Module):
    """Learned perceptual distance (Zhang et al. 2018), version 0.1; the linear weights come with torchmetrics.

        d(x, y) = sum_l mean_hw w_l . (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2

    Args:
        net: backbone, ``alex`` (the usual one for scores), ``vgg`` or ``squeeze``.
        weights: file of torchvision's ImageNet weights of the backbone, ``.pth`` (never unpickled) or
            ``.safetensors``; None: torchvision's own file in the torch hub cache; ``"random"``: seeded, for tests only.

    Raises:
        CladeError: no such network.
        CheckpointError: weights that are missing or not the backbone's.
    """

    def __init__(self, net: str = "alex", weights: str | Path | None = None) -> None:
        super().__init__()
        if net not in _FILES:
            raise CladeError(f"There is no LPIPS network '{net}'.{near_match(net, _FILES)} Known: {', '.join(_FILES)}.")
        self.name = f"lpips-{net}" + ("-random" if weights == "random" else "")
        with seeded():
            self.network = _NoTrainLpips(net=net, pnet_rand=True)  # pyright: ignore[reportArgumentType]
        if weights == "random":
            randomized(self.network.net)
        else:
            self._load(weights, _FILES[net])
        self.requires_grad_(False).eval()

    def _load(self, weights: str | Path | None, file: str) -> None:
        url = f"https://download.pytorch.org/models/{file}"
        path = hub_file(file, url, f"The backbone of '{self.name}'") if weights is None else Path(weights)
        state = read_tensors(path, f"Needed is {file} of {url}.")
        # features.3.weight -> slice2.3.weight (squeeze: slices.1.3.weight)
        places = {key.split(".", 2 if "slices." in key else 1)[-1]: key for key in self.network.net.state_dict()}
        found = {key.removeprefix("features."): value for key, value in state.items()}
        own = self.network.net.state_dict()
        for short, key in places.items():
            if short not in found or found[short].shape != own[key].shape:
                raise CheckpointError(
                    f"{path}: 'features.{short}' is missing or not {tuple(own[key].shape)}. Needed is {file} of {url}."
                )
        self.network.net.load_state_dict({key: found[short] for short, key in places.items()})

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in eval mode."""
        return super().train(False)

    @property
    def key(self) -> str:
        """Its name, and a hash of its weights."""
        return network_key(self.name, self.network)

    @torch.no_grad()
    def features(self, images: Images) -> list[Tensor]:
        """Per layer of the backbone, (N, C, h, w), of length 1 along C.

        Args:
            images: (N, 3, H, W) in [-1, 1], rounded to 8 bits as a PNG file would be; or uint8.
        """
        network = self.network
        device = next(network.parameters()).device
        pixels = as_pixels(images)
        if min(pixels.shape[-2:]) < 32:
            raise CladeError(
                f"Pictures of {pixels.shape[-2]}x{pixels.shape[-1]} came; '{self.name}' needs sides of 32 or more."
            )
        x = pixels.to(device).float() / 127.5 - 1
        with full_precision(device):
            return [_normalize_tensor(layer) for layer in network.net(network.scaling_layer(x))]  # pyright: ignore[reportGeneralTypeIssues]

    @torch.no_grad()
    def between(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """Distance of pictures by their :meth:`features`, (N,)."""
        with full_precision(one[0].device):
            layers = zip(self.network.lins, one, other, strict=True)  # pyright: ignore[reportArgumentType]
            return torch.stack([lin((a - b).square()).mean((1, 2, 3)) for lin, a, b in layers]).sum(0)

    def forward(self, one: Images, other: Images) -> Tensor:
        """Distance of each picture to its partner, (N,)."""
        return self.between(self.features(one), self.features(other))


class Diversity(Metric):
    """Mean LPIPS over pairs of pictures drawn from the same label map (as BicycleGAN; the paper's multi-modal score).

    All pairs of a label map's pictures count the same, and so does every label map.

    Args:
        lpips: the distance.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    maps: Tensor
    pairs: Tensor

    def __init__(self, lpips: LPIPS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lpips = lpips
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("maps", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, samples: Tensor) -> None:
        """Add label maps by their pictures, (N, K, 3, H, W) in [-1, 1] or uint8, K at least 2.

        Raises:
            CladeError: one picture per label map, or another shape.
        """
        if samples.ndim != 5 or samples.shape[1] < 2 or samples.shape[2] != 3:
            raise CladeError(
                f"Pictures of shape {tuple(samples.shape)} came; needed is (label maps, pictures of each, 3, H, W), at "
                "least 2 pictures of each (--samples)."
            )
        layers = [self.lpips.features(samples[:, k]) for k in range(samples.shape[1])]
        distances = [self.lpips.between(a, b).double() for a, b in itertools.combinations(layers, 2)]
        self.total = self.total + torch.stack(distances).mean(0).sum().to(self.total.device)
        self.maps = self.maps + samples.shape[0]
        self.pairs = self.pairs + samples.shape[0] * math.comb(samples.shape[1], 2)

    def compute(self) -> dict[str, Tensor]:
        """``lpips`` (higher is more diverse), and how many ``maps`` and ``pairs``; raises DataError without any."""
        if not int(self.maps):
            raise DataError("No pictures came to compare. Draw at least 2 of each label map (--samples).")
        return {"lpips": self.total / self.maps, "maps": self.maps, "pairs": self.pairs}
