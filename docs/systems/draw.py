"""Draws the pictures of docs/systems/img: ``python docs/systems/draw.py [NAME ...]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

FOLDER = Path(__file__).parent / "img"
DPI = 100  # one unit is 100 pixels
SIZE = 11.5

# kind -> (inside, line)
COLOURS = {
    "features": ("#cfe2f7", "#2b6cb0"),
    "labels": ("#d3efd5", "#2f855a"),
    "learned": ("#fde0bd", "#c05621"),
    "latents": ("#e4d7f5", "#6b46c1"),
    "fixed": ("#f1f1f1", "#666666"),
}
Point = tuple[float, float]


@dataclass(frozen=True)
class Node:
    """A box or a circle by its centre and its extent."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y - self.height / 2


class Sketch:
    """Boxes and arrows on a plane whose unit is 100 pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(0, height)
        self.axes.axis("off")
        self.size = (width, height)
        self.texts: list[tuple[Text, Node | None]] = []
        self.boxes: list[Node] = []

    def box(self, x: float, y: float, text: str, kind: str, width: float = 1.3, height: float = 0.6) -> Node:
        inside, line = COLOURS[kind]
        corner = (x - width / 2 + 0.05, y - height / 2 + 0.05)
        self.axes.add_patch(
            FancyBboxPatch(
                corner,
                width - 0.1,
                height - 0.1,
                boxstyle="round,pad=0.05,rounding_size=0.08",
                facecolor=inside,
                edgecolor=line,
                linewidth=1.5,
                zorder=3,
            )
        )
        node = Node(x, y, width, height)
        self.boxes.append(node)
        self._write(x, y, text, node)
        return node

    def circle(self, x: float, y: float, text: str) -> Node:
        """An operation without anything learned."""
        self.axes.add_patch(Circle((x, y), 0.19, facecolor="white", edgecolor="#333333", linewidth=1.5, zorder=3))
        self._write(x, y, text, None, size=14, checked=False)
        return Node(x, y, 0.38, 0.38)

    def table(self, x: float, y: float, title: str, rows: int = 5, columns: int = 6) -> Node:
        """A learned table, one row per class."""
        cell = 0.22
        width, height = columns * cell, rows * cell
        for row in range(rows):
            for column in range(columns):
                corner = (x - width / 2 + column * cell, y - height / 2 + row * cell)
                shade = ("#fde0bd", "#fbc98a", "#f7b05b")[(3 * row + 5 * column * (row + 1)) % 3]
                self.axes.add_patch(
                    Rectangle(corner, cell, cell, facecolor=shade, edgecolor=COLOURS["learned"][1], linewidth=1)
                )
        self.note(x, y - height / 2 - 0.2, title)
        return Node(x, y, width, height)

    def arrow(self, *points: Point, dashed: bool = False, head: bool = True) -> None:
        """A line along the points, with a head at its end."""
        style = {"color": "#333333", "linewidth": 1.5, "linestyle": "--" if dashed else "-", "zorder": 2}
        if len(points) > 2 or not head:
            self.axes.plot(*zip(*(points[:-1] if head else points), strict=True), **style, solid_capstyle="butt")
        if head:
            self.axes.annotate(
                "",
                points[-1],
                points[-2],
                arrowprops={
                    "arrowstyle": "-|>",
                    "shrinkA": 0,
                    "shrinkB": 1,
                    "color": "#333333",
                    "linewidth": 1.5,
                    "linestyle": "--" if dashed else "-",
                    "mutation_scale": 14,
                },
                zorder=2,
            )

    def chain(self, *nodes: Node) -> None:
        """Arrows from each to the next, left to right."""
        for before, after in pairwise(nodes):
            self.arrow(before.right, after.left)

    def note(self, x: float, y: float, text: str, align: str = "center", colour: str = "#333333") -> None:
        self._write(x, y, text, None, align=align, colour=colour, size=SIZE - 0.5)

    def _write(
        self,
        x: float,
        y: float,
        text: str,
        inside: Node | None,
        align: str = "center",
        colour: str = "#111111",
        size: float = SIZE,
        checked: bool = True,
    ) -> None:
        written = self.axes.text(
            x, y, text, ha=align, va="center", fontsize=size, color=colour, zorder=4, linespacing=1.15
        )
        if checked:
            self.texts.append((written, inside))

    def save(self, name: str) -> None:
        self._check(name)
        self.figure.savefig(FOLDER / f"{name}.png", dpi=DPI, metadata={"Software": None})

    def _check(self, name: str) -> None:
        """No text leaves its box or the picture or lies in a box that is not its own, and no two meet."""
        self.figure.canvas.draw()
        boxes = [(text, text.get_window_extent(), node) for text, node in self.texts]
        for text, extent, node in boxes:
            for box in self.boxes:
                (left, bottom), (right, top) = (box.left[0], box.bottom[1]), (box.right[0], box.top[1])
                place = Bbox([[DPI * left, DPI * bottom], [DPI * right, DPI * top]])
                assert box is node or not extent.overlaps(place), (name, text.get_text())
            width, height = self.size
            node = Node(width / 2, height / 2, width, height) if node is None else node
            assert DPI * node.left[0] <= extent.x0 <= extent.x1 <= DPI * node.right[0], (name, text.get_text())
            assert DPI * node.bottom[1] <= extent.y0 <= extent.y1 <= DPI * node.top[1], (name, text.get_text())
        for k, (text, extent, _) in enumerate(boxes):
            for other, beside, _ in boxes[k + 1 :]:
                assert not extent.overlaps(beside), (name, text.get_text(), other.get_text())


def clade() -> Sketch:
    s = Sketch(10, 3.9)
    x = s.box(0.8, 3.3, "features x", "features", 1.2)
    norm = s.box(2.5, 3.3, "normalize", "fixed", 1.2)
    times, plus, join = s.circle(4.0, 3.3, "×"), s.circle(6.9, 3.3, "+"), s.circle(8.25, 3.3, "‖")
    y = s.box(9.3, 3.3, "y", "features", 0.8)
    s.chain(x, norm, times, plus, join, y)
    gamma, beta = s.table(4.0, 1.25, "γ: one row per class"), s.table(6.9, 1.25, "β: one row per class")
    ids = s.box(5.45, 1.25, "ids", "labels", 0.8)
    s.arrow(ids.left, gamma.right)
    s.arrow(ids.right, beta.left)
    s.arrow(gamma.top, times.bottom)
    s.arrow(beta.top, plus.bottom)
    s.note(4.1, 2.45, "row of each\npixel's class", "left")
    s.note(7.0, 2.45, "the same", "left")
    edge = s.box(9.05, 1.2, "edge E", "labels", 1.0)
    own = s.box(9.05, 2.1, r"$\gamma_c E + \beta_c$", "learned", 1.2)
    s.arrow(edge.top, own.bottom, dashed=True)
    s.arrow(own.top, (9.05, 2.68), (8.25, 2.68), join.bottom, dashed=True)
    s.note(1.5, 1.25, "‖: one more channel,\nwith instance edges", colour="#666666")
    return s


def clade_icpe() -> Sketch:
    s = Sketch(10, 4.6)
    x = s.box(0.8, 3.95, "features x", "features", 1.2)
    norm = s.box(2.15, 3.95, "normalize", "fixed", 1.15)
    times, plus = s.circle(3.4, 3.95, "×"), s.circle(8.4, 3.95, "+")
    y = s.box(9.4, 3.95, "y", "features", 0.8)
    s.chain(x, norm, times, plus, y)
    gamma, beta = s.table(3.4, 1.3, "γ: one row per class"), s.table(8.4, 1.3, "β: one row per class")
    by_gamma, by_beta = s.circle(3.4, 2.75, "×"), s.circle(8.4, 2.75, "×")
    ids = s.box(5.9, 1.3, "ids", "labels", 0.9)
    d = s.box(5.9, 2.75, "positions d", "labels", 1.2)
    to_gamma = s.box(4.5, 2.75, "1 + Cγ(d)", "learned", 1.15)
    to_beta = s.box(7.3, 2.75, "1 + Cβ(d)", "learned", 1.15)
    s.arrow(ids.left, gamma.right)
    s.arrow(ids.right, beta.left)
    s.arrow(ids.top, d.bottom)
    s.note(6.0, 2.0, "offset from the\nobject's centre", "left")
    s.arrow(d.left, to_gamma.right)
    s.arrow(d.right, to_beta.left)
    s.arrow(to_gamma.left, by_gamma.right)
    s.arrow(to_beta.right, by_beta.left)
    for table, op, end in ((gamma, by_gamma, times), (beta, by_beta, plus)):
        s.arrow(table.top, op.bottom)
        s.arrow(op.top, end.bottom)
    s.note(5.9, 3.3, "Cγ, Cβ: 1×1 convolutions, 2 → 1 channel", colour="#666666")
    return s


def spade() -> Sketch:
    s = Sketch(10, 3.9)
    x = s.box(0.8, 3.3, "features x", "features", 1.2)
    norm = s.box(2.8, 3.3, "normalize", "fixed", 1.2)
    times, plus = s.circle(5.6, 3.3, "×"), s.circle(7.8, 3.3, "+")
    y = s.box(9.3, 3.3, "y", "features", 0.8)
    s.chain(x, norm, times, plus, y)
    m = s.box(1.0, 0.85, "one-hot\nlabels m", "labels", 1.2, 0.8)
    shared = s.box(3.2, 0.85, "3×3 conv, ReLU\n128 channels", "learned", 1.8, 0.8)
    gamma = s.box(5.6, 1.9, "3×3 conv\n1 + γ(m)", "learned", 1.4, 0.8)
    beta = s.box(7.8, 1.9, "3×3 conv\nβ(m)", "learned", 1.4, 0.8)
    s.chain(m, shared)
    s.arrow(shared.right, (5.6, 0.85), gamma.bottom)
    s.arrow((5.6, 0.85), (7.8, 0.85), beta.bottom)
    s.arrow(gamma.top, times.bottom)
    s.arrow(beta.top, plus.bottom)
    s.note(1.9, 1.9, "a network per layer, as large\nas the features at every scale", colour="#666666")
    return s


def spade_light() -> Sketch:
    s = Sketch(10, 4.2)
    axes = s.figure.add_axes((0.085, 0.16, 0.9, 0.72))
    blocks = range(1, 8)
    factors = (16, 16, 16, 16, 8, 4, 2)
    for offset, width, colour in ((-0.2, 64, COLOURS["features"][0]), (0.2, 8, COLOURS["features"][1])):
        heights = [factor * width for factor in factors]
        bars = axes.bar([k + offset for k in blocks], heights, 0.38, color=colour, edgecolor=COLOURS["features"][1])
        axes.bar_label(bars, fontsize=SIZE, padding=2)
        bars.set_label("SPADE, width 64" if width == 64 else "SPADE-light, width 8")
    line = axes.axhline(128, color=COLOURS["learned"][1], linewidth=2.5, zorder=0)
    line.set_label("hidden channels of every modulation network, in both")
    axes.set_yscale("log", base=2)
    axes.set_ylim(8, 4500)
    axes.set_yticks([16, 128, 1024], ["16", "128", "1024"], fontsize=SIZE)
    axes.set_xticks(list(blocks), [str(k) for k in blocks], fontsize=SIZE)
    axes.set_xlabel("residual block, from coarse to fine", fontsize=SIZE)
    axes.set_ylabel("channels of x", fontsize=SIZE)
    axes.spines[["top", "right"]].set_visible(False)
    s.figure.legend(loc="upper center", ncols=3, fontsize=SIZE - 0.5, frameon=False, columnspacing=1.2)
    return s


def generator() -> Sketch:
    s = Sketch(10, 4.7)
    labels = s.box(0.85, 3.8, "one-hot labels\nat 1/32", "labels", 1.5, 0.75)
    z = s.box(0.85, 2.75, "or latent z", "latents", 1.5, 0.55)
    stem = s.box(2.45, 3.8, "3×3 conv", "learned", 1.05, 0.75)
    linear = s.box(2.45, 2.75, "linear", "learned", 1.05, 0.55)
    s.chain(labels, stem)
    s.chain(z, linear)
    channels = (16, 16, 16, 8, 4, 2, 1)
    scales = ("1/32", "1/16", "1/16", "1/8", "1/4", "1/2", "1")
    nodes = [
        s.box(3.6 + 0.67 * k, 3.8, f"{c if c > 1 else ''}w", "features", 0.54, 0.45 + 0.11 * k)
        for k, c in enumerate(channels)
    ]
    s.chain(stem, *nodes)
    s.arrow(linear.right, (3.15, 2.75), (3.15, 3.8), head=False)
    for node, scale in zip(nodes, scales, strict=True):
        s.note(node.x, 3.05, scale)
    s.note(5.6, 2.7, "residual blocks: channels (w = width) above, size below")
    image = s.box(9.2, 3.8, "LeakyReLU\n3×3 conv\ntanh", "learned", 1.3, 1.0)
    s.chain(nodes[-1], image)
    s.note(9.2, 3.05, "image")
    s.axes.plot([0.2, 9.8], [2.4, 2.4], color="#cccccc", linewidth=1)
    s.note(0.2, 2.1, "One block", "left")
    x = s.box(0.6, 1.3, "x", "features", 0.6)
    parts = [x]
    for k, text in enumerate(("norm", "LeakyReLU", "3×3 conv", "norm", "LeakyReLU", "3×3 conv")):
        kind = "fixed" if "ReLU" in text else "learned"
        parts.append(s.box(1.75 + 1.23 * k, 1.3, text, kind, 1.1))
    plus = s.circle(8.8, 1.3, "+")
    y = s.box(9.5, 1.3, "y", "features", 0.6)
    s.chain(*parts, plus, y)
    for part in parts:
        if part.x in (1.75, 1.75 + 3 * 1.23):
            s.arrow(s.box(part.x, 2.1, "labels", "labels", 0.8, 0.36).bottom, part.top)
    norm = s.box(3.6, 0.45, "norm", "learned", 1.1)
    conv = s.box(5.3, 0.45, "1×1 conv", "learned", 1.1)
    s.arrow(x.bottom, (0.6, 0.45), norm.left)
    s.chain(norm, conv)
    s.arrow(conv.right, (8.8, 0.45), plus.bottom)
    s.note(1.85, 0.62, "new channel count", colour="#666666")
    s.note(7.3, 0.62, "each norm reads the labels", colour="#666666")
    return s


def hybrid() -> Sketch:
    s = Sketch(10, 2.3)
    labels = s.box(0.75, 1.5, "labels", "labels", 1.0)
    nodes = [
        s.box(2.1 + k, 1.5, f"{k + 1}\n" + ("SPADE" if k < 4 else "CLADE"), "learned", 0.86, 0.8) for k in range(7)
    ]
    image = s.box(9.3, 1.5, "image", "features", 0.9)
    s.chain(labels, *nodes, image)
    for first, last, text in ((0, 3, "coarse: few pixels, a network is cheap"), (4, 6, "fine: tables")):
        left, right = nodes[first].left[0], nodes[last].right[0]
        s.axes.plot([left, left, right, right], [0.95, 0.85, 0.85, 0.95], color="#666666", linewidth=1.5)
        s.note((left + right) / 2, 0.6, text)
    s.note(5.1, 0.22, 'norm="spade:4,clade"', colour="#666666")
    return s


def positions() -> Sketch:
    s = Sketch(10, 3.9)
    labels = s.box(0.85, 3.2, "one-hot labels", "labels", 1.45)
    join = s.circle(2.2, 3.2, "‖")
    stem = s.box(3.25, 3.2, "3×3 conv", "learned", 1.1)
    norm = s.box(5.1, 3.2, "CLADE: γ x + β", "learned", 1.65)
    extra = s.circle(6.75, 3.2, "‖")
    conv = s.box(7.9, 3.2, "3×3 conv", "learned", 1.1)
    image = s.box(9.3, 3.2, "image", "features", 0.9)
    s.chain(labels, join, stem, norm, extra, conv, image)
    s.axes.add_patch(Rectangle((4.15, 2.75), 4.4, 0.9, fill=False, edgecolor="#999999", linestyle=":", linewidth=1.5))
    s.note(8.2, 2.55, "in every layer", colour="#666666")
    d_input = s.box(2.2, 0.95, "d", "labels", 0.6)
    d_modulation = s.box(5.1, 0.95, "d", "labels", 0.6)
    d_features = s.box(7.2, 0.95, "d", "labels", 0.6)
    modulation = s.box(5.1, 1.95, "1 + Cγ(d), 1 + Cβ(d)", "learned", 2.1)
    features = s.box(7.2, 1.95, "1×1 conv", "learned", 1.1)
    s.arrow(d_input.top, join.bottom)
    s.arrow(d_modulation.top, modulation.bottom)
    s.arrow(modulation.top, norm.bottom)
    s.arrow(d_features.top, features.bottom)
    s.arrow(features.top, (7.2, 2.45), (6.75, 2.45), extra.bottom)
    s.note(2.2, 0.4, 'positions="input"\n2 channels')
    s.note(5.0, 0.4, 'positions="modulation"\nCLADE-ICPE')
    s.note(7.6, 0.4, 'positions="features"\n1 channel')
    return s


def pix2pixhd() -> Sketch:
    s = Sketch(10, 3.9)
    labels = s.box(0.65, 2.1, "one-hot\nlabels", "labels", 1.0, 2.2)
    sizes = (2.2, 1.7, 1.25, 0.85, 0.5)
    downs = [s.box(1.75 + 0.68 * k, 2.1, str(64 * 2**k), "learned", 0.6, h) for k, h in enumerate(sizes)]
    blocks = s.box(5.4, 2.1, "9 residual\nblocks", "learned", 1.15, 0.65)
    ups = [s.box(6.5 + 0.68 * k, 2.1, str(512 // 2**k), "learned", 0.56, h) for k, h in enumerate(sizes[3::-1])]
    image = s.box(9.45, 2.1, "image", "features", 0.75, 2.2)
    s.chain(labels, *downs, blocks, *ups, image)
    s.note(1.75, 3.45, "7×7", colour="#666666")
    s.note(3.5, 3.45, "3×3, stride 2", colour="#666666")
    s.note(7.4, 3.45, "3×3, transposed, stride 2", colour="#666666")
    s.note(9.45, 3.45, "7×7, tanh", colour="#666666")
    s.note(5.0, 0.55, "numbers: channels; heights: size. Labels enter at the left only")
    return s


def cc_fpse() -> Sketch:
    s = Sketch(10, 4.7)
    x = s.box(0.55, 4.0, "x", "features", 0.7)
    norm = s.box(1.75, 4.0, "BatchNorm", "learned", 1.2)
    star = s.circle(3.45, 4.0, "∗")
    mix = s.box(4.75, 4.0, "1×1 conv", "learned", 1.1)
    times = s.circle(6.6, 4.0, "×")
    act = s.box(7.95, 4.0, "LeakyReLU", "fixed", 1.2)
    y = s.box(9.4, 4.0, "h", "features", 0.7)
    s.chain(x, norm, star, mix, times, act, y)
    s.note(3.3, 3.35, "3×3 weights of its own\nat every pixel", "right", "#666666")
    weights = s.box(3.45, 2.5, "3×3 conv, ReLU\n3×3 conv: w(m)", "learned", 1.8, 0.8)
    attention = s.box(6.6, 2.5, "3×3 conv, ReLU\n3×3 conv: a(m)", "learned", 1.8, 0.8)
    s.arrow(weights.top, star.bottom)
    s.arrow(attention.top, times.bottom)
    s.note(6.75, 3.4, "sigmoid", "left", "#666666")
    labels = s.box(0.95, 0.9, "one-hot\nlabels", "labels", 1.1, 0.8)
    pyramid = s.box(3.0, 0.5, "feature pyramid", "learned", 1.7)
    join = s.circle(4.9, 0.9, "‖")
    s.arrow(labels.right, (1.8, 0.9), (1.8, 0.5), pyramid.left)
    s.arrow((1.8, 0.9), join.left)
    s.arrow(pyramid.right, (4.9, 0.5), join.bottom)
    m = s.box(6.1, 0.9, "conditions m", "labels", 1.4)
    s.chain(join, m)
    s.arrow(m.top, (6.1, 1.6), (6.6, 1.6), attention.bottom)
    s.arrow((6.1, 1.6), (3.45, 1.6), weights.bottom)
    s.note(8.4, 1.0, "half a residual block;\nthe other half is the same", colour="#666666")
    return s


def dagan() -> Sketch:
    s = Sketch(10, 4.4)
    u = s.box(0.5, 2.75, "u", "features", 0.6)
    conv = s.box(1.95, 3.85, "3×3 conv", "learned", 1.2)
    block = s.box(1.95, 1.65, "SPADE block", "learned", 1.4)
    t = s.box(3.45, 3.85, "t", "features", 0.6)
    x = s.box(3.45, 1.65, "x", "features", 0.6)
    s.arrow(u.top, (0.5, 3.85), conv.left)
    s.arrow(u.bottom, (0.5, 1.65), block.left)
    s.chain(conv, t)
    s.chain(block, x)
    join = s.circle(3.45, 2.85, "‖")
    channel = s.box(5.2, 2.85, "channel attention", "learned", 1.8)
    pixel = s.box(5.2, 0.45, "spatial attention", "learned", 1.8)
    s.arrow(t.bottom, join.top)
    s.arrow(x.top, join.bottom)
    s.chain(join, channel)
    by_channel, by_pixel = s.circle(6.75, 2.05, "×"), s.circle(6.75, 1.25, "×")
    s.arrow(channel.right, (6.75, 2.85), by_channel.top)
    s.note(6.85, 2.55, "$a_c$", "left")
    s.arrow(pixel.right, (6.75, 0.45), by_pixel.bottom)
    s.note(6.85, 0.75, "$a_s$", "left")
    s.arrow(x.right, (4.05, 1.65), (4.05, 2.05), by_channel.left)
    s.arrow((4.05, 1.65), (4.05, 1.25), by_pixel.left)
    s.arrow((4.05, 1.25), (4.05, 0.45), pixel.left)
    plus = s.circle(7.9, 2.05, "+")
    s.arrow(t.right, (7.9, 3.85), plus.top)
    s.chain(by_channel, plus)
    s.arrow(by_pixel.right, (7.9, 1.25), plus.bottom)
    image = s.box(9.2, 2.05, "LeakyReLU\n3×3 conv\ntanh", "learned", 1.3, 1.0)
    s.chain(plus, image)
    s.note(9.2, 1.35, "image")
    s.note(0.95, 2.75, "input of the\nlast block", "left", "#666666")
    return s


def sean() -> Sketch:
    s = Sketch(10, 5.2)
    x = s.box(0.5, 4.55, "x", "features", 0.6)
    plus_noise = s.circle(1.5, 4.55, "+")
    norm = s.box(2.9, 4.55, "normalize", "fixed", 1.2)
    times, plus = s.circle(7.0, 4.55, "×"), s.circle(8.4, 4.55, "+")
    y = s.box(9.4, 4.55, "y", "features", 0.7)
    s.chain(x, plus_noise, norm, times, plus, y)
    noise = s.box(1.5, 3.7, "noise", "learned", 0.9, 0.5)
    s.arrow(noise.top, plus_noise.bottom)
    blend = s.box(7.7, 3.4, "blend by $a_g$, $a_b$", "learned", 2.0)
    s.arrow((7.0, 3.7), times.bottom)
    s.arrow((8.4, 3.7), plus.bottom)
    s.note(6.9, 4.05, "scale", "right")
    s.note(8.5, 4.05, "shift", "left")
    photo = s.box(0.75, 2.35, "photo", "features", 0.9)
    encoder = s.box(2.15, 2.35, "encoder", "learned", 1.1)
    codes = s.box(3.8, 2.35, "style code\nof each class", "latents", 1.4, 0.8)
    linear = s.box(5.5, 2.35, "its linear layer,\nReLU, by ids", "learned", 1.6, 0.8)
    style = s.box(7.7, 2.35, r"3×3 convs: 1 + $\gamma_s$, $\beta_s$", "learned", 2.2)
    s.chain(photo, encoder, codes, linear, style)
    s.arrow(style.top, blend.bottom)
    labels = s.box(0.75, 1.0, "labels", "labels", 0.9)
    part = s.box(5.5, 1.0, "SPADE's network 1 + γ, β\nor CLADE's tables γ, β", "learned", 2.5, 0.8)
    s.chain(labels, part)
    s.arrow(part.right, (9.4, 1.0), (9.4, 3.4), blend.right)
    s.arrow((1.2, 1.0), (2.15, 1.0), encoder.bottom)
    s.arrow((2.15, 1.0), (3.0, 1.0), (3.0, 1.65), (5.5, 1.65), linear.bottom)
    s.note(5.5, 0.4, "label part: sean, sean-clade", colour="#666666")
    s.note(4.3, 3.15, "style part: in the first six blocks", colour="#666666")
    return s


def groupdnet() -> Sketch:
    s = Sketch(10, 4.6)
    heights = (3.75, 3.05, 2.35, 1.65)
    for k, y in enumerate(heights):
        code = s.box(1.0, y, f"code of class {k}", "latents", 1.6, 0.5)
        stem = s.box(2.75, y, "3×3 conv", "learned", 1.1, 0.5)
        group = s.box(4.3, y, f"group {k}", "features", 1.0, 0.5)
        s.chain(code, stem, group)
        s.arrow(group.right, (5.4, y))
    for k, y in enumerate((3.4, 2.0)):
        group = s.box(6.0, y, f"classes\n{2 * k} and {2 * k + 1}", "features", 1.2, 1.2)
        s.arrow(group.right, (7.2, y))
    last = s.box(7.7, 2.7, "all\nclasses", "features", 1.0, 2.6)
    image = s.box(9.3, 2.7, "image", "features", 0.9)
    s.chain(last, image)
    s.note(4.3, 4.25, "first blocks")
    s.note(6.0, 4.25, "fewer groups")
    s.note(7.7, 4.25, "last block")
    labels = s.box(1.0, 0.45, "labels", "labels", 1.0, 0.5)
    norm = s.box(6.0, 0.45, "grouped SPADE (a class reaches its own group), or CLADE's tables", "learned", 6.0, 0.5)
    s.chain(labels, norm)
    for x, y in ((4.3, heights[-1] - 0.25), (6.0, 1.4), (7.7, 1.4)):
        s.arrow((x, norm.top[1]), (x, y))
    return s


PICTURES = {
    "clade": clade,
    "clade-icpe": clade_icpe,
    "spade": spade,
    "spade-light": spade_light,
    "pix2pixhd": pix2pixhd,
    "cc-fpse": cc_fpse,
    "dagan": dagan,
    "sean": sean,
    "groupdnet": groupdnet,
    "generator": generator,
    "hybrid": hybrid,
    "positions": positions,
}


def main(names: Sequence[str]) -> None:
    for name in names or PICTURES:
        PICTURES[name]().save(name)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
