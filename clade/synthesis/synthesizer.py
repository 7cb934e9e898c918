"""A trained generator, ready to use: label maps in any form -> images."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from clade.engine import Engine
from clade.errors import CladeError, LabelError
from clade.io.images import to_uint8
from clade.labels import LabelMap, LabelSpace, label_array, read_label
from clade.labels.labelspace import OutsideError
from clade.models import Generator
from clade.models.checkpoints import read_checkpoint
from clade.nn import reparameterize
from clade.registry import near_match
from clade.synthesis.styles import read_style

__all__ = ["Synthesizer", "load"]

_ONE_BY_ONE = (str, Path, Image.Image, LabelMap, Tensor, np.ndarray)
_ARE_IDS = (
    " Arrays and tensors hold ids; numbers as label files hold them become ids by `synthesizer.encode_numbers(array)`."
)
_random_numbers = threading.RLock()  # torch's global ones belong to the whole process


class Synthesizer:
    """Turns label maps into images with one generator, fast (docs/performance.md).

    Args:
        generator: any generator of this library; it is copied, put into eval mode, and made fast (:class:`Engine`).
        label_space: how label files and pictures are read; without one, they must hold ids in ``[0, num_rows)``.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the device multiplies in it and the network has batch
            normalization, else fp32. A style encoder always computes in float32.
        compile: let ``torch.compile`` shorten the passes between convolutions, and record CUDA graphs. The first
            picture then takes some seconds longer; see :meth:`warm_up`.
        without: optimizations to leave out, by name (``clade.engine.OPTIMIZATIONS``).

    Raises:
        CladeError: a label space of another number of classes, an unknown device, precision or optimization.
    """

    def __init__(
        self,
        generator: Generator,
        label_space: LabelSpace | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        *,
        compile: bool = False,
        without: Collection[str] = (),
    ) -> None:
        if label_space is not None and label_space.num_rows != generator.num_rows:
            raise CladeError(
                f"The label space has {label_space.num_rows} ids, the generator {generator.num_rows} (with unknown)."
            )
        self.device = _device(device)
        self.engine = Engine(generator, self.device, precision, compile=compile, without=without)
        self.generator = self.engine.generator
        self.precision = self.engine.precision
        self.label_space = label_space
        self.recipe: dict[str, Any] | None = None
        self.info: dict[str, Any] = {}

    def __call__(self, label_map: Any, style: Any = None, seed: int | None = None, z: Tensor | None = None) -> Tensor:
        """Label map(s) -> images.

        Args:
            label_map: ids as everywhere in the library: a LabelMap, or an array or tensor (H, W) or (N, H, W); or a
                label file, by its path or as a PIL image; or a list of these, all of one size. Numbers of label files
                that are an array already become ids
                by :meth:`encode_numbers`.
            style: for a multi-modal generator, the photo to take the style from; see :meth:`latent`.
            seed: for a multi-modal generator without a style photo: which sample of the prior. The same seed gives the
                same image; None draws a new one. It also fixes the noise of SEAN. Other generators have nothing random,
                and take no notice.
            z: latents of :meth:`latent`, in place of style and prior.

        Returns:
            (N, 3, H, W) float32 in [-1, 1], on the CPU; H and W are those of the label map.

        Raises:
            LabelError: a label map that cannot be used, or ids outside the classes.
            CladeError: a style for a generator without a style encoder.
        """
        maps = self.generator.prepare(self.read(label_map))
        if z is None:
            z = self.latent(maps, style, seed)
        elif style is not None:
            raise CladeError("z and a style were both given, and each decides the image. Give one of them.")
        with self._seeded(seed):
            return self.engine(maps, z).cpu()

    def warm_up(self, size: tuple[int, int] = (256, 256), batch: int = 1) -> float:
        """Draw one batch of blank maps of ``size`` (height, width), so that later ones need no compiling.

        Where ``compile`` is on and standard error is a terminal, it says what it waits for.

        Returns:
            seconds it took.
        """
        begin = time.perf_counter()
        waiting = "Compiling for this machine; the next start takes it from the cache ..."
        with Console(stderr=True).status(waiting) if self.engine.compiles else nullcontext():
            self(LabelMap(torch.zeros(batch, *size, dtype=torch.uint8)))
        return time.perf_counter() - begin

    def latent(
        self, label_map: Any, style: Any = None, seed: int | None = None, *, vary: bool = False
    ) -> Tensor | None:
        """What images of label maps are drawn with, to look at, mix and interpolate: ``synthesizer(maps, z=...)``.

        Args:
            label_map: as above.
            style: a photo (path, PIL image, (h, w, 3) uint8 array, float (3, h, w) or (N, 3, h, w) tensor in [-1, 1]),
                or a pair (photo, its label map). Where every class has a style of its own (SEAN, GroupDNet), a photo
                comes with its label map, found in labels/ for a file in images/; and style may be a mapping
                {class name or id: photo}, whose photos without labels count as that class all over. "*" there stands
                for all other classes, whose style otherwise is drawn from the prior (SEAN: the mean style).
            seed: which sample of the prior; None draws a new one (SEAN: the mean style).
            vary: draw from the distribution that the encoder finds for the photo, by ``seed``, instead of its mean.

        Returns:
            (N, *latent_shape) for N label maps, on the CPU; None for a generator without latent input.

        Raises:
            CladeError: a style for a generator that takes none; a class that there is not; a photo without the label
                map that is needed.
        """
        maps = self.read(label_map)
        shape = self.generator.latent_shape(maps.size)
        if shape is None:
            if style is not None:
                raise CladeError("A style was given, but this generator has no latent input. Leave it out.")
            return None
        with self.engine.on_device(), torch.no_grad():
            if style is not None and not isinstance(style, Mapping):
                return self._encoded(style, maps, seed, vary)
            styles = dict(style or {})
            if "*" in styles:
                z = self._encoded(styles.pop("*"), maps, seed, vary)
            elif seed is None:
                with self._seeded(None, always=True):
                    z = self.generator.default_latent(len(maps), maps.size)
                assert z is not None
            else:
                z = self.generator.prior(_noise(shape, len(maps), seed).to(self.device))
            for key, photo in styles.items():
                row = self._class_id(key)
                z = self.generator.mix(z.to(self.device), self._encoded(photo, maps, None, False, row).to(z), [row])
            return z.float().cpu().clone()  # never the network's own memory

    def photo(self, style: Any) -> Any:
        """A style in any form, read once, for many label maps: what :meth:`latent` takes, with its files opened.

        Raises:
            CladeError: no photo in any form.
        """
        if style is None or isinstance(style, Mapping):
            return None if style is None else {key: self.photo(value) for key, value in style.items()}
        return read_style(style, self.read, labels_needed=self.generator.regional)

    def interpolate(self, z: Tensor, other: Tensor, steps: int) -> list[Tensor]:
        """Latents on the way from one to the other, both ends included.

        Raises:
            CladeError: fewer than 2 steps.
        """
        if steps < 2:
            raise CladeError(f"{steps} steps; an interpolation needs at least 2, its two ends.")
        return [self.generator.interpolate(z, other, k / (steps - 1)) for k in range(steps)]

    def pictures(
        self, label_map: Any, style: Any = None, seed: int | None = None, z: Tensor | None = None
    ) -> list[Image.Image]:
        """The same, as PIL images."""
        return [Image.fromarray(pixels) for pixels in to_uint8(self(label_map, style, seed, z))]

    def read(self, label_map: Any) -> LabelMap:
        """Any form of label map -> a checked LabelMap; see :meth:`__call__`."""
        if isinstance(label_map, (list, tuple)) and any(isinstance(one, _ONE_BY_ONE) for one in label_map):
            return LabelMap.stack([self.read(one) for one in label_map])
        with self._own_classes("" if isinstance(label_map, (str, Path, Image.Image)) else _ARE_IDS):
            return self._read(label_map)

    def encode_numbers(self, numbers: Any) -> LabelMap:
        """Numbers as label files hold them -> ids, by the label space (:meth:`LabelSpace.encode`).

        ADE20K's files, say, count their classes from 1 and write 0 where there is none; ids count from 0, and the last
        one is the unknown class.

        Args:
            numbers: integers, an array or tensor (H, W) or (N, H, W).

        Raises:
            LabelError: not integers, or numbers that the label space does not know.
        """
        with self._own_classes(""):
            maps = LabelMap(numbers)
            if self.label_space is not None:
                maps = LabelMap(self.label_space.encode(maps.ids.cpu().numpy()))
            return maps.check(self.generator.num_rows)

    def _read(self, label_map: Any) -> LabelMap:
        if isinstance(label_map, LabelMap):
            return label_map.check(self.generator.num_rows)
        if isinstance(label_map, (str, Path)):
            ids = LabelMap(read_label(label_map, self.label_space))
            return ids.check(self.generator.num_rows, source=str(label_map))
        if isinstance(label_map, Image.Image):
            return LabelMap(label_array(label_map, self.label_space)).check(self.generator.num_rows)
        return LabelMap(label_map).check(self.generator.num_rows)  # also says what is wrong with an array

    @contextmanager
    def _own_classes(self, hint: str) -> Iterator[None]:
        """Errors of ids outside the classes say whose classes these are, and the hint."""
        try:
            yield
        except OutsideError as error:
            names = () if self.label_space is None else self.label_space.names
            known = f" ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})" if names else ""
            raise LabelError(
                f"{error.facts} That is the label space{known} that this generator was trained with.{hint} "
                "Bring the labels into it first, or use a generator for theirs."
            ) from error

    def _encoded(self, style: Any, maps: LabelMap, seed: int | None, vary: bool, row: int | None = None) -> Tensor:
        """Latents of a photo; with ``row``, a photo without labels counts as that class all over."""
        regional = self.generator.regional
        photo = self.photo(style)
        photo = photo if row is None else photo.filled_with(row)
        if regional and photo.label_map is None:
            raise CladeError(
                f"The style photo {photo.name} came without its label map, and every class of this generator has a "
                "style of its own. Give the label map with it (--style-labels, or the pair (photo, label map)), keep "
                "the photo in images/ with its label file in labels/, or say which class it is for "
                "(--style sky=PHOTO, or {'sky': photo})."
            )
        if row is not None and photo.label_map is not None and not (photo.label_map.ids == row).any():
            names = () if self.label_space is None else self.label_space.names
            what = f"'{names[row]}'" if row < len(names) else f"of id {row}"
            raise CladeError(
                f"The style photo {photo.name} has no class {what}, whose style was to be taken from it. "
                "Choose another."
            )
        labels = None if photo.label_map is None else photo.label_map.to(self.device)
        mu, logvar = self.generator.encode(photo.image.to(self.device), labels)
        if vary and logvar is not None:
            mu = reparameterize(mu, logvar, _noise(tuple(mu.shape[1:]), len(mu), seed).to(mu))
        if len(mu) not in (1, len(maps)):
            raise CladeError(
                f"{len(mu)} style photos came for {len(maps)} label maps. Give one for each, or one for all."
            )
        z = self.generator.fitted(mu, maps.size)
        return z.expand(len(maps), *z.shape[1:]).float().cpu().clone()

    def _class_id(self, key: str | int) -> int:
        names = () if self.label_space is None else self.label_space.names
        if key in names:
            return names.index(str(key))
        if str(key).isdigit() and int(key) < self.generator.num_rows:
            return int(key)
        hint = near_match(str(key), names)
        known = ", ".join(names) if names else f"0 to {self.generator.num_rows - 1}"
        raise CladeError(f"A style was given for '{key}', and there is no such class.{hint} Known: {known}.")

    @contextmanager
    def _seeded(self, seed: int | None, always: bool = False) -> Iterator[None]:
        """Torch's global random numbers from ``seed`` (None: new ones) inside, for a generator that draws from them."""
        if not (always or self.generator.stochastic):
            yield
            return
        with _random_numbers, torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            if seed is None:
                torch.seed()
            else:
                torch.manual_seed(seed)
            yield


def _noise(shape: tuple[int, ...], count: int, seed: int | None) -> Tensor:
    """Standard normal noise, the same on every device."""
    random = torch.Generator()
    if seed is None:
        random.seed()
    else:
        random.manual_seed(seed)
    return torch.randn(count, *shape, generator=random)


def load(
    path: str | Path, device: str | torch.device = "auto", precision: str = "auto", *, compile: bool = False
) -> Synthesizer:
    """A checkpoint file -> a Synthesizer; nothing else is needed.

    Args:
        path: the ``.safetensors`` file that training or ``clade.save`` wrote, or the name of weights that come with
            clade (``"demo"``).
        device, precision, compile: see :class:`Synthesizer`.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of clade.
    """
    checkpoint = read_checkpoint(path)
    synthesizer = Synthesizer(checkpoint.generator, checkpoint.label_space, device, precision, compile=compile)
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
