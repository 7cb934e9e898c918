"""The segmentation discriminator and its losses against loops over blocks, pictures and pixels."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clade.errors import CladeError, RecipeError
from clade.labels import LabelMap, LabelPyramid, LabelSpace
from clade.models import SegmentationDiscriminator
from clade.models.discriminators.multiscale import Look
from clade.models.discriminators.segmentation import cross_entropy, pixel_weights
from clade.recipes import Recipe
from clade.training.builders import build_discriminator
from clade.training.fit import stepper
from clade.training.step import look_numbers

CLASSES = 4
SIZE = (16, 24)


def make(seed=0, unknown=True, **options):
    torch.manual_seed(seed)
    options = {"width": 4, "depth": 3, **options}
    discriminator = SegmentationDiscriminator(CLASSES, unknown_class=unknown, **options)
    with torch.no_grad():
        for key, value in discriminator.named_parameters():
            if key.endswith("bias"):
                value.normal_(std=0.3)
    return discriminator.double()


def maps(count=2, unknown=True, seed=0):
    """Blocks of 4x4 pixels; class 1 does not occur."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(CLASSES + unknown, (count, SIZE[0] // 4, SIZE[1] // 4), generator=random)
    coarse[coarse == 1] = 2
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)


def look(ids, dtype=torch.float64, visible=None, seed=1, rows=CLASSES + 1):
    random = torch.Generator().manual_seed(seed)
    fake, real = (torch.rand(len(ids), 3, *SIZE, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(2))
    numbers = look_numbers(seed + 1, 0, len(ids), rows, 0, 1)
    return Look(LabelPyramid(LabelMap(ids), rows), fake.to(dtype), real.to(dtype), False, visible, numbers)


def no_features(*_):
    raise AssertionError("it has no features to be matched")


def judged(discriminator, shown):
    generators, discriminators = discriminator.losses(shown, no_features)
    assert generators.keys() == {"gan"}
    return {**generators, **discriminators}


def hidden_part():
    visible = torch.ones(2, 1, *SIZE, dtype=torch.bool)
    visible[0, :, :8, 10:] = visible[1, :, 5:] = False
    return visible


def slow_losses(logits_fake, logits_real, logits_mixed, ids, mask, visible):
    """Sums over pixels in float64, in the words of the paper."""
    fake, real, mixed = (logits.detach().double().numpy() for logits in (logits_fake, logits_real, logits_mixed))
    everywhere = list(itertools.product(range(len(ids)), range(SIZE[0]), range(SIZE[1])))
    seen = [p for p in everywhere if visible is None or visible[p[0], 0, p[1], p[2]]]

    def surprise(logits, p, k):
        scores = logits[p[0], :, p[1], p[2]]
        return math.log(sum(math.exp(s) for s in scores)) - scores[k]

    def of_classes(logits):
        means = []
        for k in range(CLASSES):
            of_k = [surprise(logits, p, k) for p in seen if ids[p] == k]
            if of_k:
                means.append(sum(of_k) / len(of_k))
        return sum(means) / len(means) if means else 0.0

    apart = 0.0
    for n, i, j in everywhere:
        kept = (real if mask[n, i, j] else fake)[n, :, i, j]
        apart += float(((mixed[n, :, i, j] - kept) ** 2).sum()) / mixed.size
    return {
        "gan": of_classes(fake),
        "d_real": of_classes(real),
        "d_fake": sum(surprise(fake, p, CLASSES) for p in seen) / len(seen),
        "d_label_mix": 10 * apart,
    }


def mixed_by_hand(shown):
    """(mask, mixed image): every class of a picture has a number of its own, and comes from the photo below 1/2."""
    ids = shown.labels.label_map.ids
    mask = np.zeros(ids.shape, dtype=bool)
    image = shown.fake.detach().clone()
    for n, i, j in itertools.product(*(range(length) for length in ids.shape)):
        if shown.numbers[n, ids[n, i, j]] < 0.5:
            mask[n, i, j] = True
            image[n, :, i, j] = shown.real[n, :, i, j]
    return mask, image


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_losses_equal_their_definitions(unknown, hidden):
    discriminator, ids = make(unknown=unknown).eval(), maps(unknown=unknown)
    shown = look(ids, visible=hidden_part() if hidden else None, rows=CLASSES + unknown)
    losses = judged(discriminator, shown)
    mask, mixed = mixed_by_hand(shown)
    assert all(0.1 < picture.mean() < 0.9 for picture in mask)
    logits = [discriminator(image) for image in (shown.fake, shown.real, mixed)]
    expected = slow_losses(*logits, ids, mask, shown.visible)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0.01, name
        assert losses[name].item() == pytest.approx(value, rel=1e-5), name


def test_every_class_that_occurs_counts_alike_and_unknown_pixels_not_at_all():
    ids = maps()
    of_classes, of_generated = pixel_weights(ids, CLASSES)
    sums = [of_classes[ids == k].sum().item() for k in range(CLASSES + 1)]
    assert sums == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0])
    assert (ids == CLASSES).any()
    assert of_generated.unique().tolist() == pytest.approx([1 / ids.numel()])


def test_what_is_hidden_counts_nowhere():
    ids, visible = maps(), hidden_part()
    of_classes, of_generated = pixel_weights(ids, CLASSES, visible)
    shown = visible[:, 0]
    assert not of_classes[~shown].any()
    assert not of_generated[~shown].any()
    assert of_classes.sum().item() == pytest.approx(1)
    assert of_generated[shown].unique().tolist() == pytest.approx([1 / shown.sum().item()])


def test_pictures_without_a_known_class_cost_nothing_and_spoil_nothing():
    discriminator, shown = make(), look(torch.full((2, *SIZE), CLASSES))
    losses = judged(discriminator, shown)
    assert losses["gan"] == losses["d_real"] == 0
    assert losses["d_fake"] > 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in discriminator.parameters())


def test_the_photo_of_an_unknown_pixel_is_judged_by_label_mix_alone():
    discriminator, ids = make(label_mix=0), maps()
    logits = torch.randn(2, CLASSES + 1, *SIZE, requires_grad=True)
    cross_entropy(F.log_softmax(logits, 1), ids, pixel_weights(ids, CLASSES)[0]).backward()
    used = logits.grad.abs().sum(1) > 0
    assert torch.equal(used, ids != CLASSES)
    assert discriminator.draws == 0
    assert "d_label_mix" not in judged(discriminator, look(ids))


def test_gradients_equal_those_of_separate_looks():
    """As published: the generator's loss, and again fake, real and mixed for the discriminator."""
    discriminator, ids = make().eval(), maps()
    shown = look(ids)
    fake = shown.fake.requires_grad_()
    weights = list(discriminator.parameters())
    generators, discriminators = discriminator.losses(shown, no_features)
    (ours_image,) = torch.autograd.grad(generators["gan"], [fake], retain_graph=True)
    ours = torch.autograd.grad(sum(discriminators.values()), weights)

    target = ids.where(ids != CLASSES, -100)
    counts = torch.tensor([(ids == k).sum() for k in range(CLASSES)])
    balance = torch.where(counts > 0, 1 / counts.clamp(min=1), 0) / 3
    balance = F.pad(balance.double(), [0, 1])

    def real_loss(logits):
        return F.cross_entropy(logits, target, balance, reduction="sum")

    (expected_image,) = torch.autograd.grad(real_loss(discriminator(fake)), [fake])
    mask, mixed = mixed_by_hand(shown)
    mask = torch.from_numpy(mask)[:, None].double()
    on_fake, on_real, on_mixed = (discriminator(x) for x in (fake.detach(), shown.real, mixed))
    loss = real_loss(on_real) + F.cross_entropy(on_fake, torch.full_like(ids, CLASSES))
    loss = loss + 10 * F.mse_loss(mask * on_real + (1 - mask) * on_fake, on_mixed)
    expected = torch.autograd.grad(loss, weights)
    assert ours_image.abs().sum() > 0
    for a, b in zip((ours_image, *ours), (expected_image, *expected), strict=True):
        # Losses are summed in float32, whatever the type of the network.
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * b.abs().max().item())


def slow_forward(discriminator, x):
    """The published network, with every upsampling and average where it stands there."""

    def up2(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def conv(layer, x):
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    def shortcut(block, x):
        return x if isinstance(block.shortcut, torch.nn.Identity) else conv(block.shortcut, x)

    skips = []
    for k, block in enumerate(discriminator.down):
        y = conv(block.conv2, F.leaky_relu(conv(block.conv1, F.leaky_relu(x, 0.2) if k else x), 0.2))
        x = F.avg_pool2d(shortcut(block, x), 2) + F.avg_pool2d(y, 2)
        skips.append(x)
    for k, block in enumerate(discriminator.up):
        x = torch.cat([skips[-1 - k], x], 1) if k else x
        y = conv(block.conv2, F.leaky_relu(conv(block.conv1, up2(F.leaky_relu(x, 0.2))), 0.2))
        x = shortcut(block, up2(x)) + y
    return conv(discriminator.classify, x)


@pytest.mark.parametrize(("depth", "width"), [(2, 3), (3, 4), (4, 5)])
def test_logits_and_gradients_are_those_of_the_network_as_published(depth, width):
    discriminator = make(depth=depth, width=width).eval()
    x = torch.randn(2, 3, 32, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, CLASSES + 1, 32, 16, dtype=torch.float64)
    inputs = [x, *discriminator.parameters()]
    ours, expected = discriminator(x), slow_forward(discriminator, x)
    assert torch.allclose(ours, expected, rtol=0, atol=1e-10)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (ours, expected)), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_channels_are_the_published_ones_at_width_128():
    with torch.device("meta"):
        discriminator = SegmentationDiscriminator(150, unknown_class=True, width=128)
    down = [(block.conv1.in_channels, block.conv2.out_channels) for block in discriminator.down]
    assert down == [(3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    up = [(block.conv1.in_channels, block.conv2.out_channels) for block in discriminator.up]
    assert up == [(512, 512), (1024, 256), (512, 256), (512, 128), (256, 128), (256, 64)]
    assert discriminator.classify.weight.shape == (151, 64, 1, 1)


def test_under_bf16_autocast_losses_are_float32_and_near_those_in_float32():
    discriminator, ids = make(width=8).float().eval(), maps()
    shown = look(ids, torch.float32)
    exact = judged(discriminator, shown)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert discriminator(shown.fake).dtype == torch.bfloat16
        rounded = judged(discriminator, shown)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert rounded[name].item() == pytest.approx(value.item(), rel=0.03), name


def test_numbers_of_the_ranks_are_those_of_one_process_and_follow_seed_and_batch_alone():
    whole = look_numbers(3, 7, 4, 6, 0, 1)
    assert torch.equal(torch.cat([look_numbers(3, 7, 2, 6, rank, 2) for rank in (0, 1)]), whole)
    others = [look_numbers(seed, number, 4, 6, 0, 1) for seed, number in ((3, 8), (4, 7), (7, 3))]
    assert all(not torch.isclose(other, whole).any() for other in others)
    assert look_numbers(0, 0, 4000, 3, 0, 1).mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.03)


def test_a_size_that_cannot_be_halved_is_refused_with_the_depth_that_can():
    discriminator = make(depth=4, width=2)
    for see in (lambda: discriminator.check_size((32, 40)), lambda: discriminator(torch.zeros(1, 3, 32, 40).double())):
        with pytest.raises(CladeError, match=r"32x40: both must be multiples of 16.*depth: 3"):
            see()
    discriminator.check_size((32, 48))


@pytest.mark.parametrize(
    ("depth", "size", "hint"),
    [
        (6, (64, 128), None),
        (6, (96, 40), 3),
        (6, (128, 68), 2),
        (6, (128, 171), ""),
        (4, (32, 6), ""),
        (3, (12, 20), 2),
    ],
)
def test_the_depth_that_is_hinted_at_is_the_largest_that_fits(depth, size, hint):
    discriminator = make(depth=depth, width=2)
    if hint is None:
        return discriminator.check_size(size)
    with pytest.raises(CladeError) as caught:
        discriminator.check_size(size)
    found = re.search(r"depth: (\d+)", str(caught.value))
    assert (None if found is None else int(found[1])) == (hint or None)
    if hint:
        make(depth=hint, width=2).check_size(size)
    return None


@pytest.mark.parametrize("options", [{"width": 1}, {"depth": 1}, {"label_mix": -1}])
def test_options_that_make_no_network_are_refused(options):
    with pytest.raises(CladeError, match="needed are"):
        SegmentationDiscriminator(3, **options)


def test_alone_on_a_few_pictures_it_learns_their_classes():
    discriminator = make(width=8, depth=2, label_mix=1).float().train()
    ids = maps()
    colours = torch.rand(CLASSES + 1, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    shown = look(ids, torch.float32)
    shown = Look(shown.labels, shown.fake, colours[ids].movedim(-1, 1), False, None, shown.numbers)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=5e-3, betas=(0.5, 0.9))
    seen = []
    for _ in range(60):
        losses = discriminator.losses(shown, no_features)[1]
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        seen.append({name: loss.item() for name, loss in losses.items()})
    for name in ("d_real", "d_fake"):
        assert seen[-1][name] < 0.3 * seen[0][name], name
    known = ids != CLASSES
    assert (discriminator.eval()(shown.real).argmax(1) == ids)[known].float().mean() > 0.9


def test_an_image_alone_follows_its_gradient_to_the_classes_of_its_labels():
    discriminator = make().float().eval()
    shown = look(maps(), torch.float32)
    image = shown.fake.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.05)
    seen = []
    for _ in range(40):
        again = Look(shown.labels, image, shown.real, False, None, shown.numbers)
        loss = discriminator.losses(again, no_features)[0]["gan"]
        optimizer.zero_grad()
        loss.backward(inputs=[image])
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.8 * seen[0]


def recipe(**discriminator):
    config = {"name": "segmentation", "width": 2, **discriminator}
    return Recipe.from_dict(
        {
            "data": {"size": [32, 48], "options": {"count": 4, "val_count": 2}},
            "generator": {"width": 2},
            "discriminator": config,
            "losses": {"perceptual": 0, "feature_matching": 0},
            "training": {"accelerator": "cpu"},
        }
    )


def test_a_training_is_refused_a_size_that_cannot_be_halved_before_it_begins(tmp_path):
    with pytest.raises(CladeError, match=r"32x48: both must be multiples of 64"):
        stepper(recipe(), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": 3}, "discriminator.scales is 3, but 'segmentation' has no such option"),
        ({"options": {"num_classes": 3}}, "options holds 'num_classes', which has a key of its own, or comes from"),
        ({"options": {"deep": 3}}, "discriminator.options does not fit 'segmentation': .*'deep'"),
    ],
)
def test_keys_that_it_does_not_have_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        build_discriminator(recipe(**settings).discriminator, LabelSpace(names=("a", "b")), False)


def test_classes_come_from_the_data_and_the_unknown_one_is_none_of_them():
    config = recipe(options={"depth": 2, "label_mix": 5}).discriminator
    for unknown in (None, 255):
        built = build_discriminator(config, LabelSpace(names=("a", "b", "c"), unknown=unknown), True)
        assert isinstance(built, SegmentationDiscriminator)
        assert built(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)
        assert built.draws == 3 + (unknown is not None)
        assert built.label_mix == 5
