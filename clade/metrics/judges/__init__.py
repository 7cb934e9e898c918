"""Judges: segmenters that say what they see in generated images, for mIoU and pixel accuracy.

The paper's four load their published checkpoints key for key, with their published preprocessing and scoring.
"""

from __future__ import annotations

from typing import Any

from clade.metrics.judges.base import Judge
from clade.metrics.judges.deeplab import DeepLabJudge
from clade.metrics.judges.drn import DRNJudge
from clade.metrics.judges.opened import open_judge
from clade.metrics.judges.opened import open_judge as open
from clade.metrics.judges.published import JUDGES, Layout, Paths, PublishedJudge, read
from clade.metrics.judges.unet import UNetJudge
from clade.metrics.judges.upernet import UPerNetJudge

__all__ = ["Judge", "PublishedJudge", "create", "load", "names", "open", "open_judge"]

for _judge in (UPerNetJudge, DeepLabJudge, DRNJudge, UNetJudge):
    JUDGES.register(_judge.name)(_judge)


def names() -> list[str]:
    """The judges that have a published checkpoint."""
    return list(JUDGES)


def create(name: str, state_dict: Layout | None = None, **options: Any) -> PublishedJudge:
    """A judge from its published weights.

    Args:
        name: ``upernet101`` (ADE20K), ``deeplabv2`` (COCO-Stuff), ``drn-d105`` (Cityscapes) or ``unet-celebamask``
            (CelebAMask-HQ).
        state_dict: published key -> tensor, as ``torch.load(path, weights_only=True)`` gives it; also under a key
            ``state_dict``, with ``module.`` before the keys, and as a list where the network is published in several
            files. None: read from where :func:`load` looks.
        options: of the judge; see its class.

    Raises:
        CladeError: no such judge or option.
        CheckpointError: weights that are missing or not this network's.
    """
    judge = JUDGES[name.replace("_", "-")]
    return judge(read(judge, None) if state_dict is None else state_dict, **options)


def load(name: str, path: Paths | None = None, **options: Any) -> PublishedJudge:
    """A judge from its published file.

    Args:
        path: a ``.pth`` (read with ``weights_only=True``) or ``.safetensors`` file, a list of them (UPerNet's encoder
            and decoder), or a folder that holds the published file names. None: the folder ``checkpoints/judges/NAME``
            of ``torch.hub.get_dir()``. Nothing is downloaded.

    Raises: see :func:`create`.
    """
    judge = JUDGES[name.replace("_", "-")]
    return judge(read(judge, path), **options)
