"""The engine: every optimization leaves the pictures as they are."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clade
from clade import CladeError, LabelError, LabelMap, LabelPyramid, create_generator
from clade.data.scenes import draw_scene
from clade.engine import OPTIMIZATIONS, Engine
from clade.engine.convolutions import PackedConv2d, can_pack, packable
from clade.engine.graphs import Graphs
from clade.engine.kernels import CompiledKernels, Kernels, Lookup
from clade.engine.neighbourhoods import SpadeTable, patterns
from clade.nn import SPADE, conv2d
from clade.system.processor import convolves_in_bf16

pytestmark = pytest.mark.processor

CLASSES = 13
BF16 = 38  # dB, for random networks two channels wide; trained ones reach 45 and more (docs/performance.md)
DRAWING = {  # network -> options; images of a trained network's contrast
    "clade": {},
    "clade with edges": {"instance_edges": True},
    "clade with features of position": {"positions": "features"},
    "clade, instance normalization": {"normalization": "instance"},
    "clade, latent": {"z_dim": 8},
    "clade, more": {"upsampling": "more"},
    "clade-icpe": {},
    "clade-icpe with edges": {"instance_edges": True},
    "spade": {"hidden": 16},
    "spade with edges": {"hidden": 16, "instance_edges": True},
    "dagan": {"hidden": 16},
    "hybrid": {"norm": "spade:3,clade"},
    "backbone": {"norm": "none"},
}


def build(name):
    generator = copy.deepcopy(built(name))
    torch.manual_seed(1)
    return generator


@functools.cache
def built(name):
    torch.manual_seed(0)
    system = name.split(",")[0].split(" ")[0]
    system = {"hybrid": "clade", "backbone": "clade"}.get(system, system)
    generator = create_generator(system, num_classes=CLASSES, unknown_class=True, width=2, **DRAWING[name])
    generator.train()
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            if key.endswith(("gamma", "beta")):
                parameter.copy_(0.5 + torch.randn(parameter.shape) / 2)
            elif "position_" in key or ".edge." in key:
                parameter.copy_(torch.randn(parameter.shape) / 3)
        for _ in range(3):  # statistics that are not those of the start
            generator(LabelMap(torch.randint(0, CLASSES + 1, (2, 64, 64))))
        generator.eval()
        z = None if generator.z_dim is None else torch.zeros(1, generator.z_dim)
        contrast = generator.synthesize(LabelPyramid(scene(), CLASSES + 1), z).atanh().std()
        generator.to_image.weight.mul_(0.5 / contrast)
    return generator


def scene(height=64, width=96, index=1):
    drawn = draw_scene(index, seed=0, height=height, width=width)
    return LabelMap(np.where(drawn.ids == 255, CLASSES, drawn.ids), drawn.instances)


def latent(generator, count=1):
    return None if generator.z_dim is None else torch.randn(count, generator.z_dim)


def eager(generator, maps, z=None):
    with torch.no_grad():
        return generator.eval()(maps, z=z)


def psnr(image, other):
    return float(10 * torch.log10(4 / (image - other).square().mean()))


@pytest.mark.parametrize("name", DRAWING)
def test_fp32_draws_the_generators_image(name):
    generator = build(name)
    engine = Engine(generator, precision="fp32")
    for maps in (scene(), LabelMap.stack([scene(), scene(index=2)]), scene(50, 33), scene(32, 32)):
        z = latent(generator, len(maps))
        expected = eager(generator, maps, z)
        assert name == "backbone" or expected.std() > 0.05
        # Rounding, which instance normalization makes more of; eager networks are 2e-5 from float64 themselves.
        torch.testing.assert_close(engine(maps, z), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", DRAWING)
def test_bf16_is_near(name):
    generator = build(name)
    z = latent(generator)
    assert psnr(Engine(generator, precision="bf16")(scene(), z), eager(generator, scene(), z)) > BF16


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("left_out", list(OPTIMIZATIONS))
@pytest.mark.parametrize("name", ["clade-icpe with edges", "spade with edges"])
def test_each_optimization_can_be_left_out(name, left_out, precision):
    generator = build(name)
    engine = Engine(generator, precision=precision, without=[left_out])
    assert left_out not in engine.applied
    image, expected = engine(scene()), eager(generator, scene())
    if precision == "fp32":
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    else:
        assert psnr(image, expected) > BF16


def test_none_at_all_is_the_generator_itself():
    generator = build("clade")
    engine = Engine(generator, precision="fp32", without=list(OPTIMIZATIONS))
    assert engine.applied == []
    assert torch.equal(engine(scene()), eager(generator, scene()))


def test_what_is_in_effect_is_named_in_order():
    applied = Engine(build("spade"), precision="bf16").applied
    assert applied == [name for name in OPTIMIZATIONS if name in applied]
    assert {"folded-spectral-norm", "neighbourhood-tables", "fused-blocks", "bf16"} <= set(applied)
    assert "class-tables" not in applied
    assert "cuda-graph" not in applied
    assert ("packed-convolutions" in applied) == (can_pack() and convolves_in_bf16())
    assert ("channels-last" in applied) == ("packed-convolutions" not in applied)


def test_without_avx512_bf16_is_drawn_by_what_torch_has_for_it(monkeypatch):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: "avx2")
    monkeypatch.setattr("clade.system.processor.emulation_cost", lambda kind: 1.0)
    generator = build("clade-icpe with edges")
    engine = Engine(generator, precision="bf16")
    assert "packed-convolutions" not in engine.applied
    assert psnr(engine(scene()), eager(generator, scene())) > BF16
    assert ("packed-convolutions" in Engine(generator).applied) == can_pack()  # auto: fp32 there


def test_the_generator_stays_as_it_is():
    generator = build("spade").train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    Engine(generator, precision="bf16")(scene())
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())


def test_bad_input_is_refused():
    with pytest.raises(CladeError, match="precision 'fp16'"):
        Engine(build("clade"), precision="fp16")
    with pytest.raises(CladeError, match=r"optimization called 'packed'.*packed-convolutions"):
        Engine(build("clade"), without=["packed"])
    with pytest.raises(LabelError, match="class 99"):
        Engine(build("clade"))(LabelMap(torch.full((1, 32, 32), 99)))


def test_its_generator_cannot_be_saved_as_if_it_were_the_trained_one(tmp_path):
    with pytest.raises(CladeError, match="folded"):
        clade.save(Engine(build("clade")).generator, tmp_path / "g.safetensors")


@pytest.mark.parametrize(
    ("instructions", "expected"), [("other", "fp32"), ("avx2", "fp32"), ("avx512", "fp32"), ("avx512-bf16", "bf16")]
)
def test_auto_takes_what_the_processor_multiplies_in(monkeypatch, instructions, expected):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: instructions)
    assert Engine(build("clade")).precision == expected


# --- compiling


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clade", "clade-icpe", "backbone"])
def test_compiled_draws_the_same_at_any_size(name):
    generator = build(name)
    engine = Engine(generator, precision="fp32", compile=True)
    assert "compiled-kernels" in engine.applied
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # compiling must not fail where there is a compiler
        for maps in (scene(), scene(96, 64), LabelMap.stack([scene(), scene(index=2)])):
            torch.testing.assert_close(engine(maps), eager(generator, maps), atol=1e-5, rtol=0)


@pytest.mark.parametrize("late", [False, True])
def test_where_compiling_fails_the_picture_is_drawn_without(monkeypatch, late):
    def fails(*args, **kwargs):
        raise RuntimeError("no compiler found\nlong story")

    monkeypatch.setattr(torch, "compile", (lambda *args, **kwargs: fails) if late else fails)
    generator = build("clade")
    engine = Engine(generator, precision="fp32", compile=True)
    with pytest.warns(RuntimeWarning, match=r"no compiler found\).*C\+\+ compiler") as caught:
        image = engine(scene())
    assert len(caught) == 1  # once, not per layer
    torch.testing.assert_close(image, eager(generator, scene()), atol=1e-5, rtol=0)


def test_an_error_that_is_not_compilings_is_not_blamed_on_it(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    kernels = CompiledKernels()
    index = torch.zeros(1, 4, 4, dtype=torch.int32)
    wrong = Lookup(index, torch.ones(2, 7), torch.ones(2, 7))
    x = torch.ones(1, 3, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError):
            kernels.modulate(x, wrong, 0.2, False)
        right = Lookup(index, torch.full((2, 3), 2.0), torch.ones(2, 3))
        assert torch.equal(kernels.modulate(x, right, 0.2, False), torch.full_like(x, 3))  # compiling goes on


@pytest.mark.parametrize("compile", [False, True])
def test_layers_of_two_kinds_in_one_block(monkeypatch, compile):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    generator = build("spade")
    block = generator.blocks[4]
    block.norm1 = clade.nn.CLADE(block.norm1.out_channels, num_rows=CLASSES + 1).eval()
    engine = Engine(generator, precision="fp32", compile=compile)
    torch.testing.assert_close(engine(scene()), eager(generator, scene()), atol=1e-5, rtol=0)


def test_an_engines_generator_is_refused():
    with pytest.raises(CladeError, match=r"fast already.*clade\.read_checkpoint"):
        Engine(Engine(build("clade")).generator)


def test_auto_stays_in_fp32_for_instance_normalization():
    generator = create_generator("pix2pixhd", num_classes=3, width=2, blocks=1)
    assert Engine(generator).precision == "fp32"
    assert Engine(generator, precision="bf16").precision == "bf16"


@pytest.mark.parametrize("name", ["pix2pixhd", "cc-fpse", "sean", "sean-clade", "groupdnet", "groupdnet-clade"])
def test_other_systems_draw_the_same(name):
    torch.manual_seed(0)
    generator = create_generator(name, num_classes=CLASSES, unknown_class=True, width=8).eval()
    engine = Engine(generator, precision="fp32")
    maps = scene()
    shape = generator.latent_shape(maps.size)
    z = None if shape is None else torch.randn(1, *shape)
    torch.manual_seed(1)
    expected = eager(generator, maps, z)
    torch.manual_seed(1)
    torch.testing.assert_close(engine(maps, z), expected, atol=1e-5, rtol=0)
    assert "neighbourhood-tables" not in engine.applied


# --- the parts


@pytest.mark.parametrize("kernels", [Kernels()], ids=["eager"])
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("factors", [False, True])
def test_modulation_is_what_its_equation_says(kernels, upsample, factors):
    torch.manual_seed(0)
    n, c, h, w = 2, 5, 6, 10
    features = torch.randn(n, c, h // 2 if upsample else h, w // 2 if upsample else w)
    lookup = Lookup(
        torch.randint(0, 7, (n, h, w), dtype=torch.int32),
        torch.randn(7, c),
        torch.randn(7, c),
        torch.randn(c) if factors else None,
        torch.rand(n, 2, h, w) * 2 - 1 if factors else None,
        torch.randn(2, 3) if factors else None,
    )
    big = features.repeat_interleave(2, 2).repeat_interleave(2, 3) if upsample else features
    scale, shift = (table[lookup.index.long()].movedim(-1, 1) for table in (lookup.scale, lookup.shift))
    if factors:
        y, x = lookup.offsets[:, :1], lookup.offsets[:, 1:]
        f, g = (v[0] * y + v[1] * x + v[2] for v in lookup.weights)
        expected = f * scale * (big - lookup.mean.view(1, -1, 1, 1)) + g * shift
    else:
        expected = scale * big + shift
    torch.testing.assert_close(kernels.modulate(features, lookup, None, upsample), expected, atol=1e-5, rtol=1e-5)
    active = torch.where(expected > 0, expected, 0.2 * expected)
    result = kernels.modulate(features, lookup, 0.2, upsample)
    torch.testing.assert_close(result, active, atol=1e-5, rtol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("others", [0, 3, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_doubling_computes_pixels_of_another_class_by_themselves(dtype, others, factors):
    torch.manual_seed(0)
    n, c, h, w = 2, 5, 6, 10
    index = torch.randint(0, 7, (n, h // 2, w // 2), dtype=torch.int32)
    index = index.repeat_interleave(2, 1).repeat_interleave(2, 2)
    index.view(-1)[torch.randperm(index.numel())[:others]] = 6

    def lookup():
        more = (torch.randn(c), torch.rand(n, 2, h, w), torch.randn(2, 3)) if factors else ()
        return Lookup(index, torch.randn(7, c), torch.randn(7, c), *more)

    first, second = lookup(), lookup()
    x = torch.randn(n, c, h // 2, w // 2).to(dtype)
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    pair = Kernels().modulate_pair(x, first, 0.2, second, True)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2**-7, "rtol": 2**-7}
    for found, wanted, slope in zip(pair, (first, second), (0.2, None), strict=True):
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, Kernels().modulate(big, wanted, slope, False), **tolerance)
        if others == 3 and not factors:  # the same numbers, not only near ones
            assert torch.equal(found, Kernels().modulate(big, wanted, slope, False))


@pytest.mark.parametrize("factors", [False, True])
def test_a_single_pixel_doubles_to_four_of_which_one_may_differ(factors):
    torch.manual_seed(0)
    index = torch.tensor([[[0, 0], [0, 1]]], dtype=torch.int32)
    more = (torch.randn(5), torch.rand(1, 2, 2, 2), torch.randn(2, 3)) if factors else ()
    lookup = Lookup(index, torch.randn(2, 5), torch.randn(2, 5), *more)
    x = torch.randn(1, 5, 1, 1)
    found = Kernels().modulate(x, lookup, 0.2, True)
    torch.testing.assert_close(found, Kernels().modulate(x.expand(1, 5, 2, 2), lookup, 0.2, False))


def test_modulation_in_blocks_of_rows_leaves_nothing_out(monkeypatch):
    for module in ("clade.engine.kernels", "clade.nn.modulation_plain"):
        monkeypatch.setattr(f"{module}._PIECE", 40)
    test_modulation_is_what_its_equation_says(Kernels(), True, True)
    test_modulation_is_what_its_equation_says(Kernels(), False, False)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 200, 70_000]), st.integers(0, 99)
)
def test_patterns_are_the_distinct_neighbourhoods(count, height, width, values, seed):
    random = np.random.default_rng(seed)
    kinds = random.integers(0, values, 4) if seed % 2 else np.arange(values)
    numbers = torch.from_numpy(random.choice(kinds, (count, height, width)).astype(np.int32))
    found = patterns(numbers)
    padded = np.pad(numbers.numpy(), [(0, 0), (1, 1), (1, 1)], constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).reshape(count, height, width, 9)
    assert (found.members.numpy()[found.index.numpy()] == windows).all()
    assert len(found.members) == len(np.unique(windows.reshape(-1, 9), axis=0))


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("kind", ["scene", "noise", "one class"])
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (1, 7), (2, 2), (16, 12)])
def test_spade_by_neighbourhoods_is_spade(kind, size, edges, monkeypatch):
    torch.manual_seed(0)
    maps = LabelMap.stack([scene(64, 48), scene(64, 48, index=2)])
    if kind == "noise":
        maps = LabelMap(torch.randint(0, CLASSES + 1, (2, 64, 48)))
    elif kind == "one class":
        maps = LabelMap(torch.full((2, 64, 48), 3))
    layer = SPADE(5, num_rows=CLASSES + 1, instance_edges=edges, hidden=8).eval()
    with torch.no_grad():
        for conv in (layer.shared, layer.to_gamma, layer.to_beta):
            conv.weight.mul_(20)
            conv.bias.copy_(torch.randn(conv.bias.shape))
        layer.normalize.running_mean.copy_(torch.randn(5))
        layer.normalize.running_var.copy_(torch.rand(5) + 0.5)
        x = torch.randn(2, 5, *size)
        expected = layer(x, LabelPyramid(maps, CLASSES + 1))
        for columns, most in ((4, 1 << 26), (64, 1 << 26), (64, 1)):  # in parts, all at once, and without a table
            monkeypatch.setattr("clade.engine.neighbourhoods._COLUMNS", columns)
            monkeypatch.setattr("clade.engine.neighbourhoods._MOST", most)
            result = SpadeTable(layer)(x, LabelPyramid(maps, CLASSES + 1))
            torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(not can_pack(), reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "groups", "stride"), [(3, 1, 1), (1, 1, 1), (3, 4, 1), (4, 1, 2)])
def test_a_packed_convolution_is_the_convolution(kernel, groups, stride, dtype):
    torch.manual_seed(0)
    conv = conv2d(8, 12, kernel, groups=groups, stride=stride).to(dtype).requires_grad_(False)
    conv.bias.copy_(torch.randn(12))
    if not packable(conv):  # bfloat16 without AVX512, which then has to be true
        assert dtype == torch.bfloat16
        assert not convolves_in_bf16()
        return
    packed = PackedConv2d(conv)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    for size in ((16, 16), (5, 9)):
        x = torch.randn(2, 8, *size, dtype=dtype)
        y = conv(x)
        add = torch.randn(y.shape, dtype=dtype)
        torch.testing.assert_close(packed(x), y, **tolerance)
        torch.testing.assert_close(packed(x, add), y + add, **tolerance)


def test_a_graph_that_cannot_be_recorded_is_done_without():
    calls = []

    def draw(maps, z):
        calls.append(maps.size)
        return torch.zeros(1)

    graphs = Graphs(draw)
    if torch.cuda.is_available():
        pytest.skip("here it can")
    with pytest.warns(RuntimeWarning, match="CUDA graph"):
        graphs(scene(32, 32), None)
    graphs(scene(32, 64), None)
    assert calls == [(32, 32), (32, 64)]


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("name", DRAWING)
def test_on_a_gpu_the_images_are_the_same(name, compile):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    generator = build(name)
    for precision in ("fp32", "bf16"):
        engine = Engine(generator, device="cuda", precision=precision, compile=compile)
        for maps in (scene(), scene(), scene(index=2), scene(50, 33)):
            z = latent(generator)
            image, expected = engine(maps, z).cpu(), eager(generator, maps, z)
            assert psnr(image, expected) > (BF16 if precision == "bf16" else 60)  # fp32 convolutions may be TF32
