"""Judges that load a published checkpoint, key for key, in any of the layouts that it is found in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
import torch
from torch import Tensor, nn

from clade.errors import CheckpointError, first_line
from clade.metrics.judges.base import Judge
from clade.registry import Registry

State = Mapping[str, Tensor]
"""A flat state dict."""
Layout = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A state dict; one under the key ``state_dict``; or several that make one network, in a list or under any names."""

COUNTER = ".num_batches_tracked"
"""Older PyTorch did not write this number, which eval does not use."""


class PublishedJudge(Judge):
    """One of the paper's four judges.

    Args:
        state: see :data:`Layout`; keys with or without ``module.``. Copied, in float32.

    Raises:
        CheckpointError: keys or shapes that are not the network's, naming the first of them.
    """

    data: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """Names of the published files."""
    url: ClassVar[str]
    """Where they were published."""
    signature: ClassVar[str]
    """A key that no other judge has."""

    def __init__(self, state: Layout) -> None:
        tidied = self.tidy(flat(state))
        with torch.device("meta"):  # nothing is drawn at random just to be overwritten
            network = self.build(tidied)
        self._fit(network, tidied)
        names = json.loads(Path(__file__).with_name("classes.json").read_text(encoding="utf-8"))[self.name]
        super().__init__(network, names)

    @classmethod
    def build(cls, state: State) -> nn.Module:
        """The network without its weights; ``state`` tells where there is more than one."""
        raise NotImplementedError

    @classmethod
    def tidy(cls, state: State) -> dict[str, Tensor]:
        """Keys as they were published -> the network's; those that eval does not use are left out."""
        return dict(state)

    def _fit(self, network: nn.Module, state: State) -> None:
        own = network.state_dict()
        problems = {
            "missing": [key for key in own if key not in state and not key.endswith(COUNTER)],
            "without a place": [key for key in state if key not in own],
            "of another shape": [
                f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
                for key, value in own.items()
                if key in state and state[key].shape != value.shape
            ],
        }
        told = [f"{len(keys)} keys {what}: {_few(keys)}" for what, keys in problems.items() if keys]
        if told:
            looks = next((name for name in JUDGES if JUDGES[name].signature in JUDGES[name].tidy(state)), None)
            other = f" It looks like one of '{looks}'." if looks not in (None, self.name) else ""
            raise CheckpointError(
                f"The state dict does not fit '{self.name}'. {'. '.join(told)}.{other} Needed is what "
                f"{' and '.join(self.files)} of {self.url} {'hold' if len(self.files) > 1 else 'holds'}."
            )
        values = {
            key: state[key].detach().to(device="cpu", dtype=value.dtype, copy=True)
            if key in state
            else torch.zeros(value.shape, dtype=value.dtype)
            for key, value in own.items()
        }
        network.load_state_dict(values, assign=True)


JUDGES: Registry[type[PublishedJudge]] = Registry("judge")


def flat(layout: Layout) -> dict[str, Tensor]:
    """A published layout -> key -> tensor, without ``module.``.

    Raises:
        CheckpointError: something else than names and tensors, or a key that comes twice.
    """
    if isinstance(layout, Mapping):
        inner = layout.get("state_dict")
        if isinstance(inner, Mapping):
            return flat(inner)
        if not layout or not all(isinstance(value, Mapping) for value in layout.values()):
            return _tensors(layout)
        layout = list(layout.values())
    if not isinstance(layout, Sequence) or isinstance(layout, (str, bytes)):
        raise CheckpointError(
            f"state_dict is {type(layout).__name__}; needed is a mapping of keys to tensors, as "
            "torch.load(path, weights_only=True) gives it, or a list of them. judges.load(name, path) reads files."
        )
    merged: dict[str, Tensor] = {}
    for part in map(flat, layout):
        twice = merged.keys() & part.keys()
        if twice:
            raise CheckpointError(f"The key '{min(twice)}' is in two of the state dicts. Give every file once.")
        merged |= part
    return merged


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    wrong = [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if wrong:
        raise CheckpointError(
            f"state_dict has {type(state[wrong[0]]).__name__} under {wrong[0]!r}; needed are names and tensors, or a "
            "mapping that has them under 'state_dict'."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def _few(keys: Sequence[str]) -> str:
    return "; ".join(keys[:3]) + ("; ..." if len(keys) > 3 else "")


Paths = str | Path | Sequence[str | Path]


def read(judge: type[PublishedJudge], paths: Paths | None) -> Layout:
    """The state dicts of files, of a folder that holds the published ones, or of the usual place; nothing is unpickled.

    Raises:
        CheckpointError: missing or no plain tensors, naming the files and where they were published.
    """
    if paths is None:
        folder = Path(torch.hub.get_dir()) / "checkpoints" / "judges" / judge.name
        files = [folder / name for name in judge.files]
        missing = next((file for file in files if not file.is_file()), None)
        if missing:
            raise CheckpointError(
                f"{missing}: no such file, and nothing is downloaded. Fetch {' and '.join(judge.files)} from "
                f"{judge.url}, and put {'them' if len(files) > 1 else 'it'} there, or name the path of your own."
            )
    else:
        given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
        files = [file for path in given for file in ([path / n for n in judge.files] if path.is_dir() else [path])]
    return [_read_file(file, judge) for file in files]


def _read_file(path: Path, judge: type[PublishedJudge]) -> Mapping[str, Any]:
    how = f"Needed is what {' and '.join(judge.files)} of {judge.url} hold, as .pth or .safetensors."
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights for '{judge.name}'. {how}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file fails in many ways
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}: {first_line(error)}). {how}"
        ) from error
