"""The reference of the speed benchmarks computes what our networks compute, so that the comparison is a fair one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import clade
from benchmarks.reference import KINDS, ReferenceDiscriminator, ReferenceGenerator, ReferenceTraining, one_hot
from benchmarks.reference.material import drawn_maps, lively
from clade import LabelMap, LabelPyramid
from clade.data import Batch
from clade.losses import ADVERSARIAL
from clade.models import MultiscaleDiscriminator, discriminate
from clade.training.step import Objective, TrainableDiscriminator, TrainableGenerator, training_step

ROWS = 9
SIZE = (64, 96)
OBJECTIVE = Objective(ADVERSARIAL["hinge"], feature_matching=10, perceptual=0, l1=0, kl=0, vgg=None)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.cat([label_map.ids for label_map in drawn_maps(2, ROWS, SIZE)])


@pytest.fixture
def real() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def our_generator(kind: str) -> clade.Generator:
    torch.manual_seed(0)
    return lively(clade.create_generator(kind, num_classes=ROWS - 1, unknown_class=True, width=4), size=(64, 64))


def reference(kind: str) -> ReferenceGenerator:
    """With weights and statistics that every part of the network shows."""
    network = ReferenceGenerator(kind, ROWS, width=4)
    network.load_state_dict(clade.export_official(our_generator(kind)))
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_draws_what_our_generator_draws(kind, ids):
    network = reference(kind)
    ours = clade.import_official(kind, network.state_dict(), unknown_class=True)
    assert isinstance(ours, clade.Generator)
    label_map = LabelMap(ids, positions=clade.positions(ids).double())
    with torch.no_grad():  # in float64, where rounding cannot hide a difference
        image = network.double()(one_hot(ids, ROWS).double(), label_map.positions)
        torch.testing.assert_close(ours.double()(label_map), image, atol=1e-10, rtol=0)
    assert image.std() > 0.2  # a picture, on which a fault would show


def test_every_part_of_the_reference_is_published_under_its_name():
    expected = clade.export_official(our_generator("clade"))
    assert expected.keys() == ReferenceGenerator("clade", ROWS, width=4).state_dict().keys()


def test_the_discriminator_gives_the_features_of_ours(ids, real):
    network = ReferenceDiscriminator(ROWS + 3, width=4)
    both = torch.cat([one_hot(ids, ROWS), real], dim=1)
    for _ in range(15):  # the power iteration starts from random vectors
        network(both)
    network.eval()
    with torch.no_grad():
        expected = network(both)
        features = clade.import_official("discriminator", network.state_dict())(both)
    assert [len(scale) for scale in features] == [5, 5]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def training() -> ReferenceTraining:
    torch.manual_seed(0)
    training = ReferenceTraining("clade", ROWS, width=4, discriminator_width=4)
    training.generator.load_state_dict(clade.export_official(our_generator("clade")))
    for _ in range(15):
        training.discriminator(torch.randn(1, ROWS + 3, *SIZE))
    return training


SAME = {
    "conv_img.weight": "to_image.weight",
    "up_3.conv_0.weight_orig": "blocks.6.conv1.parametrizations.weight.original",
    "up_2.norm_s.class_specified_affine.weight": "blocks.5.norm_shortcut.gamma",
    "head_0.norm_0.class_specified_affine.bias": "blocks.0.norm1.beta",
}
"""Some parameters from all parts of the generator: their names in the reference and in ours."""


def test_the_training_step_has_the_losses_and_gradients_of_ours(training, ids, real):
    generator = clade.import_official("clade", training.generator.state_dict(), unknown_class=True).train()
    discriminator = clade.import_official("discriminator", training.discriminator.state_dict()).train()
    assert isinstance(generator, clade.Generator)
    assert isinstance(discriminator, MultiscaleDiscriminator)
    batch = Batch(real, LabelMap(ids), ("a", "b"))
    labels = LabelPyramid(batch.label_map, ROWS)

    theirs = training.generator_step(ids, real)
    judge = TrainableDiscriminator(discriminator, OBJECTIVE, False)
    ours = training_step(TrainableGenerator(generator), judge, batch, labels, OBJECTIVE)
    for name, loss in theirs.items():
        torch.testing.assert_close(ours[name], loss.detach(), atol=1e-5, rtol=1e-4)
    for name, own in SAME.items():
        expected, gradient = training.generator.get_parameter(name).grad, generator.get_parameter(own).grad
        torch.testing.assert_close(gradient, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)

    # The published step draws anew for the discriminator, with the updated generator in training mode.
    torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.0, 0.9)).step()
    theirs = training.discriminator_step(ids, real)
    with torch.no_grad():
        of_fake, of_real = discriminate(discriminator, labels, generator(batch.label_map), real, False)
        expected = OBJECTIVE.adversarial.discriminator([s[-1] for s in of_real], [s[-1] for s in of_fake])
    for loss, own in zip((theirs["d_real"], theirs["d_fake"]), expected, strict=True):
        torch.testing.assert_close(loss.detach(), own, atol=1e-4, rtol=1e-3)


def test_a_training_step_moves_both_networks_and_the_statistics_twice(training, ids, real):
    before = [
        {name: value.clone() for name, value in network.state_dict().items()}
        for network in (training.generator, training.discriminator)
    ]
    losses = training.step(ids, real)
    assert losses.keys() == {"gan", "feature_matching", "d_fake", "d_real"}
    assert all(loss.isfinite() and not loss.requires_grad for loss in losses.values())
    for network, old in zip((training.generator, training.discriminator), before, strict=True):
        still = [name for name, value in network.named_parameters() if torch.equal(value, old[name])]
        # A bias before a normalization has no gradient worth the name, and classes that are not drawn have none.
        assert not [name for name in still if "weight_orig" in name]
    norms = [layer for layer in training.generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    counted = {key: value for key, value in before[0].items() if key.endswith("num_batches_tracked")}
    assert norms
    after = training.generator.state_dict()
    assert all(int(after[key]) == int(value) + 2 for key, value in counted.items())
