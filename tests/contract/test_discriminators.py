"""What every registered discriminator, adversarial loss and dataset promises."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrize

from clade import CladeError, LabelMap, LabelPyramid
from clade.data import DATASETS, create_dataset
from clade.labels import instance_edges
from clade.losses import ADVERSARIAL
from clade.models import DISCRIMINATORS, discriminate
from clade.models.discriminators.multiscale import ScoringDiscriminator
from clade.training.step import Objective, TrainableDiscriminator, look_numbers

ROWS = 4
OBJECTIVE = Objective(ADVERSARIAL["hinge"], feature_matching=10.0, perceptual=0.0, l1=0.0, kl=0.0, vgg=None)
every = pytest.mark.parametrize("name", DISCRIMINATORS.names())
scoring = pytest.mark.parametrize(
    "name", [name for name in DISCRIMINATORS.names() if issubclass(DISCRIMINATORS[name], ScoringDiscriminator)]
)


def make(name, edges=False, seed=0):
    torch.manual_seed(seed)
    options = {"channels_in": ROWS + edges + 3, "num_classes": ROWS - 1, "unknown_class": True, "depth": 4, "width": 2}
    known = inspect.signature(DISCRIMINATORS[name]).parameters
    return DISCRIMINATORS[name](**{key: value for key, value in options.items() if key in known})


def judged(discriminator, n=1, edges=False, fake=None, numbers=None):
    """The losses of both sides of n pictures."""
    judge = TrainableDiscriminator(discriminator, OBJECTIVE, edges)
    numbers = look_numbers(0, 0, n, discriminator.draws, 0, 1) if numbers is None else numbers
    dtype = next(discriminator.parameters()).dtype
    fake = photos(n).to(dtype) if fake is None else fake
    return judge(labels(n), fake, photos(n, seed=2).to(dtype), numbers=numbers)


def labels(n=1, size=(32, 48)):
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(0, ROWS, (n, *size), generator=source)
    return LabelPyramid(LabelMap(ids, torch.randint(0, 3, (n, *size), generator=source)), ROWS)


def photos(n=1, size=(32, 48), seed=1):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@scoring
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (64, 64)])
def test_every_scale_gives_features_of_every_layer_and_scores_of_one_channel(name, size):
    features = make(name)(torch.cat([labels(2, size).one_hot(size), photos(2, size)], 1))
    assert isinstance(features, list)
    assert len(features[0]) > 1  # further scales may have scores alone
    for scale in features:
        assert all(len(f) == 2 and f.isfinite().all() for f in scale)
        assert scale[-1].shape[1] == 1


@scoring
def test_both_images_get_finite_gradients_and_so_does_every_parameter(name):
    discriminator = make(name).train()
    fake, real = photos().requires_grad_(), photos(seed=2).requires_grad_()
    of_fake, of_real = discriminate(discriminator, labels(), fake, real, instance_edges=False)
    sum((f * torch.randn(f.shape)).sum() for scale in [*of_fake, *of_real] for f in scale).backward()
    for tensor in (fake, real, *discriminator.parameters()):
        assert tensor.grad.isfinite().all()
    assert fake.grad.any()
    assert real.grad.any()


@scoring
@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_fake_and_real_are_each_seen_with_their_labels(name, edges, size):
    discriminator = make(name, edges).double().eval()
    pyramid, fake, real = labels(2, size), photos(2, size).double(), photos(2, size, seed=2).double()
    of_fake, of_real = discriminate(discriminator, pyramid, fake, real, instance_edges=edges)
    one_hot = F.one_hot(pyramid.label_map.ids, ROWS).movedim(-1, 1)
    border = instance_edges(pyramid.label_map.instances)[:, None]
    semantics = torch.cat([one_hot, border], 1) if edges else one_hot
    for features, image in ((of_fake, fake), (of_real, real)):
        alone = discriminator(torch.cat([semantics, image], 1))
        for scale, scale_alone in zip(features, alone, strict=True):
            for f, f_alone in zip(scale, scale_alone, strict=True):
                torch.testing.assert_close(f, f_alone, atol=1e-10, rtol=1e-8)


@scoring
def test_weights_get_the_gradient_of_labels_and_image_concatenated(name):
    discriminator = make(name, edges=True).double().eval()
    pyramid, fake, real = labels(2), photos(2).double(), photos(2, seed=2).double()
    one_hot = F.one_hot(pyramid.label_map.ids, ROWS).movedim(-1, 1).double()
    semantics = torch.cat([one_hot, instance_edges(pyramid.label_map.instances)[:, None]], 1)

    def gradients(of_fake, of_real):
        score = sum(f.square().mean() for scale in of_fake for f in scale)
        score = score - sum(f.sin().mean() for scale in of_real for f in scale)
        return torch.autograd.grad(score, list(discriminator.parameters()))

    ours = gradients(*discriminate(discriminator, pyramid, fake, real, instance_edges=True))
    expected = gradients(*(discriminator(torch.cat([semantics, image], 1)) for image in (fake, real)))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)


@scoring
def test_the_power_iteration_moves_once_for_fake_and_real(name):
    discriminator, other = make(name).train(), make(name).train()
    discriminate(discriminator, labels(), photos(), photos(seed=2), instance_edges=False)
    other(torch.cat([labels().one_hot((32, 48)), photos()], 1))
    vectors = {key: value for key, value in discriminator.state_dict().items() if key.endswith(("._u", "._v"))}
    assert vectors
    state = other.state_dict()
    for key, value in vectors.items():
        assert torch.equal(value, state[key]), key


@scoring
def test_the_order_of_the_batch_does_not_matter_in_eval_mode(name):
    discriminator = make(name).eval()
    with torch.no_grad():
        of_fake, of_real = discriminate(discriminator, labels(2), photos(2), photos(2, seed=2), False)
        swapped_real, swapped_fake = discriminate(discriminator, labels(2), photos(2, seed=2), photos(2), False)
    for ours, other in ((of_fake, swapped_fake), (of_real, swapped_real)):
        for scale, scale_other in zip(ours, other, strict=True):
            for f, f_other in zip(scale, scale_other, strict=True):
                torch.testing.assert_close(f, f_other, atol=1e-5, rtol=1e-4)


@scoring
def test_scores_depend_on_the_labels(name):
    discriminator = make(name).eval()
    image = photos()
    with torch.no_grad():
        here = discriminator(torch.cat([labels().one_hot((32, 48)), image], 1))[0][-1]
        there = discriminator(torch.cat([labels().one_hot((32, 48)).roll(1, 1), image], 1))[0][-1]
    assert not torch.allclose(here, there)


@scoring
def test_eval_mode_changes_nothing(name):
    discriminator = make(name).eval()
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    x = torch.cat([labels().one_hot((32, 48)), photos()], 1)
    with torch.no_grad():
        first, second = discriminator(x), discriminator(x)
    assert torch.equal(first[0][-1], second[0][-1])
    for key, value in discriminator.state_dict().items():
        assert torch.equal(value, before[key])


@every
@pytest.mark.parametrize("edges", [False, True])
def test_one_look_gives_the_weighted_losses_of_both_sides_in_float32(name, edges):
    for side in judged(make(name, edges).double(), 2, edges):
        assert side
        for value in side.values():
            assert value.shape == ()
            assert value.dtype == torch.float32
            assert value.isfinite()


@every
def test_both_sides_reach_what_they_train(name):
    """The generator's losses the generated images, the discriminator's every parameter; from one graph."""
    discriminator, fake = make(name).train(), photos().requires_grad_()
    generators, discriminators = judged(discriminator, fake=fake)
    sum(generators.values()).backward(inputs=[fake], retain_graph=True)
    sum(discriminators.values()).backward(inputs=list(discriminator.parameters()))
    for tensor in (fake, *discriminator.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.shape == tensor.shape
    assert fake.grad.any()
    assert sum(bool(p.grad.any()) for p in discriminator.parameters()) > 2


@every
def test_losses_move_the_power_iteration_once(name):
    once, judge = make(name).train(), make(name).train()
    with torch.no_grad():  # orthogonal weights have no largest direction
        for a, b in zip(once.parameters(), judge.parameters(), strict=True):
            a.copy_(b.add_(torch.randn_like(b), alpha=0.1))
    start = {key: value.clone() for key, value in judge.state_dict().items()}
    judged(judge)
    first = next(key for key in start if key.endswith("._u"))
    assert not torch.equal(judge.state_dict()[first], start[first])
    with torch.no_grad(), parametrize.cached():
        for layer in once.modules():
            if parametrize.is_parametrized(layer, "weight"):
                _ = layer.weight
    state = once.state_dict()
    for key, value in judge.state_dict().items():
        assert torch.equal(value, state[key]), key


@every
def test_losses_change_nothing_in_eval_mode(name):
    discriminator = make(name).eval()
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    with torch.no_grad():
        first, second = judged(discriminator), judged(discriminator)
    assert first == second
    for key, value in discriminator.state_dict().items():
        assert torch.equal(value, before[key])


@every
def test_losses_depend_on_the_labels(name):
    discriminator = make(name).double().eval()
    judge = TrainableDiscriminator(discriminator, OBJECTIVE, False)
    fake, real = photos().double(), photos(seed=2).double()
    numbers = look_numbers(0, 0, 1, discriminator.draws, 0, 1)
    ids = labels().label_map.ids
    here, there = (
        judge(LabelPyramid(LabelMap(x), ROWS), fake, real, numbers=numbers)[0]["gan"] for x in (ids, ids.fliplr())
    )
    assert here != there


@every
def test_a_discriminator_says_which_sizes_it_cannot_see(name):
    discriminator = make(name)
    discriminator.check_size((32, 48))
    if name == "segmentation":
        with pytest.raises(CladeError, match="33x48: both must be multiples of 16"):
            discriminator.check_size((33, 48))


def test_the_kth_scale_sees_the_input_halved_k_times():
    seen = []
    discriminator = DISCRIMINATORS["multiscale"](5, width=2, scales=3)
    for scale in discriminator.scales:
        scale.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[2:]))
    discriminator(torch.zeros(1, 5, 48, 64))
    assert [tuple(size) for size in seen] == [(48, 64), (24, 32), (12, 16)]


def test_a_constant_input_stays_constant_when_halved():
    """The border counts only real pixels."""
    seen = []
    discriminator = DISCRIMINATORS["multiscale"](1, width=2)
    discriminator.scales[1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    discriminator(torch.full((1, 1, 33, 40), 0.7))
    torch.testing.assert_close(seen[0], torch.full((1, 1, 17, 20), 0.7))


def test_an_unknown_discriminator_is_refused_with_the_nearest_known_one():
    with pytest.raises(CladeError, match=r"no discriminator called 'multi-scale'.*Did you mean 'multiscale'"):
        DISCRIMINATORS["multi-scale"]


@pytest.mark.parametrize("name", ADVERSARIAL.names())
def test_every_adversarial_loss_pulls_scores_apart_and_the_generator_pushes_back(name):
    loss = ADVERSARIAL[name]
    real, fake = (
        torch.full((2, 1, 3, 3), 0.5, requires_grad=True) for _ in range(2)
    )  # hinge and squares both act here
    sum(loss.discriminator([real], [fake])).backward()
    assert (real.grad < 0).all()  # a step against the gradient raises scores of real images
    assert (fake.grad > 0).all()
    fake.grad = None
    loss.generator([fake]).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("name", ADVERSARIAL.names())
def test_every_scale_counts_alike_in_an_adversarial_loss(name):
    loss = ADVERSARIAL[name]
    small, large = torch.full((1, 1, 2, 2), 0.3), torch.full((1, 1, 9, 9), -0.6)
    both = loss.generator([small, large])
    torch.testing.assert_close(both, (loss.generator([small]) + loss.generator([large])) / 2)


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_dataset_refuses_an_unknown_option(name):
    with pytest.raises(CladeError, match=f"Dataset '{name}' has no option 'frobnicate'"):
        create_dataset(name, frobnicate=1)


def test_the_built_in_dataset_hands_out_labels_of_its_space():
    dataset = create_dataset("scenes")
    sample = dataset.read(0)
    assert sample.image.dtype == np.uint8
    assert sample.image.shape == (*sample.size, 3)
    assert sample.ids.max() < dataset.label_space.num_rows
    assert sample.name == dataset.name(0)
