"""Published pix2pixHD generators, as the SPADE code has them."""

from __future__ import annotations

from typing import Any

from torch import nn

from clade.errors import CheckpointError
from clade.models import create_generator
from clade.models.generators.pix2pixhd import Hourglass, Pix2PixHDGenerator
from clade.models.published.naming import Family, Pairs, State
from clade.models.published.spade_shaped import infer_classes

_FIRST = "model.1.0.weight_orig"
_BLOCK = ".conv_block.1.0.weight_orig"


def _infer(name: str, state: State, options: dict[str, Any]) -> dict[str, Any]:
    first = state[_FIRST]
    blocks = [key for key in state if key.endswith(_BLOCK)]
    image = next((key for key in state if key.startswith("model.") and key.endswith(".weight")), None)
    if image is None:
        raise KeyError("model.*.weight")
    # Each strided and each transposed convolution counts with its activation, and is in there twice.
    downsamplings = (int(image.split(".")[1]) - 4 - len(blocks)) // 4
    return {
        "width": first.shape[0],
        "downsamplings": downsamplings,
        "blocks": len(blocks),
        **({"kernel": state[blocks[0]].shape[2]} if blocks else {}),
        "first_kernel": first.shape[2],
        **infer_classes(name, first.shape[1], options),
    }


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    return create_generator(name, **options)


def _pairs(module: nn.Module) -> Pairs:
    assert isinstance(module, Pix2PixHDGenerator)
    if len(module.networks) > 1:
        raise CheckpointError(
            "A pix2pixhd generator with local enhancers has no published form. Only those of enhancers=0 have."
        )
    network = module.networks[0]
    assert isinstance(network, Hourglass)
    ours = "^networks.0."
    pairs = [("^model.1.0.", f"{ours}first.conv.")]
    index = 3
    for k in range(len(network.downs)):
        pairs.append((f"^model.{index}.0.", f"{ours}downs.{k}.conv."))
        index += 2
    for k in range(len(network.blocks)):
        for published, conv in ((1, "conv1"), (4, "conv2")):
            pairs.append((f"^model.{index}.conv_block.{published}.0.", f"{ours}blocks.{k}.{conv}.conv."))
        index += 1
    for k in range(len(network.ups)):
        pairs.append((f"^model.{index}.0.", f"{ours}ups.{k}.conv."))
        index += 2
    return [*pairs, (f"^model.{index + 1}.", "^to_image.")]


FAMILIES = {"pix2pixhd": Family(lambda state: _FIRST in state, _infer, _build, _pairs)}
