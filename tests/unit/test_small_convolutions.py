"""Convolutions of upsampled features, computed before the upsampling: same pictures, on maps of every kind."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clade import LabelMap, create_generator
from clade.engine import Engine
from clade.engine.blocks import FusedBlock
from clade.engine.doubling import MOST_OTHERS, Doubling
from clade.engine.kernels import Lookup
from clade.engine.small import UpsampledConv2d

pytestmark = pytest.mark.processor

CLASSES = 7


def build(name, **options):
    torch.manual_seed(0)
    generator = create_generator(name, num_classes=CLASSES, width=2, **options)
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            if key.endswith(("gamma", "beta")) or "position_" in key or ".edge." in key:
                parameter.normal_(0.5, 0.5)
        for _ in range(2):  # statistics that are not those of the start
            generator(LabelMap(torch.randint(0, CLASSES, (2, 64, 64))))
    return generator.eval()


@cache
def generator():
    return build("clade")


@cache
def engine():
    return Engine(generator(), precision="fp32")


def regions(count=1, height=64, width=96, cell=13):
    """Borders of every kind: cells that lie on no grid of pixels."""
    random = torch.Generator().manual_seed(3)
    coarse = torch.randint(CLASSES, (count, height // cell + 1, width // cell + 1), generator=random)
    return LabelMap(coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].contiguous())


def noise(height=64, width=64):
    return LabelMap(torch.randint(CLASSES, (1, height, width), generator=torch.Generator().manual_seed(4)))


def with_others(others, n=2, h=6, w=8):
    """An index map whose 2x2 pixels are alike but for so many of its pixels."""
    torch.manual_seed(0)
    index = torch.randint(0, 5, (n, h // 2, w // 2), dtype=torch.int32)
    index = index.repeat_interleave(2, 1).repeat_interleave(2, 2)
    index.view(-1)[torch.randperm(index.numel())[:others]] = 6
    return index


@pytest.mark.parametrize("others", [0, 1, 9])
def test_a_convolution_of_small_pixels_is_that_of_the_doubled_picture(others):
    doubling = Doubling.of(with_others(others))
    assert doubling is not None
    conv = nn.Conv2d(5, 4, 3, padding=1)
    small = torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last)
    own = torch.randn(len(doubling.others), 5)
    picture = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    pixels = picture.permute(0, 2, 3, 1).reshape(-1, 5).index_copy(0, doubling.others, own)
    with torch.no_grad():
        expected = conv(pixels.view(2, 6, 8, 5).permute(0, 3, 1, 2))
        rows, at = UpsampledConv2d(conv)(small, own, doubling)
    torch.testing.assert_close(rows[at.long()].view(2, 6, 8, 4).permute(0, 3, 1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("others", [0, 1, 9])
def test_every_pixel_knows_its_small_pixel_or_is_one_of_the_others(others):
    index = with_others(others)
    doubling = Doubling.of(index)
    assert doubling is not None
    rows = torch.cat([doubling.first.flatten(), doubling.rows])
    assert torch.equal(rows[doubling.parts.long()].view(index.shape), index)
    first = index[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(doubling.others, (index != first).flatten().nonzero().flatten())
    assert torch.equal(doubling.first.flatten()[doubling.parents.long()], first.flatten()[doubling.others])


def test_what_others_reach_is_what_lies_beside_them():
    doubling = Doubling.of(with_others(5))
    assert doubling is not None
    n, h, w = doubling.index.shape
    number = {int(pixel): k for k, pixel in enumerate(doubling.others)}
    wanted = {}
    for pixel in range(n * h * w):
        picture, i, j = pixel // (h * w), pixel // w % h, pixel % w
        places = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        beside = [
            number.get((picture * h + y) * w + x, len(number)) if 0 <= y < h and 0 <= x < w else len(number)
            for y, x in places
        ]
        if min(beside) < len(number):
            wanted[pixel] = [9 * k + t for t, k in enumerate(beside)]
    pixels, which = doubling.reached
    assert dict(zip(pixels.tolist(), which.tolist(), strict=True)) == wanted


def test_a_map_of_which_too_much_differs_is_left_to_the_convolution_of_all_pixels():
    index = with_others(0)
    index[:, 1::2, 1::2] = 6  # one of every four
    assert MOST_OTHERS == 0.25
    assert Doubling.of(index) is not None
    index[0, 0, 1] = 6
    assert Doubling.of(index) is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clade", {}),
        ("clade", {"instance_edges": True}),
        ("clade", {"positions": "features"}),
        ("clade-icpe", {}),
        ("clade-icpe", {"instance_edges": True}),
        ("spade", {"hidden": 16}),
        ("spade", {"hidden": 16, "instance_edges": True}),
    ],
)
@pytest.mark.parametrize("maps", [regions(2), noise(), LabelMap(torch.ones(1, 64, 64, dtype=torch.uint8))])
def test_pictures_are_those_without_it(name, options, maps):
    network = build(name, **options)
    fast = Engine(network, precision="fp32")
    assert "small-convolutions" in fast.applied
    with torch.no_grad():
        expected = network(maps)
    torch.testing.assert_close(fast(maps), expected, atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(
    st.lists(st.integers(0, CLASSES - 1), min_size=16, max_size=16),
    st.integers(0, 31),
    st.integers(0, 31),
    st.integers(0, CLASSES - 1),
)
def test_a_small_thing_anywhere_is_drawn_where_it_is(cells, top, left, thing):
    ids = torch.tensor(cells, dtype=torch.uint8).view(1, 4, 4).repeat_interleave(8, 1).repeat_interleave(8, 2).clone()
    ids[:, top : top + 3, left : left + 2] = thing
    with torch.no_grad():
        torch.testing.assert_close(engine()(ids), generator()(LabelMap(ids)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("maps", "whole"), [(regions(cell=32), False), (noise(), True)])
def test_the_doubled_features_are_convolved_only_where_the_map_asks_for_it(monkeypatch, maps, whole):
    fast = Engine(build("clade"), precision="fp32")
    blocks = [block for block in fast.generator.modules() if isinstance(block, FusedBlock) and block.small]
    assert len(blocks) == 4  # where the number of channels halves
    convolved = []
    for block in blocks:
        block.conv1.register_forward_hook(lambda *_: convolved.append(True))
    fast(maps)
    assert len(convolved) == (4 if whole else 0)


def test_positions_leave_the_first_convolution_to_all_pixels_and_the_shortcut_to_the_small_ones():
    fast = Engine(build("clade-icpe"), precision="fp32")
    blocks = [block for block in fast.generator.modules() if isinstance(block, FusedBlock) and block.small]
    assert [block.small.conv for block in blocks] == [None] * 4
    convolved = []
    for block in blocks:
        block.conv1.register_forward_hook(lambda *_: convolved.append("first"))
        block.conv_shortcut.register_forward_hook(lambda *_: convolved.append("shortcut"))
    fast(regions(cell=32))
    assert convolved == ["first"] * 4


def test_more_others_than_there_is_memory_for_are_left_to_the_convolution_of_all_pixels(monkeypatch):
    monkeypatch.setattr("clade.engine.small._MOST", 0)
    maps = regions()
    torch.testing.assert_close(engine()(maps), generator()(maps).detach(), atol=1e-5, rtol=0)
    block = next(part for part in engine().generator.modules() if isinstance(part, FusedBlock) and part.small)
    index = torch.zeros(1, 4, 4, dtype=torch.int32)
    tables = (torch.ones(2, 1), torch.ones(2, 1))
    assert block.small.doubling(Lookup(index, *tables), Lookup(index, *tables)) is not None  # without others
    index[0, 0, 1] = 1
    assert block.small.doubling(Lookup(index, *tables), Lookup(index, *tables)) is None


def test_layers_that_vary_differently_are_left_to_the_convolution_of_all_pixels():
    block = next(part for part in engine().generator.modules() if isinstance(part, FusedBlock) and part.small)
    index = torch.zeros(1, 4, 4, dtype=torch.int32)
    plain = Lookup(index, torch.ones(1, 1), torch.ones(1, 1))
    varying = Lookup(index, torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), torch.ones(1, 2, 4, 4), torch.ones(2, 3))
    assert block.small.doubling(plain, plain) is not None
    assert block.small.doubling(plain, varying) is None
