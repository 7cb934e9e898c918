"""Judges trained by ``clade judge train``: a network of segmentation-models-pytorch in one ``.safetensors`` file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from clade._version import __version__
from clade.errors import CheckpointError, RecipeError, first_line
from clade.labels import LabelSpace
from clade.metrics.judges.base import Size
from clade.metrics.judges.matching import ClassMap, Match, NamedJudge, chosen
from clade.metrics.judges.packages import require
from clade.metrics.judges.pixels import Images, as_pixels, normalized
from clade.models.checkpoints import FORMAT, read_header, write_tensors
from clade.registry import near_match

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which torchvision's weights were trained with."""
_OWN = ("encoder_weights", "in_channels", "classes", "activation", "aux_params")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What rebuilds the network.

    Args:
        name: of segmentation-models-pytorch: unet, fpn, deeplabv3plus, ...
        encoder: resnet18, mobilenet_v2, ...
        options: further keywords of the network.
    """

    name: str
    encoder: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, num_classes: int) -> nn.Module:
        """The network with random weights; nothing is downloaded.

        Raises:
            RecipeError: no such network, encoder or option.
        """
        require("segmentation_models_pytorch", "A judge trained here")
        import segmentation_models_pytorch as smp

        names = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
        if self.name.lower() not in names:
            raise RecipeError(
                f"There is no network '{self.name}' for a judge.{near_match(self.name, names)} "
                f"Known: {', '.join(names)}."
            )
        taken = sorted(set(_OWN) & set(self.options))
        if taken:
            raise RecipeError(f"network.options holds '{taken[0]}', which is set here. Leave it out.")
        if not re.fullmatch(r"[\w.-]+", self.encoder):  # timm reads hf-hub:NAME as something to download
            raise RecipeError(f"'{self.encoder}' is no name of an encoder; needed is one such as resnet18.")
        try:
            network = smp.create_model(
                self.name, self.encoder, encoder_weights=None, classes=num_classes, **self.options
            )
        except Exception as error:  # of whatever the options come to deep inside
            text = " ".join(str(error).split())
            text = text if len(text) < 200 else text[:160] + "..."
            raise RecipeError(
                f"The network '{self.name}' with encoder '{self.encoder}' and options {dict(self.options)} cannot be "
                f"built ({type(error).__name__}: {text})."
            ) from error
        return network


class TrainedJudge(NamedJudge):
    """A segmenter that was trained on real photos of a dataset.

    Images of another size than it was trained at are brought to that size first, as its training pictures were
    (Pillow's bicubic filter), and its scores back: so it sees things at the scale that it knows.

    Args:
        network: as ``architecture.build`` makes it.
        space: the classes that it was trained with.
        size: (height, width) of its training pictures.
        name: what to call it.
        info: further facts: step, score on held-out photos, ...
    """

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        space: LabelSpace,
        size: Size,
        name: str = "judge",
        *,
        recipe: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
        matched: Match | None = None,
    ) -> None:
        super().__init__(network, space.names, matched)
        self.architecture, self.label_space, self.size, self.name = architecture, space, (size[0], size[1]), name
        self.recipe = None if recipe is None else dict(recipe)
        self.info = dict(info or {})

    def preprocess(self, images: Images) -> Tensor:
        pixels = _resized(as_pixels(images), self.size)
        return normalized(pixels.to(self.device), MEAN, STD)

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        logits = self.network(padded(x, self.network))[..., : x.shape[-2], : x.shape[-1]]
        if size is None or tuple(logits.shape[-2:]) == tuple(size):
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Images -> the encoder's last features, averaged over the picture: (N, dim) float32."""
        x = self.preprocess(images)
        encoder: Any = self.network.encoder
        return self.guarded(x, lambda: encoder(padded(x, self.network))[-1].mean((2, 3)))

    @property
    def dim(self) -> int:
        """Length of a vector of :meth:`features`."""
        encoder: Any = self.network.encoder
        return int(encoder.out_channels[-1])

    def options(self) -> dict[str, object]:
        return {**super().options(), "size": self.size, "mean": MEAN, "std": STD}

    def save(self, path: str | Path) -> None:
        """Write one ``.safetensors`` file that says all that is needed to rebuild the judge."""
        if Path(path).suffix != ".safetensors":
            raise CheckpointError(f"{path}: name it .safetensors; that is what is written.")
        header = {
            "format": FORMAT,
            "version": __version__,
            "kind": "judge",
            "judge": {
                "name": self.name,
                "architecture": self.architecture.name,
                "encoder": self.architecture.encoder,
                "options": dict(self.architecture.options),
                "size": list(self.size),
            },
            "label_space": self.label_space.to_dict(),
            "recipe": self.recipe,
            "info": self.info,
        }
        write_tensors(path, self.network.state_dict(), header)


def read_judge(
    path: str | Path, *, names: tuple[str, ...] | None = None, mapping: ClassMap | None = None
) -> TrainedJudge:
    """Read a file that ``clade judge train`` wrote; nothing is unpickled.

    Args:
        names: of the classes to answer in, where they are not the judge's own; see
            :func:`clade.metrics.judges.matching.match`.
        mapping: which classes are meant where names differ.

    Raises:
        CheckpointError: missing, damaged, or no judge's file.
        LabelError: classes that do not match.
    """
    header = read_header(path)
    if header.get("kind") != "judge":
        what = "a training state" if "training" in header else "a generator" if "generator" in header else "no judge"
        raise CheckpointError(
            f"{path}: holds {what}. A judge is what `clade judge train` writes: best.safetensors there."
        )
    try:
        facts = header["judge"]
        architecture = Architecture(name=facts["architecture"], encoder=facts["encoder"], options=facts["options"])
        space = LabelSpace.from_dict(header["label_space"], source="label space")
        name, (height, width) = str(facts["name"]), (int(side) for side in facts["size"])
        recipe, info = header["recipe"], {**header["info"], "version": header["version"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}). Fetch or write the file anew.") from error
    try:
        with torch.random.fork_rng(devices=[]):  # random weights, only to be overwritten
            network = architecture.build(space.num_classes)
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, RecipeError, TypeError) as error:
        raise CheckpointError(f"{path}: the network that the file names cannot be made of it: {error}") from error
    matched = chosen(space.names, names, mapping)
    return TrainedJudge(network, architecture, space, (height, width), name, recipe=recipe, info=info, matched=matched)


def load_encoder(network: nn.Module, path: str | Path) -> None:
    """Put published weights (torchvision's ``resnet18-f37072fd.pth``, say) into the encoder; nothing is unpickled.

    Raises:
        CheckpointError: missing, unreadable or not this encoder's.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Leave network.weights out to begin with random weights.")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file fails in many ways
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}: {first_line(error)})."
        ) from error
    encoder: Any = network.encoder
    try:
        encoder.load_state_dict(dict(state))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        own, theirs = set(encoder.state_dict()), set(state) if isinstance(state, Mapping) else set()
        missing = sorted(own - theirs)
        told = f"{len(missing)} are missing, first {missing[0]}" if missing else " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: the weights do not fit the encoder: {told}. Set network.encoder to theirs."
        ) from error


def padded(x: Tensor, network: nn.Module) -> Tensor:
    """(N, 3, H, W) with its last rows and columns repeated, up to sides that the network can take."""
    encoder: Any = network.encoder
    multiple = int(encoder.output_stride)
    below, right = (-x.shape[-2]) % multiple, (-x.shape[-1]) % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def _resized(pixels: Tensor, size: Size) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, 3, *size) uint8, as training pictures are resampled."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    height, width = size
    pictures = [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        for picture in np.ascontiguousarray(pixels.movedim(1, 3).cpu().numpy())
    ]
    return torch.from_numpy(np.stack(pictures)).movedim(3, 1)
