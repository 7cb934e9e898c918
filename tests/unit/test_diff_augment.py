"""Differentiable augmentation against the published one, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clade.data import Batch
from clade.errors import RecipeError
from clade.labels import LabelMap, LabelPyramid
from clade.losses import ADVERSARIAL
from clade.models import DISCRIMINATORS, SegmentationDiscriminator
from clade.models.discriminators.diff_augment import DiffAugment, augmentation_numbers, parse_policy
from clade.models.discriminators.multiscale import MultiscaleDiscriminator, ScoringDiscriminator
from clade.training.step import Objective, TrainableDiscriminator, training_step

ROWS = 5
POLICIES = ["color", "translation", "cutout", "color,translation,cutout", "cutout,color"]


def numbers(count: int = 3, seed: int = 0) -> np.ndarray:
    return augmentation_numbers(seed, 0, count, 0, 1)


def changer(policy: str, u: np.ndarray) -> DiffAugment:
    return DiffAugment(parse_policy(policy), u)


def images(count: int = 3, size: tuple[int, int] = (24, 33), seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *size, generator=random, dtype=torch.float64) * 2 - 1


def maps(count: int = 3, size: tuple[int, int] = (24, 33)) -> LabelPyramid:
    random = torch.Generator().manual_seed(9)
    ids, instances = (torch.randint(ROWS, (count, *size), generator=random) for _ in range(2))
    return LabelPyramid(LabelMap(ids.to(torch.uint8), instances=instances), ROWS)


def drawn(u: float, low: int, high: int) -> int:
    """An integer of low .. high, both possible, from a uniform number."""
    return low + math.floor(u * (high - low + 1))


def slowly(policy: str, x: torch.Tensor, u: np.ndarray) -> torch.Tensor:
    """The published functions (DiffAugment_pytorch.py) in loops over pictures and pixels."""
    x = x.clone()
    height, width = x.shape[2:]
    for name in policy.split(","):
        for n, (brightness, saturation, contrast, down, right, top, left) in enumerate(u):
            old = x[n].clone()
            if name == "color":
                bright = old + brightness - 0.5
                grey = (bright[0] + bright[1] + bright[2]) / 3
                vivid = torch.stack([grey + (channel - grey) * saturation * 2 for channel in bright])
                level = sum(float(value) for value in vivid.flatten()) / vivid.numel()
                x[n] = level + (vivid - level) * (contrast + 0.5)
            elif name == "translation":
                a, b = drawn(down, -(height // 8), height // 8), drawn(right, -(width // 8), width // 8)
                for i in range(height):
                    for j in range(width):
                        inside = 0 <= i + a < height and 0 <= j + b < width
                        x[n, :, i, j] = old[:, i + a, j + b] if inside else 0
            else:
                sides = height // 2, width // 2
                y, z = drawn(top, 0, height - sides[0] % 2), drawn(left, 0, width - sides[1] % 2)
                for i in range(sides[0]):
                    for j in range(sides[1]):
                        row = min(max(i + y - sides[0] // 2, 0), height - 1)
                        column = min(max(j + z - sides[1] // 2, 0), width - 1)
                        x[n, :, row, column] = 0
    return x


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [(24, 33), (17, 16), (7, 9)])
def test_images_equal_the_published_functions(policy: str, size: tuple[int, int]):
    for seed in range(4):
        u, x = numbers(seed=seed), images(size=size)
        assert torch.allclose(changer(policy, u).images(x), slowly(policy, x, u), atol=1e-12)


@pytest.mark.parametrize("policy", ["translation", "cutout"])
@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_extremes_of_the_random_numbers_equal_the_published_functions(policy: str, u: float):
    for size in ((16, 16), (18, 22), (9, 8)):
        x = images(1, size)
        assert torch.equal(changer(policy, np.full((1, 7), u)).images(x), slowly(policy, x, np.full((1, 7), u)))


def test_labels_and_instances_move_with_the_image():
    u, labels = numbers(), maps()
    moved = changer("color,translation", u).labels(labels)
    ids, instances = labels.label_map.ids, labels.label_map.instances
    for n, (a, b) in enumerate((drawn(v[3], -3, 3), drawn(v[4], -4, 4)) for v in u):
        for i in range(24):
            for j in range(33):
                source = n, min(max(i + a, 0), 23), min(max(j + b, 0), 32)
                assert moved.label_map.ids[n, i, j] == ids[source]
                assert moved.label_map.instances[n, i, j] == instances[source]
    assert any(drawn(v[3], -3, 3) for v in u)
    assert moved.label_map.ids.dtype == ids.dtype


def test_an_image_of_the_labels_stays_an_image_of_the_labels():
    """Where the moved image holds a picture, it shows the class that the moved labels say."""
    labels = maps()
    x = (labels.label_map.ids.double() + 1)[:, None].expand(-1, 3, -1, -1)
    change = changer("translation", numbers())
    moved, ids = change.images(x)[:, 0], change.labels(labels).ids((24, 33))
    there = moved != 0
    assert 0.5 < there.double().mean() < 1
    assert torch.equal(moved[there], ids[there].double() + 1)


def test_labels_stay_the_same_object_without_a_translation_and_need_no_second_look_at_their_range():
    labels = maps()
    assert changer("color,cutout", numbers()).labels(labels) is labels
    label_map = LabelMap(labels.label_map.ids).check(ROWS).to("meta")  # whose numbers cannot be read
    assert changer("translation", numbers()).labels(LabelPyramid(label_map, ROWS)).size == (24, 33)


@pytest.mark.parametrize(
    "policy", ["translation", "cutout", "cutout,color", "color,translation,cutout", "cutout,translation"]
)
def test_what_an_image_shows_is_visible_and_its_zeros_are_not(policy: str):
    change = changer(policy, numbers())
    visible = change.visible(maps())
    assert visible is not None
    assert visible.shape == (3, 1, 24, 33)
    shown = slowly(",".join(name for name in policy.split(",") if name != "color"), images() + 2, numbers()) != 0
    assert torch.equal(visible, shown[:, :1])
    assert not visible.all()


def test_nothing_is_hidden_by_colours_alone():
    assert changer("color", numbers()).visible(maps()) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_flow_to_the_image(policy: str):
    x = images(2, (8, 10)).requires_grad_()
    assert torch.autograd.gradcheck(changer(policy, numbers(2)).images, (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_type_of_the_image_is_kept_and_its_precision_is_enough(dtype: torch.dtype):
    x = images().to(dtype)
    changed = changer("color,translation,cutout", numbers()).images(x)
    assert changed.dtype == dtype
    exact = slowly("color,translation,cutout", x.double(), numbers())
    assert (changed.double() - exact).abs().max() <= 2 * torch.finfo(dtype).eps * exact.abs().max()


class Seen(ScoringDiscriminator):
    """A discriminator that keeps what it is shown."""

    def forward(self, x: torch.Tensor) -> list[list[torch.Tensor]]:
        raise NotImplementedError

    def of_images(self, labels: LabelPyramid, shown: list[torch.Tensor], _: bool) -> list[list[list[torch.Tensor]]]:
        self.ids, self.shown = labels.ids(labels.size), shown
        return [[[image, image.mean(1, keepdim=True)]] for image in shown]


def test_fake_and_real_of_a_pair_are_changed_alike():
    objective = Objective(ADVERSARIAL["hinge"], feature_matching=10.0, perceptual=0.0, l1=0.0, kl=0.0, vgg=None)
    seen, x = Seen(), images()
    judge = TrainableDiscriminator(seen, objective, False)
    generators, _ = judge(maps(), x, x.clone(), augment=changer("color,translation,cutout", numbers()))
    fake, real = seen.shown
    assert torch.equal(fake, real)
    assert not torch.equal(fake, x)
    assert torch.equal(seen.ids.long(), changer("translation", numbers()).labels(maps()).ids((24, 33)))
    assert generators["feature_matching"] == 0


class Table(torch.nn.Module):
    """A generator of given images."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(x)

    def forward(self, *_: object) -> tuple[torch.Tensor, None, None]:
        return self.x.clone(), None, None


@pytest.mark.parametrize("name", ["multiscale", "fpse"])
def test_one_step_judges_changed_images_and_measures_distances_on_unchanged_ones(name: str):
    size = (64, 64)
    options = {"layers": 3} if name == "multiscale" else {}
    discriminator = DISCRIMINATORS[name](ROWS + 1 + 3, width=4, **options).double().eval()
    objective = Objective(ADVERSARIAL["hinge"], feature_matching=10.0, perceptual=0.0, l1=2.0, kl=0.0, vgg=None)
    judge, table = TrainableDiscriminator(discriminator, objective, True), Table(images(2, size))
    real = images(2, size, 1)
    labels, change = maps(2, size), changer("color,translation,cutout", numbers(2))
    batch = Batch(real, labels.label_map, ("a", "b"))
    losses = training_step(table, judge, batch, labels, objective, augment=change)
    assert losses["l1"].item() == pytest.approx(2 * (table.x - real).abs().mean().item(), rel=1e-6)

    x = table.x.detach().clone().requires_grad_()
    moved = change.labels(labels)
    generators, discriminators = judge(moved, change.images(x), change.images(real))
    (sum(generators.values()) + 2 * (x - real).abs().mean()).backward(inputs=[x])
    for key, value in {**generators, **discriminators}.items():
        assert losses[key].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7), key
    # Losses are averaged in float32, whatever the type of the networks.
    assert torch.allclose(table.x.grad, x.grad, rtol=1e-3, atol=1e-5 * x.grad.abs().max().item())
    assert table.x.grad.abs().sum() > 0


def test_numbers_of_the_ranks_are_those_of_one_process_and_follow_seed_and_batch_alone():
    whole = augmentation_numbers(3, 7, 4, 0, 1)
    assert np.array_equal(np.concatenate([augmentation_numbers(3, 7, 2, rank, 2) for rank in (0, 1)]), whole)
    others = [augmentation_numbers(seed, number, 4, 0, 1) for seed, number in ((3, 8), (4, 7), (7, 3))]
    assert all(not np.isclose(other, whole).any() for other in others)
    many = augmentation_numbers(0, 0, 4000, 0, 1)
    assert np.allclose(many.mean(0), 0.5, atol=0.02)
    assert 0 <= many.min() < many.max() < 1


def test_a_policy_is_read_in_its_order_and_refused_by_name():
    assert parse_policy("") == parse_policy(" ") == ()
    assert parse_policy("cutout, color") == ("cutout", "color")
    with pytest.raises(RecipeError, match=r"no 'colour'.*Did you mean 'color'.*Known: color, translation, cutout"):
        parse_policy("colour")
    with pytest.raises(RecipeError, match="'color' comes twice"):
        parse_policy("color,cutout,color")


def test_the_segmentation_discriminator_is_not_asked_about_what_is_hidden():
    """Its losses are those of changed images, and the same whatever the labels say where nothing is visible."""
    size = (32, 48)
    torch.manual_seed(0)
    discriminator = SegmentationDiscriminator(ROWS, width=4, depth=3, label_mix=0).double().eval()
    objective = Objective(ADVERSARIAL["hinge"], feature_matching=0.0, perceptual=0.0, l1=0.0, kl=0.0, vgg=None)
    judge = TrainableDiscriminator(discriminator, objective, False)
    labels, fake, real = maps(2, size), images(2, size), images(2, size, 1)
    change = changer("color,cutout", numbers(2))
    visible = change.visible(labels)
    assert visible is not None
    other = labels.label_map.ids.where(visible[:, 0], torch.zeros((), dtype=torch.uint8))
    assert not torch.equal(other, labels.label_map.ids)
    ours = judge(labels, fake, real, augment=change)
    elsewhere = judge(LabelPyramid(LabelMap(other), ROWS), fake, real, augment=change)
    unchanged = judge(labels, fake, real)
    for a, b, c in zip(ours, elsewhere, unchanged, strict=True):
        for key, value in a.items():
            assert value.item() == pytest.approx(b[key].item(), rel=1e-6), key
            assert value.item() != pytest.approx(c[key].item(), rel=1e-6), key


def test_what_is_hidden_is_made_out_only_for_a_discriminator_that_asks(monkeypatch):
    asked = []
    visible = DiffAugment.visible
    monkeypatch.setattr(DiffAugment, "visible", lambda self, labels: (asked.append(1), visible(self, labels))[1])
    size = (32, 48)
    objective = Objective(ADVERSARIAL["hinge"], feature_matching=1.0, perceptual=0.0, l1=0.0, kl=0.0, vgg=None)
    for network, times in (
        (MultiscaleDiscriminator(ROWS + 3, width=2, scales=1, layers=2), 0),
        (SegmentationDiscriminator(ROWS, width=2, depth=2, label_mix=0), 1),
    ):
        asked.clear()
        judge = TrainableDiscriminator(network.double(), objective, False)
        judge(maps(2, size), images(2, size), images(2, size, 1), augment=changer("cutout", numbers(2)))
        assert len(asked) == times
