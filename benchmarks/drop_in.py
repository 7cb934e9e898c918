"""What `clade.nn.replace_spade` saves in MONAI's SPADE networks: the table of docs/drop-in.md.

`python -m benchmarks.drop_in` measures four networks as they come and with CLADE, taking turns, on one core; `--quick`
is a look at small pictures. Needs einops, which MONAI's attention asks for.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from monai.networks.nets.spade_autoencoderkl import SPADEAutoencoderKL
from monai.networks.nets.spade_diffusion_model_unet import SPADEDiffusionModelUNet
from monai.networks.nets.spade_network import SPADENet
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Row, alternate, use_cores, write_table
from clade.complexity.measuring import scene_labels
from clade.nn import replace_spade

SEED = 0
CLASSES = 6


@dataclass(frozen=True)
class Case:
    """A network, and how it is called."""

    build: Callable[[int], nn.Module]
    """Side of the picture -> network."""
    side: int
    channels: int
    """Of the picture."""
    inputs: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    """(picture, segmap) -> what the network is called with, in its order."""


def _spade_net(channels: list[int], side: int) -> nn.Module:
    return SPADENet(2, 1, 1, label_nc=CLASSES, input_shape=[side, side], channels=channels, z_dim=16)


CASES = {
    "`SPADENet`, channels 16 to 128": Case(
        partial(_spade_net, [16, 32, 64, 128]), 256, 1, lambda image, segmap: (segmap, image)
    ),
    "`SPADENet`, channels 16 to 512": Case(
        partial(_spade_net, [16, 32, 64, 128, 256, 512]), 256, 1, lambda image, segmap: (segmap, image)
    ),
    "`SPADEAutoencoderKL`": Case(
        lambda _: SPADEAutoencoderKL(2, label_nc=CLASSES), 128, 1, lambda image, segmap: (image, segmap)
    ),
    "`SPADEDiffusionModelUNet`": Case(  # of the autoencoder's latents, which have 3 channels
        lambda _: SPADEDiffusionModelUNet(2, 3, 3, label_nc=CLASSES),
        64,
        3,
        lambda image, segmap: (image, torch.tensor([500]), segmap),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="pictures of half the side, 3 rounds")
    args = parser.parse_args()

    use_cores(1)
    rounds = 3 if args.quick else args.rounds
    calls: dict[str, Callable[[], object]] = {}
    lines: list[tuple[str, ...]] = []
    for name, case in CASES.items():
        side = case.side // 2 if args.quick else case.side
        inputs, segmap = example(case, side)
        for layers, network in zip(("SPADE", "CLADE"), before_and_after(case, segmap), strict=True):
            params, macs = count(network, inputs)
            lines.append((name, f"{side} x {side}", layers, f"{params / 1e6:.2f}", f"{macs / 1e9:.2f}"))
            calls[f"{name}, {layers}"] = partial(draw, network, inputs)
    rows: list[Row] = []
    for line, seconds in zip(lines, alternate(calls, rounds).values(), strict=True):
        times = [1e3 * t for t in seconds]
        rows.append((*line, statistics.median(times), min(times), max(times)))
    write_table(
        "drop_in" + ("-quick" if args.quick else ""),
        ("network", "picture", "layers", "parameters (M)", "multiply-adds (G)", "median (ms)", "min (ms)", "max (ms)"),
        rows,
        [
            f"Eager, float32, eval mode, batch 1, {CLASSES} classes, one core, else MONAI's defaults; {rounds} "
            "alternating runs each. Multiply-adds are those of convolutions and matrix products.",
        ],
        seed=SEED,
        command="drop_in" + (" --quick" if args.quick else ""),
    )


def example(case: Case, side: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """(what the network is called with, the segmap)"""
    segmap = F.one_hot(scene_labels(CLASSES, (side, side)).ids.long(), CLASSES).movedim(-1, 1).float()
    image = torch.rand(1, case.channels, side, side, generator=torch.Generator().manual_seed(SEED))
    return case.inputs(image, segmap), segmap


def before_and_after(case: Case, segmap: Tensor) -> tuple[nn.Module, nn.Module]:
    """The network with SPADE, and a copy with CLADE in its place; for pictures of the segmap's size."""
    torch.manual_seed(SEED)
    before = case.build(segmap.shape[-1]).eval().requires_grad_(False)
    after = copy.deepcopy(before)
    replace_spade(after, CLASSES, example=segmap)
    return before, after


def count(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, int]:
    """(parameters, multiply-adds of convolutions and matrix products)"""
    with FlopCounterMode(display=False) as counter:
        draw(network, inputs)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def draw(network: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    with torch.inference_mode():
        return network(*inputs)


if __name__ == "__main__":
    main()
