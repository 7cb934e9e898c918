"""A trained generator, ready to use: label maps in any form -> images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clade.checkpoints import read_checkpoint
from clade.data import read_photo
from clade.errors import CladeError, LabelError
from clade.images import to_uint8
from clade.labels import LabelMap, LabelSpace, label_array, read_label
from clade.labels.labelspace import OutsideError
from clade.models import Generator
from clade.nn import fold_spectral_norm

PRECISIONS = ("auto", "fp32", "bf16")


class Synthesizer:
    """Turns label maps into images with one generator.

    Args:
        generator: any generator of this library; it is copied, put into eval mode, and its spectral norm folded into
            the weights.
        label_space: how label files and arrays are read; without one, they must hold ids in ``[0, num_rows)``.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``.
        precision: ``fp32``, ``bf16`` (autocast), or ``auto``: fp32 on a CPU, bf16 on a GPU that computes in it.

    Raises:
        CladeError: a label space of another number of classes, an unknown device or precision.
    """

    def __init__(
        self,
        generator: Generator,
        label_space: LabelSpace | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
    ) -> None:
        if label_space is not None and label_space.num_rows != generator.num_rows:
            raise CladeError(
                f"The label space has {label_space.num_rows} ids, the generator {generator.num_rows} (with unknown)."
            )
        if precision not in PRECISIONS:
            raise CladeError(f"There is no precision '{precision}'. Known: {', '.join(PRECISIONS)}.")
        self.device = _device(device)
        if precision == "auto":
            fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bf16" if fast else "fp32"
        self.precision = precision
        self.label_space = label_space
        self.generator: Generator = fold_spectral_norm(copy.deepcopy(generator).eval().requires_grad_(False)).to(
            self.device
        )  # pyright: ignore[reportAttributeAccessIssue]
        self.recipe: dict[str, Any] | None = None
        self.info: dict[str, Any] = {}

    def __call__(self, label_map: Any, style: Any = None, seed: int | None = None) -> Tensor:
        """Label map(s) -> images.

        Args:
            label_map: a LabelMap (ids as inside the library), a path, a PIL image, or an array or tensor (H, W) or
                (N, H, W) of numbers as label files hold them.
            style: for a multi-modal generator, the photo to take the style from: path, PIL image, or tensor
                (3, h, w) or (N, 3, h, w) in [-1, 1].
            seed: for a multi-modal generator without a style photo: which sample of the prior. The same seed gives the
                same image; None draws a new one. Other generators have nothing random, and take no notice.

        Returns:
            (N, 3, H, W) float32 in [-1, 1], on the CPU; H and W are those of the label map.

        Raises:
            LabelError: a label map that cannot be used, or ids outside the classes.
            CladeError: a style for a generator without a style encoder.
        """
        maps = self.generator.prepare(self.read(label_map)).to(self.device)
        z = None
        photo = None if style is None else self._photo(style)
        if photo is None and self.generator.z_dim is not None:
            z = self._sample(len(maps), seed)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.generator(maps, z=z, style=photo).float().cpu()

    def pictures(self, label_map: Any, style: Any = None, seed: int | None = None) -> list[Image.Image]:
        """The same, as PIL images."""
        return [Image.fromarray(pixels) for pixels in to_uint8(self(label_map, style, seed))]

    def read(self, label_map: Any) -> LabelMap:
        """Any form of label map -> a checked LabelMap; see :meth:`__call__`."""
        try:
            return self._read(label_map)
        except OutsideError as error:
            names = () if self.label_space is None else self.label_space.names
            known = f" ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else ""
            raise LabelError(
                f"{error.facts} That is the label space{known} that this generator was trained with. "
                "Bring the labels into it first, or use a generator for theirs."
            ) from error

    def _read(self, label_map: Any) -> LabelMap:
        if isinstance(label_map, LabelMap):
            return label_map.check(self.generator.num_rows)
        if isinstance(label_map, (str, Path)):
            ids = LabelMap(read_label(label_map, self.label_space))
            return ids.check(self.generator.num_rows, source=str(label_map))
        if isinstance(label_map, Image.Image):
            return LabelMap(label_array(label_map, self.label_space)).check(self.generator.num_rows)
        maps = LabelMap(label_map)  # also says clearly what is wrong with an array
        if self.label_space is not None:
            maps = LabelMap(self.label_space.encode(maps.ids.cpu().numpy()))
        return maps.check(self.generator.num_rows)

    def _photo(self, style: Any) -> Tensor:
        if isinstance(style, (str, Path)):
            style = read_photo(style)
        if isinstance(style, Image.Image):
            style = np.asarray(style.convert("RGB"))
        if isinstance(style, np.ndarray):
            if style.dtype != np.uint8 or style.ndim != 3 or style.shape[2] != 3:
                raise CladeError(f"A style array is (h, w, 3) uint8, got {style.shape} {style.dtype}.")
            style = torch.from_numpy(style.copy()).movedim(2, 0).float() / 127.5 - 1
        is_photo = isinstance(style, Tensor) and style.ndim in (3, 4) and style.shape[-3] == 3
        if not is_photo or not style.is_floating_point():
            raise CladeError(
                "A style is a path, a PIL image, an (h, w, 3) uint8 array, or a float (3, h, w) tensor in [-1, 1]."
            )
        style = style if style.ndim == 4 else style[None]
        return style.to(self.device, torch.float32)

    def _sample(self, count: int, seed: int | None) -> Tensor:
        random = torch.Generator()
        if seed is None:
            random.seed()
        else:
            random.manual_seed(seed)
        assert self.generator.z_dim is not None
        return torch.randn(count, self.generator.z_dim, generator=random).to(self.device)


def load(path: str | Path, device: str | torch.device = "auto", precision: str = "auto") -> Synthesizer:
    """A checkpoint file -> a Synthesizer; nothing else is needed.

    Args:
        path: the ``.safetensors`` file that training or ``clade.save`` wrote.
        device, precision: see :class:`Synthesizer`.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of clade.
    """
    checkpoint = read_checkpoint(path)
    synthesizer = Synthesizer(checkpoint.generator, checkpoint.label_space, device, precision)
    synthesizer.recipe, synthesizer.info = checkpoint.recipe, checkpoint.info
    return synthesizer


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise CladeError(f"There is no device '{device}'. Known: auto, cpu, cuda, cuda:N.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CladeError(
            f"Device '{device}' was asked for, but torch finds no CUDA device. Use device='cpu' or 'auto'."
        )
    return chosen
