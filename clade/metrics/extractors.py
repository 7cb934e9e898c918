"""Networks that turn a picture into a feature vector: FID's Inception, libraries' backbones, a judge's encoder."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CheckpointError, CladeError
from clade.metrics.judges.pixels import Images, as_pixels
from clade.metrics.weights import (
    RANDOM,
    fit_weights,
    full_precision,
    hub_file,
    named,
    network_key,
    randomized,
    read_tensors,
    require,
    seeded,
)

NAMES = ("inception", "dinov2", "timm:NAME", "hf:NAME", "judge:FILE")


class Extractor(nn.Module, ABC):
    """A network that sees pictures as feature vectors; always in eval mode, in full precision, without gradients.

    Args:
        name: what scores are named after.
        network: on which the features depend, and so the key.
    """

    dim: int
    """Length of a feature vector."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Extractor:
        """Stays in eval mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Pictures -> features (N, dim) float32.

        Args:
            images: (N, 3, H, W), uint8; or floats in [-1, 1], which are rounded to 8 bits as a PNG file would be.

        Raises:
            CladeError: something else.
        """
        pixels = as_pixels(images).to(self.device)
        with full_precision(pixels.device):
            return self.compute(pixels).float()

    @abstractmethod
    def compute(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, dim)"""

    def options(self) -> dict[str, Any]:
        """What changes the features besides the weights."""
        return {}

    @cached_property
    def key(self) -> str:
        """Tells extractors apart in caches and tables: the name, and a hash of weights and preprocessing."""
        return network_key(self.name, self.network, self.options())


def create_extractor(name: str, weights: str | Path | None = None, *, dtype: torch.dtype = torch.float32) -> Extractor:
    """An extractor by name. Nothing is downloaded.

    Args:
        name: ``inception`` (FID's, by torch-fidelity), ``dinov2`` (ViT-S/14 by timm), ``timm:NAME`` (any timm model),
            ``hf:NAME`` (any vision model of transformers, by the hub's name or its folder) or ``judge:FILE`` (the
            encoder of a segmenter that ``clade judge train`` made; float32 only).
        weights: a file (``hf:``: a folder) with the published weights; None: the library's own local cache;
            ``"random"``: seeded random weights, for tests only.
        dtype: to compute in, float32 or float64; features are float32.

    Raises:
        CladeError: no such name, or a library that is not installed.
        CheckpointError: weights that are missing, with the file that is needed, or not this network's.
    """
    if dtype not in (torch.float32, torch.float64):
        raise CladeError(f"dtype is {dtype}; features are computed in torch.float32 or torch.float64.")
    from clade.metrics.backbones import HuggingFaceExtractor, TimmExtractor

    kind, _, rest = name.partition(":")
    with seeded():  # weights that are drawn and then overwritten must not shift a training's random numbers
        if name == "inception":
            return InceptionExtractor(weights, dtype)
        if name == "dinov2":
            # 16 x 16 patches, as Stein et al. 2023 look at pictures; the published size is 518.
            return TimmExtractor("vit_small_patch14_dinov2.lvd142m", weights, dtype, name, img_size=224)
        if kind == "timm" and rest:
            return TimmExtractor(rest, weights, dtype)
        if kind == "hf" and rest:
            return HuggingFaceExtractor(rest, weights, dtype)
        if kind == "judge" and rest:
            return JudgeExtractor(rest, dtype)
    raise CladeError(f"There is no extractor called '{name}'. Known: {', '.join(NAMES)}.")


class InceptionExtractor(Extractor):
    """The Inception network of FID, with TensorFlow's resize to 299 x 299: torch-fidelity's, to the bit."""

    dim = 2048
    FILE = "weights-inception-2015-12-05-6726825d.pth"

    def __init__(self, weights: str | Path | None, dtype: torch.dtype) -> None:
        require("torch_fidelity", "torch-fidelity")
        network = _blank_inception("float64" if dtype == torch.float64 else "float32")
        if weights == RANDOM:
            randomized(network)
        else:
            url = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{self.FILE}"
            path = hub_file(self.FILE, url, "The Inception network of FID") if weights is None else Path(weights)
            how = f"Needed is {self.FILE} of {url}."
            fit_weights(network, read_tensors(path, how), path, how)
        super().__init__(named("inception", weights), network)
        self.dtype = dtype

    def compute(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)[0]

    def options(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype)}


def _blank_inception(dtype: str) -> nn.Module:
    """torch-fidelity's network before its weights: its own constructor unpickles a file or downloads one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Inception(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
            return super().load_state_dict(state_dict or self.state_dict(), *args, **kwargs)

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Inception(
        "inception",
        ["2048"],
        feature_extractor_weights_path=nothing,  # pyright: ignore[reportArgumentType]  # goes to torch.load
        feature_extractor_internal_dtype=dtype,
    )


class JudgeExtractor(Extractor):
    """Pooled encoder features of a segmenter (``judge.features``), as ``clade judge train`` makes them.

    Args:
        judge: what ``judges.open_judge`` takes: a ``.safetensors`` file, or ``hf:NAME``.
    """

    def __init__(self, judge: str, dtype: torch.dtype) -> None:
        from clade.metrics import judges

        if dtype != torch.float32:
            raise CladeError(f"A judge computes in float32, not {dtype}. Leave dtype out.")
        opened: Any = judges.open_judge(judge)
        if not hasattr(opened, "features"):
            raise CheckpointError(f"{judge}: this judge has no features to compare. Take one of `clade judge train`.")
        super().__init__(f"judge:{Path(judge).stem}", opened)
        self._judge_key: str = opened.key
        self.dim = self(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape[1]

    def compute(self, pixels: Tensor) -> Tensor:
        features: Any = self.network.features
        return features(pixels)

    def options(self) -> dict[str, Any]:
        return {"judge": self._judge_key}
