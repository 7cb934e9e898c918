"""Published DAGAN generators."""

from __future__ import annotations

from torch import nn

from clade.models.published import spade_shaped
from clade.models.published.naming import Family, Pairs

ATTENTION: Pairs = [
    ("^conv_64.", "^to_attended."),
    ("^cab.conv1.", "^channel_attention.squeeze."),
    ("^cab.conv2.", "^channel_attention.excite."),
    ("^spatialAtt.", "^spatial_attention."),
]


def _pairs(module: nn.Module) -> Pairs:
    return [*ATTENTION, *spade_shaped.pairs(module)]


FAMILIES = {
    "dagan": Family(lambda state: "cab.conv1.weight" in state, spade_shaped.infer_spade, spade_shaped.build, _pairs)
}
