"""Which weights in which 16 bits change the pictures least; docs/demo.md draws its conclusion from it.

python -m benchmarks.half CHECKPOINT LABELS...
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from benchmarks.common import write_table
from clade.labels import LabelMap, read_label
from clade.models.checkpoints import LARGE, read_checkpoint
from clade.synthesis import find_labels
from clade.tools.conversion import difference

PARTS: dict[str, Callable[[str, torch.Tensor], bool]] = {
    "everything": lambda key, value: True,
    "all but BatchNorm's statistics": lambda key, value: ".running_" not in key,
    "tables and kernels (two axes or more)": lambda key, value: value.ndim >= 2,
    f"{LARGE} values or more": lambda key, value: value.numel() >= LARGE,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half", description=str(__doc__).split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("labels", nargs="+")
    parser.add_argument("--maps", type=int, default=11, help="label maps, evenly spread (11)")
    args = parser.parse_args(arguments)
    checkpoint = read_checkpoint(args.checkpoint)
    assert checkpoint.recipe is not None
    height, width = checkpoint.recipe["data"]["size"]
    files = find_labels(args.labels)[0]
    chosen = [files[k * len(files) // args.maps] for k in range(args.maps)]
    images = [Image.fromarray(read_label(file.path, checkpoint.label_space)) for file in chosen]
    maps = [LabelMap(np.array(image.resize((width, height), Image.Resampling.NEAREST))) for image in images]
    state = checkpoint.generator.state_dict()
    rows = []
    for kind in (torch.float16, torch.bfloat16):
        for title, rounded in PARTS.items():
            small = {key: value.is_floating_point() and rounded(key, value) for key, value in state.items()}
            network = copy.deepcopy(checkpoint.generator)
            network.load_state_dict({k: v.to(kind) if small[k] else v for k, v in state.items()})
            found = difference(checkpoint.generator, network, maps)
            size = sum(v.numel() * (2 if small[k] else v.element_size()) for k, v in state.items()) / 2**20
            name = str(kind).removeprefix("torch.")
            rows.append((name, title, f"{size:.2f}", f"{found.psnr:.1f}", f"{100 * found.changed:.2f}", found.largest))
    write_table(
        "half",
        ("type", "stored so", "MiB", "PSNR (dB)", "8-bit values that differ (%)", "by at most"),
        rows,
        [
            f"Pictures of {len(maps)} label maps at {height}x{width}, in float32, against those of the weights as "
            f"trained: {checkpoint.generator.name}, recipe {checkpoint.recipe['name']}, step "
            f"{checkpoint.info.get('step')}.",
        ],
        command="half CHECKPOINT LABELS",
    )


if __name__ == "__main__":
    main()
