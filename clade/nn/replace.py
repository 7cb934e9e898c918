"""SPADE layers of any PyTorch network become CLADE layers, in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.nn.conditional import ConditionalBlock
from clade.nn.segmap import SegmapReader
from clade.nn.spade_like import ATTRIBUTES, SpadeLike, convolutions, evaluating, is_spade


@dataclass(frozen=True, kw_only=True)
class ReplacedLayer:
    """One SPADE layer that became CLADE."""

    name: str
    """Where it is, as in ``module.get_submodule(name)``."""
    also: tuple[str, ...]
    """Further places of the same, shared layer."""
    channels: int
    params_before: int
    params_after: int
    macs_per_pixel: int
    """Multiply-adds of the modulation network, all of them saved, per pixel of the features."""
    ignored_channels: int
    """Channels of the segmap past the classes (an instance edge), which CLADE does not read."""
    exact: bool
    """With ``start="spade"``: inside a region the layer gives what the replaced one gave."""

    def macs_saved(self, *size: int) -> int:
        """Multiply-adds saved for one picture whose features have this size at the layer."""
        return self.macs_per_pixel * int(torch.Size(size).numel())


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What :func:`replace_spade` did; ``print`` shows it as a table."""

    layers: tuple[ReplacedLayer, ...]
    network_before: int
    """Parameters of the whole module."""
    network_after: int
    start: str
    positions: bool

    @property
    def params_before(self) -> int:
        """Parameters of the replaced layers."""
        return sum(layer.params_before for layer in self.layers)

    @property
    def params_after(self) -> int:
        """Parameters of the layers in their place."""
        return sum(layer.params_after for layer in self.layers)

    def __str__(self) -> str:
        rows = [["layer", "channels", "parameters", "now", "multiply-adds saved per pixel"]]
        for layer in self.layers:
            names = " = ".join((layer.name, *layer.also))
            numbers = (layer.channels, layer.params_before, layer.params_after, layer.macs_per_pixel)
            rows.append([names, *(f"{number:,}" for number in numbers)])
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        saved = 1 - self.network_after / self.network_before
        count = len(self.layers)
        lines += [
            f"{count} SPADE layer{'s' * (count > 1)} became CLADE{'-ICPE' * self.positions} (start: {self.start}): "
            f"{self.params_before:,} -> {self.params_after:,} parameters.",
            f"The whole module: {self.network_before:,} -> {self.network_after:,} parameters ({saved:.1%} saved).",
        ]
        ignored = max(layer.ignored_channels for layer in self.layers)
        if ignored:
            lines.append(
                f"Note: {ignored} channel{'s' * (ignored > 1)} past the classes (instance edges) had an effect in "
                "SPADE; CLADE does not read them."
            )
        averaged = sum(not layer.exact for layer in self.layers)
        if averaged:
            lines.append(
                f"Note: {averaged} of these layers normalise gamma and beta over the picture, so that no number per "
                "class equals them. Their tables hold what the layers gave on the example or, without one, on a map "
                "where all classes have equal area. Train the network on."
            )
        return "\n".join(lines)


def replace_spade(
    module: nn.Module,
    num_classes: int | None = None,
    *,
    positions: bool = False,
    start: Literal["spade", "fresh"] = "spade",
    unknown_class: bool = False,
    example: Tensor | None = None,
) -> Replacement:
    """Swap every SPADE layer inside ``module`` for CLADE (section 3.2), in place.

    SPADE layers are those with the submodules ``param_free_norm``, ``mlp_shared``, ``mlp_gamma`` and ``mlp_beta``,
    called as ``layer(x, segmap)`` with a one-hot segmap (N, C, *any size), for 1-D, 2-D and 3-D features; and
    :class:`clade.nn.SPADE`, which becomes :class:`clade.nn.CLADE`. The new layers are called as the old ones and keep
    their normalization with its statistics, their type, device and mode. Build the optimizer afterwards: the
    parameters are new. Hooks on the replaced layers themselves are not carried over.

    Where the replaced layer computed ``x^ * (1 + gamma(m)) + beta(m)``, ``start="spade"`` fills the row of class k with
    1 + gamma(m) and beta(m) inside a large region of k. There, the network's layers then give what they gave before;
    at borders between classes they differ. In layers that normalise gamma(m) over the picture (MONAI's do) no number
    per class equals it: the tables then hold its mean inside the regions of ``example``.

    Args:
        module: holds the SPADE layers somewhere inside.
        num_classes: channels of the segmap that are classes; None for all that the layers read. Further ones (an
            instance edge) are not read by CLADE.
        positions: CLADE-ICPE (equation 15), positions being computed from each segmap as it comes; pictures only.
        start: ``spade``, or ``fresh`` for CLADE's own start, gamma uniform in (0, 1) and beta 0.
        unknown_class: pixels whose segmap is all zero are one more class; else they count as class 0.
        example: one-hot label maps (N, C, *size) as the network gets them, for layers that normalise gamma and beta.

    Returns:
        What was replaced and what it saves. Nothing is replaced where an error is raised.

    Raises:
        CladeError: no SPADE layer; one that computes something else or reads fewer channels than num_classes; positions
            for volumes; an unknown ``start``; an example that does not fit.
    """
    if start not in ("spade", "fresh"):
        raise CladeError(f"start is {start!r}; known are 'spade' (from the replaced layers) and 'fresh'.")
    if isinstance(num_classes, bool) or (num_classes is not None and num_classes < 1):
        raise CladeError(f"num_classes is {num_classes!r}; needed is a whole number of at least 1, or None.")
    if is_spade(module):
        raise CladeError(
            f"The module is itself a SPADE layer ({type(module).__name__}), and has no place to put another. "
            "Give the module that contains it."
        )
    places = _places(module)
    if not places:
        raise CladeError(
            f"{type(module).__name__} has no SPADE layer: no submodule is a clade.nn.SPADE or has all of "
            f"{', '.join(ATTRIBUTES)} with convolutions in mlp_shared. Give the network that holds the SPADE layers; "
            "layers of other names have to be replaced by hand."
        )

    before = _count(module)
    readers: dict[int, SegmapReader] = {}
    made: list[tuple[nn.Module, list[tuple[nn.Module, str, str]], ReplacedLayer]] = []
    for layer, where in places:
        name = where[0][2]
        if any(isinstance(parent, ConditionalBlock) for parent, _, _ in where):
            raise CladeError(
                f"{name} is part of CC-FPSE, where it reads features besides the labels, and no table of classes can "
                "take its place."
            )
        with evaluating(layer), torch.no_grad():
            source = SpadeLike(layer, name, num_classes, unknown_class)
            if positions and source.dims != 2:
                raise CladeError(
                    f"{name} is a layer for {source.dims}-D features, but positions are defined for pictures only. "
                    "Replace with positions=False."
                )
            gamma, beta, exact = source.tables(example) if start == "spade" else source.fresh_tables()
            macs = sum(part.weights for mlp in source.mlps for part in convolutions(mlp))
        reader = readers.setdefault(source.num_classes, SegmapReader(source.num_classes, unknown_class))
        new = source.replacement(gamma, beta, positions, reader, len(made))
        report = ReplacedLayer(
            name=name,
            also=tuple(place[2] for place in where[1:]),
            channels=gamma.shape[1],
            params_before=_count(layer),
            params_after=_count(new),
            macs_per_pixel=macs,
            ignored_channels=source.read_channels - source.num_classes,
            exact=exact,
        )
        made.append((new, where, report))

    for new, where, _ in made:
        for parent, key, _ in where:
            parent._modules[key] = new
    return Replacement(
        layers=tuple(report for _, _, report in made),
        network_before=before,
        network_after=_count(module),
        start=start,
        positions=positions,
    )


def _places(module: nn.Module) -> list[tuple[nn.Module, list[tuple[nn.Module, str, str]]]]:
    """Each SPADE layer with all its places: (parent, key, qualified name)."""
    found: dict[nn.Module, list[tuple[nn.Module, str, str]]] = {}
    seen: set[nn.Module] = set()

    def visit(parent: nn.Module, prefix: str) -> None:
        seen.add(parent)
        for key, child in parent._modules.items():
            if child is None:
                continue
            if child in found or is_spade(child):
                found.setdefault(child, []).append((parent, key, prefix + key))
            elif child not in seen:
                visit(child, f"{prefix}{key}.")

    visit(module, "")
    return list(found.items())


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
