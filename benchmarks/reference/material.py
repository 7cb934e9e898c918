"""What the speed benchmarks draw: label maps, real where there are any, and weights under which every part shows."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import clade
from clade import LabelMap, LabelPyramid
from clade.data import Batch
from clade.data.scenes import NAMES, UNKNOWN, draw_scene
from clade.models import Generator
from clade.nn import CLADE, SPADE, fold_spectral_norm
from clade.training.calibration import calibrated

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Real label maps, where this checkout has them beside it."""

Size = tuple[int, int]

SEED = 0
CLASSES, ROWS = 150, 151
SIZE = (256, 256)
"""The ADE20K setting, which the speed is measured in."""

_REAL = {
    "CamVid": "camvid/val/labels",
    "CCP": "ccp/val/labels",
    "COCO-Stuff": "samples/coco_stuff/*_label",
}
_NO_LABEL = 255


def drawn_maps(count: int, rows: int, size: Size, seed: int = 0) -> list[LabelMap]:
    """Drawn scenes whose classes are spread over ``rows`` ids, pixels without a label being the last."""
    height, width = size
    scenes = (draw_scene(index, seed=seed, height=height, width=width).ids for index in range(count))
    return [LabelMap(spread(ids, rows)) for ids in scenes]


def spread(ids: np.ndarray, rows: int) -> np.ndarray:
    """Ids of a drawn scene -> uint8 ids in [0, rows)."""
    known = ids.astype(np.int64) * (rows - 1) // len(NAMES)
    return np.where(ids == UNKNOWN, rows - 1, known).astype(np.uint8)


def real_maps(count: int, rows: int, size: Size) -> dict[str, list[LabelMap]]:
    """Up to ``count`` real label maps of each set, nearest-resized, ids folded into [0, rows); empty without the data.

    Pixels without a label are the last id.
    """
    height, width = size
    found: dict[str, list[LabelMap]] = {}
    for name, pattern in _REAL.items():
        paths = sorted(DATA.glob(f"{pattern}/*.png"))
        maps = []
        for path in paths[:: max(1, len(paths) // count)][:count]:
            with Image.open(path) as picture:
                ids = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)).astype(np.int64)
            maps.append(LabelMap(np.where(ids == _NO_LABEL, rows - 1, ids % (rows - 1)).astype(np.uint8)))
        if maps:
            found[name] = maps
    return found


@torch.no_grad()
def lively(generator: Generator, size: Size = (128, 128), seed: int = 0) -> Generator:
    """A copy in eval mode whose random weights let every part of the network show in its pictures.

    Modulation that differs between classes (a new network's is nearly that of no label map), BatchNorm statistics
    measured on drawn scenes of ``size``, and a last convolution that uses the range of tanh (a new network's pictures
    are grey, and would hide any error).
    """
    torch.manual_seed(seed)
    for layer in generator.modules():
        if isinstance(layer, CLADE):
            layer.gamma.uniform_(0.5, 1.5)
            layer.beta.normal_(0, 0.3)
            if layer.modulates_by_position:
                for part in (layer.position_gamma, layer.position_beta):
                    part.weight.normal_(0, 0.3)
        elif isinstance(layer, SPADE):
            layer.shared.weight.normal_(0, 0.3)
            hidden = layer.shared.out_channels
            for conv in (layer.to_gamma, layer.to_beta):
                conv.weight.normal_(0, 0.3 / (0.4 * 9 * hidden) ** 0.5)  # gamma and beta spread by about 0.3
    # Classes swap their places from map to map, so that the statistics are not those of a few classes.
    maps = [
        LabelMap(torch.randperm(generator.num_rows)[label_map.ids.long()])
        for label_map in drawn_maps(4, generator.num_rows, size, seed)
    ]
    batches = [Batch(None, label_map, ("scene",)) for label_map in maps]
    generator = calibrated(generator, batches, lambda network, batch, _: network(batch.label_map)).eval()
    last = generator.to_image
    assert isinstance(last, nn.Conv2d)
    seen: list[Tensor] = []

    def see(_module: nn.Module, _inputs: object, out: Tensor) -> None:
        seen.append(out)

    hook = last.register_forward_hook(see)
    for label_map in maps:
        generator(label_map)
    hook.remove()
    last.weight.mul_(0.5 / torch.cat(seen).std())
    return generator


def maps_note() -> str:
    """A sentence for a table: where :func:`label_maps` come from."""
    found = real_maps(1, ROWS, (32, 32))
    return f"Label maps of {', '.join(found)}." if found else "No real label maps beside this checkout: drawn scenes."


def others_note() -> str:
    """A sentence for a table: how many pixels of :func:`label_maps` are not of the class of the first of their 2x2."""
    shares = []
    for name, maps in label_maps().items():
        found = []
        for side in (32, 64, 128, 256):
            differ = []
            for label_map in maps:
                ids = LabelPyramid(label_map, ROWS).ids((side, side))
                first = ids[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
                differ.append((ids != first).float().mean())
            found.append(f"{100 * torch.stack(differ).mean():.1f}")
        shares.append(f"{name} {', '.join(found)} %")
    return (
        f"Pixels of another class than the first of their 2x2, at 32x32, 64x64, 128x128, 256x256: {'; '.join(shares)}."
    )


def label_maps(count: int = 4) -> dict[str, list[LabelMap]]:
    """Up to ``count`` label maps per set; drawn ones where there are no others."""
    return real_maps(count, ROWS, SIZE) or {"drawn scenes": drawn_maps(count, ROWS, SIZE)}


def mixed_maps() -> list[LabelMap]:
    """Two maps of each set."""
    return [label_map for maps in label_maps(2).values() for label_map in maps]


def new_network(name: str, width: int) -> Generator:
    """A lively generator of the ADE20K setting by its name, or ``none``: CLADE's without normalization layers."""
    torch.manual_seed(SEED)
    kind, options = ("clade", {"norm": "none"}) if name == "none" else (name, {})
    network = clade.create_generator(kind, num_classes=CLASSES, unknown_class=True, width=width, **options)
    return lively(network).requires_grad_(False)


def save_network(folder: Path, name: str, width: int) -> None:
    clade.save(new_network(name, width), folder / f"{name}.safetensors")


def read_network(folder: Path, name: str) -> Generator:
    """What :func:`save_network` wrote, for drawing."""
    return clade.read_checkpoint(folder / f"{name}.safetensors").generator.eval().requires_grad_(False)


def eager(generator: Generator) -> Callable[[LabelMap], Tensor]:
    """Our network as it is, spectral norm folded into the weights."""
    network = copy.deepcopy(generator)
    fold_spectral_norm(network)

    @torch.no_grad()
    def draw(label_map: LabelMap) -> Tensor:
        return network(label_map)

    return draw


def drawing(draw: Callable[[LabelMap], Tensor], maps: Sequence[LabelMap]) -> Callable[[], object]:
    """A call that draws the next map, as if it had never been seen."""
    turn = itertools.cycle(maps)
    return lambda: draw(LabelMap(next(turn).ids.clone()))
