"""Packages that only a part of the library needs, and the extra of ours that brings each."""

from __future__ import annotations

DISTRIBUTION = "clade-synthesis"
EXTRAS = {
    "fastapi": "study",
    "jsonargparse": "recipes",
    "lightning_fabric": "train",
    "matplotlib": "eval",
    "pycocotools": "data",
    "scipy": "eval",
    "segmentation_models_pytorch": "judges",
    "tensorboard": "train",
    "timm": "judges",
    "torch_fidelity": "eval",
    "torchmetrics": "eval",
    "torchvision": "train",
    "transformers": "judges",
    "uvicorn": "study",
    "yaml": "recipes",
}
"""Module -> extra, as in ``pip install "clade-synthesis[train]"``."""


def how_to_install(error: ImportError) -> str | None:
    """What to do about a module that is not there; None for one that no extra brings."""
    module = (error.name or "").split(".")[0]
    if module not in EXTRAS:
        return None
    extra = EXTRAS[module]
    return (
        f"This needs {module}, which is not installed. It comes with the extra '{extra}': "
        f'pip install "{DISTRIBUTION}[{extra}]" (or [all]).'
    )
