"""The doctor's report as one HTML page, which needs neither scripts nor other files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np

from clade._version import __version__
from clade.data.doctor import pictures
from clade.data.doctor.notes import written
from clade.data.doctor.report import Report
from clade.data.doctor.splits import SplitReport

_SAMPLES = 12
_WORST = 6  # pictures of a kind
_LINES = 40  # problems in words

_STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --page: #fff; --line: #d5d9de; --quiet: #616a75; --box: #f4f5f7;
  --bad: #b3261e; --warn: #8a5a00; --good: #1c6b34; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7eb; --page: #15181c; --line: #363c44; --quiet: #9aa3ae;
  --box: #1f242a; --bad: #ff8a80; --warn: #f2c265; --good: #79d394; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { width: 16rem; } .bar div { height: .8rem; min-width: 1px; outline: 1px solid var(--line); }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; outline: 1px solid var(--line); }
.bad { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); } .quiet { color: var(--quiet); }
li, figcaption { overflow-wrap: anywhere; }
pre { background: var(--box); padding: .8rem; overflow-x: auto; }
.sheet { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
figure { margin: 0; max-width: 460px; } figure div { display: flex; gap: 4px; align-items: flex-start; }
figcaption { font-size: .8rem; color: var(--quiet); }
"""


def page(report: Report, seed: int = 0) -> str:
    """The whole page. The pictures are read anew; which ones are shown follows from ``seed``."""
    title = f"{report.root} ({report.layout or 'no known layout'})"
    verdict = (
        '<p class="good">No problems found.</p>'
        if report.clean
        else f'<p class="bad">{len(report.problems)} problems keep it from being trained on.</p>'
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        verdict,
        _facts(report),
        _listed("Problems", report.grouped_problems, "bad"),
        _listed("Notes", report.notes, "warn"),
        _fix(report),
        _shares(report),
        *_sheets(report, seed),
        f'<p class="quiet">Written by clade {escape(__version__)}.</p>',
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _facts(report: Report) -> str:
    rows = [_row(["split", "pairs", "label maps", "photos", "instance maps", "sizes (height x width)"], "th")]
    for split in report.splits:
        sizes = [f"{height} x {width}: {count}" for (height, width), count in split.sizes.most_common(4)]
        more = [f"{len(split.sizes) - 4} more"] if len(split.sizes) > 4 else []
        counts = [str(n) for n in (split.pairs, split.maps, split.photos, split.objects)]
        rows.append(_row([escape(split.name or "-"), *counts, escape(", ".join(sizes + more))]))
    return _table(rows)


def _listed(title: str, lines: list[str], kind: str) -> str:
    if not lines:
        return ""
    more = [f"... and {len(lines) - _LINES} more."] if len(lines) > _LINES else []
    items = "".join(f"<li>{escape(line)}</li>" for line in lines[:_LINES] + more)
    return f'<h2 class="{kind}">{title}</h2><ul>{items}</ul>'


def _fix(report: Report) -> str:
    lines = report.fix_lines()
    if lines:
        lines.append(f"# On the command line: {report.advice.flags()}")
    return f"<h2>What fixes it, in the recipe</h2><pre>{escape(chr(10).join(lines))}</pre>" if lines else ""


def _shares(report: Report) -> str:
    """A bar per class and split, in the class's colour; the longest is the largest share."""
    # The dataset's own classes: those of the advice take what is outside for unknown.
    space = next((split.space for split in report.splits if split.space is not None), report.space)
    if space is None or not any(split.maps for split in report.splits):
        return ""
    shares: list[dict[int, float]] = []
    outside = sorted(space.unmapped(np.array([*set().union(*(split.pixels for split in report.splits)), 0])))
    for split in report.splits:
        found: dict[int, float] = {}
        for number in split.pixels:
            if not space.unmapped(np.array([number])):
                row = int(space.encode(np.array([number]))[0])
                found[row] = found.get(row, 0.0) + split.share(number)
        shares.append(found)
    strange = [{number: split.share(number) for number in outside} for split in report.splits]
    longest = max((share for found in [*shares, *strange] for share in found.values()), default=1.0)
    names = [escape(split.name or "share") for split in report.splits]
    rows = [_row(["class", *(cell for name in names for cell in (name, ""))], "th")]
    for row in range(space.num_rows):
        color = f"rgb({','.join(map(str, space.colorize(np.array(row)).tolist()))})"
        rows.append(_share_row(space.name(row), color, [found.get(row, 0.0) for found in shares], longest))
    alarm = f"rgb({','.join(map(str, pictures.ALARM))})"
    for number in outside:
        rows.append(_share_row(f"id {number}: no class", alarm, [found[number] for found in strange], longest))
    return f"<h2>Share of the pixels of each class</h2>{_table(rows)}"


def _share_row(name: str, color: str, shares: list[float], longest: float) -> str:
    cells = [f'<span class="swatch" style="background:{color}"></span>{escape(name)}']
    for share in shares:
        bar = f'<div style="width:{100 * share / longest:.2f}%;background:{color}"></div>' if share else ""
        cells += [f'<div class="bar">{bar}</div>', f'<span class="number">{share:.3%}</span>']
    return _row(cells)


def _sheets(report: Report, seed: int) -> list[str]:
    return [
        _sheet("Pictures", "Photo, and its labels over it.", _samples(report, seed)),
        _sheet(
            "Ids outside the label space",
            "Pixels that mean no class are pink; most of them first.",
            _outside(report),
        ),
        _sheet(
            "Colours that mean no class",
            "Photo, and the label file as it is.",
            _labels(report, lambda split: _by_path(split, split.colored, lambda path: split.colored[path][1])),
        ),
        _sheet(
            "Constant and nearly empty label maps",
            "Photo, and the labels.",
            _labels(report, lambda split: [*split.constant, *split.nearly_empty]),
        ),
        _sheet(
            "Files of different size",
            "Photo, and the labels, each as it is.",
            _labels(report, lambda split: [name for kind, name, _ in split.failures if kind == "sizes"]),
        ),
        _sheet("Equal pictures", "The first two of each group.", _duplicates(report)),
    ]


def _samples(report: Report, seed: int) -> list[str]:
    names = [(split, name) for split in report.splits for name in split.files.names]
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(len(names), min(_SAMPLES, len(names)), replace=False)) if names else []
    return [_figure(split, name, report, over=True) for split, name in (names[int(k)] for k in chosen)]


def _outside(report: Report) -> list[str]:
    worst = [
        (sum(ids.values()), split, name, ids)
        for split in report.splits
        for name, ids in ((name, split.outside[str(path)]) for name, path in _paths(split, split.outside))
    ]
    worst.sort(key=lambda entry: -entry[0])
    figures = []
    for _, split, name, ids in worst[:_WORST]:
        words = ", ".join(f"id {number}: {pixels} pixels" for number, pixels in ids.items())
        labels = pictures.label(split, name, split.space)
        below = pictures.photo(split, name)
        figures.append(_shown([below, pictures.overlay(below, labels, alarm=True)], f"{_called(split, name)}: {words}"))
    return figures


def _labels(report: Report, choose: Callable[[SplitReport], Iterable[str]]) -> list[str]:
    chosen = [(split, name) for split in report.splits for name in choose(split)]
    return [_figure(split, name, report, over=False) for split, name in chosen[:_WORST]]


def _duplicates(report: Report) -> list[str]:
    parts = {split.name: split for split in report.splits}
    figures = []
    for group in report.duplicates[:_WORST]:
        shown = [
            pictures.overlay(pictures.photo(parts[part], name), pictures.label(parts[part], name, report.space))
            for part, name in group.members[:2]
        ]
        figures.append(_shown(shown, group.words()))
    return figures


def _paths(split: SplitReport, among: Iterable[str]) -> list[tuple[str, str]]:
    """(name, path) of label files."""
    wanted = set(among)
    return [(name, str(path)) for name, path in split.files.labels.items() if str(path) in wanted]


def _by_path(split: SplitReport, among: Iterable[str], key: Callable[[str], int]) -> list[str]:
    return [name for name, _ in sorted(_paths(split, among), key=lambda both: -key(both[1]))]


def _figure(split: SplitReport, name: str, report: Report, over: bool) -> str:
    below, labels = pictures.photo(split, name), pictures.label(split, name, split.space or report.space)
    if labels is None:
        return _shown([below], f"{_called(split, name)}: the label map cannot be read")
    return _shown([below, pictures.overlay(below, labels) if over else labels], _called(split, name))


def _called(split: SplitReport, name: str) -> str:
    return written(split.name, name)


def _shown(images: Sequence[np.ndarray | None], caption: str) -> str:
    shown = "".join(f'<img alt="" src="{pictures.data_uri(image)}">' for image in images if image is not None)
    return f"<figure><div>{shown}</div><figcaption>{escape(caption)}</figcaption></figure>"


def _sheet(title: str, words: str, figures: list[str]) -> str:
    if not figures:
        return ""
    return f'<h2>{title}</h2><p class="quiet">{words}</p><div class="sheet">{"".join(figures)}</div>'


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _table(rows: Iterable[str]) -> str:
    return f"<table>{''.join(rows)}</table>"
