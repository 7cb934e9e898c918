"""Writes the tables of docs/systems between their markers: ``python docs/systems/tables.py``. Nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from clade import list_generators, profile
from clade.complexity.settings import SETTINGS, build

FOLDER = Path(__file__).parent
PAGES = {name: name.removesuffix("-clade") for name in list_generators()}
"""Generator -> its page, without suffix."""

DATASETS = {
    "ade20k": "ADE20K",
    "coco-stuff": "COCO-Stuff",
    "cityscapes": "Cityscapes",
    "celebamask-hq": "CelebAMask-HQ",
    "deepfashion": "DeepFashion",
}

_SPADE_STYLE = "with `z_dim`: one for the picture"
# Generator -> (what it is, source, latent and style).
SYSTEMS = {
    "clade": ("scale and shift looked up by class", "Tan et al. 2021", _SPADE_STYLE),
    "clade-icpe": ("CLADE that knows where in its object a pixel lies", "Tan et al. 2021", _SPADE_STYLE),
    "spade": ("scale and shift by a network of the labels", "Park et al. 2019", _SPADE_STYLE),
    "spade-light": ("SPADE with few channels", "Tan et al. 2021", _SPADE_STYLE),
    "pix2pixhd": ("labels at the input only", "Wang et al. 2018", "none"),
    "cc-fpse": ("convolution weights predicted from the labels", "Liu et al. 2019", "one for the picture"),
    "dagan": ("SPADE with attention before the image", "Tang et al. 2020", _SPADE_STYLE),
    "sean": ("SPADE and a style of each class", "Zhu, Abdal et al. 2020", "one per class"),
    "sean-clade": ("SEAN with CLADE's tables", "Tan et al. 2021", "one per class"),
    "groupdnet": ("grouped convolutions, a group per class", "Zhu, Xu et al. 2020", "one per class"),
    "groupdnet-clade": ("GroupDNet with CLADE's tables", "Tan et al. 2021", "one per class"),
}


def tables(page: str) -> dict[str, str]:
    """The tables of a page (its name without suffix), by their markers' names, as Markdown."""
    if page == "README":
        return {"systems": systems()}
    own = {"sizes": sizes(name for name in PAGES if PAGES[name] == page)}
    if page == "clade":
        own["hybrids"] = hybrids()
    if page == "clade-icpe":
        own["positions"] = positions()
    return own


def systems() -> str:
    """All generators, with their cost on each dataset."""
    rows = []
    for name, (what, source, style) in SYSTEMS.items():
        costs = {dataset: _cost(dataset, name) for dataset in datasets_of(name)}
        cells = {dataset: f"{params / 1e6:.1f} M, {macs / 1e9:.1f} G" for dataset, (params, macs, _) in costs.items()}
        main = [cells.pop(dataset, "") for dataset in list(DATASETS)[:3]]
        other = "; ".join(f"{DATASETS[dataset]} {cell}" for dataset, cell in cells.items())
        rows.append((f"[`{name}`]({PAGES[name]}.md)", what, source, *main, other, style))
    columns = ("name", "what", "source", *list(DATASETS.values())[:3], "another dataset", "latent, style")
    return _markdown(columns, rows)


def sizes(names: Iterable[str]) -> str:
    """Generators in the settings of the paper's tables."""
    rows = [
        (f"`{name}`", *_place(dataset, name), *_shown(_cost(dataset, name)))
        for name in names
        for dataset in datasets_of(name)
    ]
    return _markdown(("generator", "dataset", "size", *_COSTS), rows)


def hybrids() -> str:
    """Table 6's networks on Cityscapes."""
    norms = ["clade", *(f"spade:{k},clade" for k in (1, 2, 4, 5, 6)), "spade"]
    rows = [(f"`{norm}`", *_shown(_cost("cityscapes", "clade", norm=norm))) for norm in norms]
    return _markdown(("norm", *_COSTS), rows)


def positions() -> str:
    """Table 7's networks."""
    rows = [
        (f"`{way}`", DATASETS[dataset], *_shown(_cost(dataset, "clade", positions=way)))
        for dataset in ("ade20k", "cityscapes")
        for way in (None, "input", "features", "modulation")
    ]
    return _markdown(("positions", "dataset", *_COSTS), rows)


def datasets_of(name: str) -> list[str]:
    """Datasets in whose settings a generator is known."""
    return [key for key, setting in SETTINGS.items() if name in setting.generators or name in setting.widths]


_COSTS = ("parameters (M)", "multiply-adds, paper's count (G)", "true count (G)")


def _place(dataset: str, name: str) -> tuple[str, str]:
    setting = SETTINGS[dataset]
    width = setting.widths.get(name)
    height_width = "x".join(map(str, setting.size))
    return DATASETS[dataset] + (f", width {width}" if width else ""), height_width


@cache
def _cost(dataset: str, name: str, **changed: Any) -> tuple[int, int, int]:
    """(parameters, multiply-adds in the paper's count, in the true count)"""
    setting = SETTINGS[dataset]
    generator = build(name, {**setting.options(name), **changed}, values=False)
    paper, true = (profile(generator, setting.size, convention) for convention in ("paper", "true"))
    return paper.params, paper.macs, true.macs


def _shown(cost: tuple[int, int, int]) -> tuple[str, str, str]:
    params, paper, true = cost
    return f"{params / 1e6:.3f}", f"{paper / 1e9:.3f}", f"{true / 1e9:.3f}"


def _markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    right = ["--:" if column in _COSTS else ":--" for column in columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, right, *rows))


def updated(page: str, text: str) -> str:
    """A page's text with its tables made anew.

    Raises:
        ValueError: a table without its markers in the text.
    """
    for name, table in tables(page).items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end of table -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"{page}.md: no <!-- table: {name} --> and <!-- end of table --> in it.")
        text = marked.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text


def main() -> None:
    for page in ("README", *dict.fromkeys(PAGES.values())):
        path = FOLDER / f"{page}.md"
        before = path.read_text(encoding="utf-8")
        after = updated(page, before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
