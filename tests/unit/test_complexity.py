"""Counting against the paper's printed numbers and against by-hand arithmetic; measuring against known allocations."""

import functools

import pytest
import torch
from torch import nn

import clade
from clade import CladeError, Synthesizer, create_generator, profile
from clade.complexity import (
    CONVENTIONS,
    PARTS,
    count,
    counting,
    inference_memory,
    time_generators,
    training_memory,
)
from clade.complexity.figure import draw_figure_5
from clade.complexity.measuring import peak_allocated, scene_labels, tensor_bytes
from clade.complexity.overhead import layer_pairs, section_3_3
from clade.complexity.paper import TABLE_1, TABLE_3, TABLE_4, backbone, table_2, table_3, tables
from clade.complexity.rules import paper_macs
from clade.complexity.settings import SETTINGS, build, find_setting
from clade.labels import LabelPyramid
from clade.models import Generator, RegionEncoder
from clade.nn import Unnormalized, fold_spectral_norm

TINY = {"num_classes": 3, "width": 2}

# (dataset, generator) -> (parameters, multiply-adds in G to four digits) as the published networks were counted.
PUBLISHED = {
    ("ade20k", "cc-fpse"): (140704323, 438.1832),
    ("ade20k", "dagan"): (96578709, 186.1274),
    ("ade20k", "pix2pixhd"): (182886019, 99.2961),
    ("ade20k", "spade"): (96492483, 181.2818),
    ("ade20k", "clade"): (71427267, 42.2296),
    ("ade20k", "clade-icpe"): (71427375, 42.2312),
    ("ade20k", "spade-light"): (7505851, 58.0148),
    ("coco-stuff", "cc-fpse"): (141939843, 456.0610),
    ("coco-stuff", "pix2pixhd"): (182989507, 106.0783),
    ("coco-stuff", "spade"): (97480899, 191.2718),
    ("coco-stuff", "clade"): (72505383, 42.4097),
    ("coco-stuff", "clade-icpe"): (72505491, 42.4112),
    ("coco-stuff", "spade-light"): (8228155, 67.9878),
    ("cityscapes", "cc-fpse"): (128055555, 739.1789),
    ("cityscapes", "dagan"): (93134229, 291.2281),
    ("cityscapes", "pix2pixhd"): (182525379, 151.3225),
    ("cityscapes", "spade"): (93048003, 281.5369),
    ("cityscapes", "clade"): (67901991, 75.5432),
    ("cityscapes", "clade-icpe"): (67902099, 75.5464),
    ("cityscapes", "spade-light"): (30218467, 132.9191),
}

# In millions and G, to one digit.
PRINTED = {
    ("celebamask-hq", "sean"): (266.9, 346.3),
    ("deepfashion", "groupdnet"): (96.3, 291.6),
    ("cityscapes", "groupdnet"): (76.5, 463.6),
    ("ade20k", "groupdnet"): (68.3, 383.0),
}


@functools.cache
def full_size(dataset, name):
    return build(name, SETTINGS[dataset].options(name), values=False)


def counted(dataset, name, convention="paper"):
    return count(full_size(dataset, name), SETTINGS[dataset].size, convention)


# --- Counting as the paper does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "name"), PUBLISHED)
def test_full_size_networks_cost_what_the_published_ones_do(dataset, name):
    own = counted(dataset, name)
    assert (own.params, round(own.macs / 1e9, 4)) == PUBLISHED[dataset, name]


@pytest.mark.parametrize(("dataset", "name"), PRINTED)
def test_style_networks_cost_what_is_printed(dataset, name):
    own = counted(dataset, name)
    assert (round(own.params / 1e6, 1), round(own.macs / 1e9, 1)) == PRINTED[dataset, name]


def test_every_printed_number_of_tables_1_and_4_comes_out():
    for dataset, printed in TABLE_1.items():
        for name, numbers in printed.items():
            params, macs = PUBLISHED[dataset, name]
            assert (round(params / 1e6, 1), round(macs, 1)) == numbers, (dataset, name)
    for dataset, printed in TABLE_4.items():
        for name, flops in printed.items():
            assert round(PUBLISHED[dataset, name][1], 1) == flops, (dataset, name)


def test_table_3_comes_out_as_differences_of_rounded_totals():
    for dataset, part, printed, rounded, *_ in table_3().rows:
        assert printed == rounded == TABLE_3[dataset][part]


def test_section_3_3_comes_out():
    printed = section_3_3()
    assert round(100 * printed["spade"].params, 2) == 39.21
    assert round(100 * printed["spade"].flops, 2) == 234.73
    assert round(100 * printed["clade"].params, 2) == 4.57
    assert round(100 * printed["clade"].flops, 2) == 0.07
    assert round(100 * printed["clade-icpe"].flops, 2) == 0.14
    built = section_3_3(shortcuts_as_3x3=False)
    assert round(100 * built["spade"].params, 1) == 42.5
    assert round(100 * built["spade"].flops, 1) == 330.7
    assert round(100 * built["clade"].params, 2) == 4.95


def test_single_layers_follow_equations_5_and_10():
    rows, hidden = 151, 128
    for name in ("spade", "clade"):
        pairs = layer_pairs(full_size("ade20k", name), SETTINGS["ade20k"].size)
        assert len(pairs) == 18
        wide = pairs[0]  # 1024 channels before and after, 3x3
        if name == "spade":
            assert wide.params_ratio == (rows * hidden + 2 * hidden * 1024) / (1024 * 1024)
            assert wide.flops_ratio == wide.params_ratio
        else:
            assert wide.params_ratio == 2 * rows / (9 * 1024)
            assert wide.flops_ratio == 1 / (9 * 1024)  # equation 11 with two operations per multiply-add
        assert max(pair.params_ratio for pair in pairs if pair.name.endswith(("norm1", "norm2"))) > (
            6 if name == "spade" else 0.5
        )


def test_section_3_3_refuses_other_layers():
    generator = backbone("ade20k")
    for block in generator.modules():
        if isinstance(block, Unnormalized):
            block.normalize = nn.BatchNorm2d(block.out_channels)
    with pytest.raises(CladeError, match="not of Unnormalized"):
        layer_pairs(generator, (64, 64))


def test_the_backbone_is_the_part_that_is_no_layer():
    for dataset in TABLE_3:
        with torch.device("meta"):
            bare = backbone(dataset)
        assert count(bare).params == counted(dataset, "spade").by_part["backbone"][0]


def test_what_stands_for_no_normalization_lets_features_through():
    x = torch.randn(1, 3, 2, 2)
    layer = Unnormalized(3)
    assert layer.out_channels == 3
    assert torch.equal(layer(x, LabelPyramid(scene_labels(4, (64, 64)), 4)), x)


class OneLayer(Generator):
    """A generator around a single module, which gets the one-hot labels."""

    def __init__(self, module, unknown_class=False, plain=False):
        super().__init__(4, unknown_class)
        self.body = module
        self.plain_batch_norm = plain

    def synthesize(self, labels, z):
        return self.body(labels.one_hot(labels.size))

    def counted_forward(self, labels):
        return self.synthesize(labels, None)  # the inherited one asks a parameter for its type


MODULES = [
    (nn.Conv2d(4, 6, 3, padding=1), 6 * 9 * 8 * (4 * 9 + 1), 6 * 9 * 8 * (4 * 9 + 1)),
    (nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), 6 * 4 * 3 * 2 * 9, 6 * 4 * 3 * 2 * 9),
    (nn.Linear(8, 5), 4 * 9 * 5 * 8, 4 * 9 * 5 * (8 + 1)),
    # 4x4 of stride 2: every input element meets 16 weights per output channel; the paper's rule takes every output.
    (
        nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, bias=False),
        6 * 18 * 16 * 4 * 16,
        4 * 9 * 8 * 6 * 16,
    ),
    (nn.LeakyReLU(0.2), 4 * 9 * 8, 4 * 9 * 8),
    (nn.ReLU(), 0, 4 * 9 * 8),
    (nn.BatchNorm2d(4), 0, 2 * 4 * 9 * 8),
    (nn.InstanceNorm2d(4), 0, 2 * 4 * 9 * 8),
    (nn.AdaptiveAvgPool2d(2), 4 * 9 * 8 + 4 * 4, 4 * 9 * 8),
    (nn.Upsample(scale_factor=2.0, mode="nearest"), 0, 0),
    (nn.Upsample(scale_factor=2.0, mode="bilinear"), 0, 4 * 18 * 16),
    (nn.ReflectionPad2d(1), 0, 0),
    (nn.Softmax(1), 0, 4 * 9 * 8),
]


@pytest.mark.parametrize(("module", "paper", "true"), MODULES, ids=[type(m[0]).__name__ for m in MODULES])
def test_a_single_module_counts_by_the_rules(module, paper, true):
    generator = OneLayer(module)
    assert count(generator, (9, 8), "paper").macs == paper
    assert count(generator, (9, 8), "true").macs == true


def test_plain_batch_norm_counts_where_the_published_network_has_it():
    assert count(OneLayer(nn.BatchNorm2d(4), plain=True), (9, 8)).macs == 2 * 4 * 9 * 8


def test_one_channel_layers_count_as_the_convolutions_that_they_are():
    out = torch.empty(1, 1, 5, 7)
    layer = clade.complexity.rules.OneChannel(2)
    assert paper_macs(layer, (), out, plain_batch_norm=False) == 35 * (2 + 1)
    assert paper_macs(nn.Conv2d(2, 1, 1), (), out, plain_batch_norm=False) == 35 * (2 + 1)


def matrix_products(x):
    row = x[0].flatten(1)  # (4, 72)
    product = row @ row.t()  # 4 x 4, each of 72
    batched = torch.bmm(x[0], x[0].transpose(1, 2))  # 4 x 9 x 9, each of 8
    return torch.einsum("nchw,ncvw->nchv", x, x).sum() + product.sum() + batched.sum()


class Products(nn.Module):
    def forward(self, x):
        return matrix_products(x)


def test_matrix_products_count_their_multiply_adds():
    products = 16 * 72 + 4 * 81 * 8 + 4 * 81 * 8
    sums = 4 * 81 + 16 + 4 * 81 + 2  # reductions count what they read; then two sums of scalars
    assert count(OneLayer(Products()), (9, 8), "true").macs == products + sums


# What moves, chooses or makes values without computing with them, under all names that torch has for it.
MOVES = {
    *("_to_copy", "_unsafe_view", "alias", "clone", "copy", "detach", "lift_fresh"),
    *("view", "_reshape_alias", "expand", "permute", "t", "transpose", "squeeze", "unsqueeze", "as_strided"),
    *("select", "slice", "split", "split_with_sizes", "unbind", "cat", "stack"),
    *("embedding", "gather", "index", "index_select", "scatter", "where", "masked_fill"),
    *("constant_pad_nd", "reflection_pad2d", "replication_pad2d", "upsample_nearest2d"),
    *("empty", "zeros", "ones", "full", "fill", "new_zeros", "zeros_like", "randn"),
}


@pytest.mark.parametrize("name", clade.list_generators())
def test_what_counts_nothing_moves_data(name, monkeypatch):
    free, counted = set(), set()
    rule = counting.executed_macs

    def recorded(func, args, output):
        macs, normalizes = rule(func, args, output)
        first = output[0] if isinstance(output, (tuple, list)) else output
        if isinstance(first, torch.Tensor) and first.is_floating_point():
            (counted if macs else free).add(func.overloadpacket.__name__.rstrip("_"))
        return macs, normalizes

    monkeypatch.setattr(counting, "executed_macs", recorded)
    count(build(name, SETTINGS["cityscapes"].options(name, width=4), values=False), (60, 128), "true")
    assert "convolution" in counted
    assert free
    assert free <= MOVES, free - MOVES


# --- What is counted, and where ---------------------------------------------------------------------------------------


def test_modulation_is_counted_where_it_is_executed():
    generator = create_generator("clade", **TINY)
    paper, true = (count(generator, (32, 32), convention) for convention in CONVENTIONS)
    assert paper.by_part["modulation"][1] == 0
    # One multiply-add for every element that is normalized, which itself counts two.
    assert true.by_part["modulation"][1] == true.by_part["normalization"][1] / 2 > 0
    assert true.by_part["backbone"][1] > paper.by_part["backbone"][1]


@pytest.mark.parametrize("name", clade.list_generators())
def test_parts_and_layers_add_up(name):
    generator = build(name, SETTINGS["cityscapes"].options(name, width=4), values=False)
    modules = dict(generator.named_modules())
    for convention in CONVENTIONS:
        own = count(generator, (64, 128), convention)
        assert tuple(own.by_part) == PARTS
        assert own.params == sum(p.numel() for p in generator.parameters())
        assert (own.params, own.macs) == tuple(map(sum, zip(*own.by_part.values(), strict=True)))
        assert own.macs > 0
        assert all(layer.name in modules for layer in own.by_layer)


def test_layers_are_rows_with_shapes():
    own = count(create_generator("spade", **TINY), (64, 32))
    rows = {layer.name: layer for layer in own.by_layer}
    assert rows["blocks.0.conv1"].kind == "Conv2d"
    assert rows["blocks.0.conv1"].shape == (1, 32, 2, 1)
    assert rows["blocks.0.conv1"].params == 32 * 32 * 9 + 32
    assert rows["blocks.0.conv1"].macs == 2 * 32 * (32 * 9 + 1)
    assert rows["blocks.0.norm1.shared"].part == "modulation"


def test_a_style_encoder_is_a_part_of_its_own():
    options = {**TINY, "z_dim": 4, "size": (64, 64)}
    plain = count(create_generator("clade", **options), (64, 64))
    styled = count(create_generator("clade", **options, encoder=True, encoder_width=1), (64, 64))
    assert styled.by_part["style"][0] == styled.params - plain.params > 0
    assert styled.by_part["style"][1] == 0  # the picture is drawn from z
    assert styled.macs == plain.macs


def test_counting_changes_nothing_and_agrees_with_a_meta_generator():
    generator = create_generator("clade-icpe", **TINY).train()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    kinds = [type(module) for module in generator.modules()]
    own = count(generator, (64, 64), "true")
    assert generator.training
    assert [type(module) for module in generator.modules()] == kinds
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert not any(module._forward_hooks for module in generator.modules())
    with torch.device("meta"):
        shapes = create_generator("clade-icpe", **TINY)
    assert count(shapes, (64, 64), "true") == own


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_hooks_of_the_user_stay_and_do_not_run_while_counting(convention):
    generator = create_generator("clade", **TINY)
    expected, calls = count(generator, (32, 32), convention), []
    conv = generator.blocks[0].conv1
    # Arithmetic of a hook would be counted, and a changed output would be used.
    conv.register_forward_hook(lambda _module, _inputs, output: calls.append("after") or output * 2)
    conv.register_forward_pre_hook(lambda _module, inputs: calls.append("before"))
    conv.register_forward_hook(lambda *_, **__: calls.append("with keywords"), with_kwargs=True, always_call=True)
    generator.register_forward_pre_hook(lambda *_: calls.append("whole"))
    generator.to_image.register_forward_hook(lambda *_: calls.append("image"))
    assert count(generator, (32, 32), convention) == expected
    assert not calls
    with torch.no_grad():
        generator.eval()(torch.zeros(1, 32, 32, dtype=torch.long))
    assert calls == ["whole", "before", "after", "with keywords", "image"]


def test_frozen_parameters_are_parameters():
    generator = create_generator("clade", **TINY)
    params = count(generator).params
    assert count(generator.requires_grad_(False)).params == params


def test_a_picture_of_an_odd_size_costs_what_is_computed_for_it():
    generator = create_generator("clade", **TINY)
    assert count(generator, (33, 60)).macs == count(generator, (64, 64)).macs > count(generator, (32, 64)).macs


@pytest.mark.parametrize("size", [(256,), (0, 5), (1.5, 2), (-1, 4)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(CladeError, match="needed is \\(height, width\\)"):
        profile(create_generator("clade", **TINY), size)


def test_an_unknown_convention_is_refused_with_the_nearest_known_one():
    with pytest.raises(CladeError, match=r"no convention 'papr'.*Did you mean 'paper'"):
        profile(create_generator("clade", **TINY), convention="papr")


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_settings_leave_out_what_a_generator_does_not_take():
    assert "hidden" not in SETTINGS["ade20k"].options("clade")
    assert SETTINGS["cityscapes"].options("spade-light")["width"] == 32
    assert SETTINGS["cityscapes"].options("spade-light", width=2)["width"] == 2
    assert SETTINGS["ade20k"].options("clade", num_classes=5)["num_classes"] == 5


def test_an_unknown_dataset_is_refused_with_the_nearest_known_one():
    with pytest.raises(CladeError, match=r"'cityscape'.*Did you mean 'cityscapes'"):
        find_setting("cityscape")
    with pytest.raises(CladeError, match="have no 'deepfashion'"):
        tables("deepfashion")


# --- Measuring --------------------------------------------------------------------------------------------------------


def test_peak_memory_is_what_was_held_at_once():
    held = torch.empty(10_000)

    def call():
        first = torch.empty(1_000_000)
        second = torch.empty(500_000)
        del first
        third = torch.empty(200_000)
        return held, second, third

    assert peak_allocated(call) == 6_000_000
    assert peak_allocated(lambda: held) == 0


def test_memory_of_a_forward_and_of_a_training_step():
    generator = create_generator("spade", num_classes=3, width=2, hidden=4)
    weights = tensor_bytes(generator)
    inference = inference_memory(generator, (64, 64))
    assert inference - weights >= 3 * 64 * 64 * 4  # the image at least
    assert inference_memory(generator, (128, 128)) - weights > 2 * (inference - weights)
    # Weights, gradients and two moments of both networks.
    assert training_memory(generator, (64, 64)) > 4 * sum(p.numel() * 4 for p in generator.parameters()) + inference


def test_a_training_step_is_measured_for_latent_and_styled_generators_too():
    options = {**TINY, "z_dim": 4, "size": (64, 64)}
    plain = training_memory(create_generator("clade", **options), (64, 64))
    styled = create_generator("clade", **options, encoder=True, encoder_width=1)
    before = {key: value.clone() for key, value in styled.state_dict().items()}
    assert training_memory(styled, (64, 64)) > plain
    assert all(torch.equal(value, before[key]) for key, value in styled.state_dict().items())


def test_profile_measures_when_asked():
    generator = create_generator("clade", **TINY)
    assert profile(generator, (32, 32)).time is None
    own = profile(generator, (64, 64), "true", measure=True, rounds=3, threads=1)
    assert own.time is not None
    assert own.memory is not None
    assert 0 < own.time.min <= own.time.median <= own.time.max
    assert (len(own.time.seconds), own.time.threads, own.time.precision) == (3, 1, "fp32")
    assert own.memory.inference == inference_memory(generator, (64, 64))
    assert own.memory.training > own.memory.inference


@pytest.mark.parametrize("name", ["clade", "sean"])  # with a latent, and with noise
def test_measuring_leaves_torchs_random_numbers_alone(name):
    own = {"style_dim": 4, "hidden": 4, "encoder_width": 2} if name == "sean" else {"z_dim": 4, "size": (64, 64)}
    generator = create_generator(name, **TINY, **own)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    profile(generator, (64, 64), measure=True, rounds=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["sean", "sean-clade"])
def test_the_time_of_sean_is_with_its_style_encoder(name, monkeypatch):
    calls, encode = [], RegionEncoder.forward

    def counted_forward(self, image, labels):
        calls.append(tuple(image.shape))
        return encode(self, image, labels)

    monkeypatch.setattr(RegionEncoder, "forward", counted_forward)  # of the class, since the network is copied
    generator = create_generator(name, **TINY, style_dim=4, encoder_width=2)
    time_generators({"": generator}, (32, 64), rounds=2)
    assert calls == [(1, 3, 32, 64)] * 3  # the first does not count


@pytest.mark.parametrize(
    "make",
    [
        lambda generator: fold_spectral_norm(generator),
        lambda generator: generator.requires_grad_(False),
    ],
    ids=["folded", "frozen"],
)
def test_a_generator_for_drawing_only_is_not_measured_in_training(make):
    generator = make(create_generator("clade", **TINY))
    assert profile(generator, (64, 64)).macs > 0
    with pytest.raises(CladeError, match=r"cannot be trained.*clade\.read_checkpoint"):
        profile(generator, (64, 64), measure=True, rounds=1)


@pytest.mark.parametrize("measure", [False, True])
def test_a_synthesizers_generator_is_not_profiled(measure):
    generator = Synthesizer(create_generator("clade", **TINY), device="cpu").generator
    with pytest.raises(CladeError, match=r"made for drawing only.*clade\.read_checkpoint"):
        profile(generator, (64, 64), measure=measure, rounds=1)


def test_a_training_step_that_cannot_be_made_says_so():
    with pytest.raises(CladeError, match=r"32x32.*Choose a larger size"):
        training_memory(create_generator("clade", **TINY), (32, 32))


def test_timing_leaves_the_generators_and_torchs_threads_alone():
    generator = create_generator("clade", **TINY).train()
    threads = torch.get_num_threads()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    times = time_generators({"a": generator, "b": generator}, (32, 32), rounds=1, precision="bf16", threads_used=2)
    assert list(times) == ["a", "b"]
    assert generator.training
    assert all(p.requires_grad for p in generator.parameters())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("instructions", "expected"), [("avx2", "fp32"), ("amx", "bf16")])
def test_auto_is_timed_in_what_the_processor_multiplies_in(monkeypatch, instructions, expected):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: instructions)
    generator = create_generator("clade", **TINY)
    assert time_generators({"a": generator}, (32, 32), rounds=1, precision="auto")["a"].precision == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "meta"}, "cannot be measured on"),
        ({"precision": "bf61"}, "Did you mean 'bf16'"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_a_measurement_that_cannot_be_made_is_refused(options, message):
    with pytest.raises(CladeError, match=message):
        time_generators({"": create_generator("clade", **TINY)}, (32, 32), **options)


def test_a_generator_without_values_is_not_measured():
    shapes = build("clade", TINY, values=False)
    for measure in (inference_memory, training_memory):
        with pytest.raises(CladeError, match="on the meta device"):
            measure(shapes, (32, 32))


def test_scene_labels_use_many_classes_and_every_size():
    for rows in (3, 13, 151):
        labels = scene_labels(rows, (64, 96)).check(rows)
        assert labels.size == (64, 96)
        assert labels.instances is not None
    assert len(scene_labels(151, (256, 256)).ids.unique()) > 5
    assert scene_labels(5, (4, 20)).size == (4, 20)


# --- Tables and figure ------------------------------------------------------------------------------------------------


def test_timed_tables_have_the_printed_numbers_beside_ours(monkeypatch):
    monkeypatch.setitem(
        SETTINGS,
        "ade20k",
        clade.complexity.settings.Setting(num_classes=3, size=(32, 32), widths={"spade": 2, "clade": 2}),
    )
    rows = table_2(["ade20k"], rounds=1).rows
    assert [row[:3] for row in rows] == [("ade20k", "spade", 4.104), ("ade20k", "clade", 1.710)]
    assert all(row[4] > 0 for row in rows)
    assert rows[0][5] == 1


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure_is_drawn(tmp_path, suffix):
    path = draw_figure_5(tmp_path / f"figure{suffix}", "cityscapes")
    start = path.read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if suffix == ".png" else start.startswith(b"<?xml")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_figure_of_another_kind_is_refused(tmp_path):
    with pytest.raises(CladeError, match="ends in one of"):
        draw_figure_5(tmp_path / "figure.xyz")
    assert not list(tmp_path.iterdir())
