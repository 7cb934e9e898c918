"""One training step against an independent recomputation, and the parts around it."""

import copy
import math

import pytest
import torch
from torch import nn

from clade.data import Batch
from clade.labels import LabelMap, LabelPyramid
from clade.losses import ADVERSARIAL, VGGPerceptual
from clade.models import DISCRIMINATORS, create_generator
from clade.nn import BatchNorm
from clade.recipes import OptimizerConfig, Recipe
from clade.training.builders import build_optimizer, lr_factor
from clade.training.ema import Ema
from clade.training.fit import _Run, stepper
from clade.training.step import (
    Objective,
    TrainableDiscriminator,
    TrainableGenerator,
    latent_noise,
    noise_seed,
    training_step,
)

ROWS = 4
WEIGHTS = {"feature_matching": 10.0, "perceptual": 0.0, "l1": 2.0, "kl": 0.05}


def objective(adversarial="hinge", vgg=None, **weights):
    return Objective(adversarial=ADVERSARIAL[adversarial], vgg=vgg, **{**WEIGHTS, **weights})


def make_batch(count=2, size=32, seed=0):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(ROWS, (count, 8, 8), generator=random)
    ids = ids.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
    image = torch.rand(count, 3, size, size, generator=random) * 2 - 1
    return Batch(image, LabelMap(ids, instances=ids), tuple(str(k) for k in range(count)))


def networks(edges=False, dtype=torch.float32, name="clade", **options):
    torch.manual_seed(1)
    generator = create_generator(name, num_classes=ROWS, width=2, instance_edges=edges, **options)
    discriminator = DISCRIMINATORS["multiscale"](ROWS + edges + 3, width=8, layers=3)
    # Weights at their first size give features that no loss tells apart.
    with torch.no_grad():
        for p in (*generator.parameters(), *discriminator.parameters()):
            p.add_(torch.randn_like(p), alpha=0.05)
    return TrainableGenerator(generator.to(dtype)).train(), discriminator.to(dtype).train()


def pyramid(batch):
    return LabelPyramid(batch.label_map, ROWS)


def step(generator, discriminator, batch, weights, edges=False, **options):
    judge = TrainableDiscriminator(discriminator, weights, edges)
    return training_step(generator, judge, batch, pyramid(batch), weights, **options)


def one_hot(batch, edges):
    ids = batch.label_map.ids
    planes = [torch.stack([(ids == k).float() for k in range(ROWS)], 1)]
    if edges:  # by hand: any of the four neighbours has another number
        number = batch.label_map.instances.tolist()
        edge = torch.zeros(len(batch), 1, *ids.shape[1:])
        for n in range(len(batch)):
            for y in range(ids.shape[1]):
                for x in range(ids.shape[2]):
                    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                    inside = [(j, i) for j, i in around if 0 <= j < ids.shape[1] and 0 <= i < ids.shape[2]]
                    edge[n, 0, y, x] = any(number[n][j][i] != number[n][y][x] for j, i in inside)
        planes.append(edge)
    return torch.cat(planes, 1)


def features_of(discriminator, batch, fake, edges):
    """(of fake, of real), each seen alone: no layer of the discriminator mixes pictures."""
    discriminator = copy.deepcopy(discriminator)
    labels = one_hot(batch, edges)
    discriminator(torch.cat([torch.cat([labels, fake], 1), torch.cat([labels, batch.image], 1)]))  # moves its u and v
    discriminator.eval()
    return [discriminator(torch.cat([labels, image], 1)) for image in (fake, batch.image)]


@pytest.mark.processor
@pytest.mark.parametrize("edges", [False, True])
def test_losses_equal_their_definitions(edges):
    generator, discriminator = networks(edges)
    batch = make_batch()
    before = copy.deepcopy(discriminator)
    fake = copy.deepcopy(generator)(batch.label_map, batch.image, None)[0].detach()
    vgg = VGGPerceptual("random")
    losses = step(generator, discriminator, batch, objective(vgg=vgg, perceptual=3.0), edges)
    with torch.no_grad():
        of_fake, of_real = features_of(before, batch, fake, edges)
        gan = sum(-scale[-1].mean() for scale in of_fake) / 2
        matching = sum(
            (a - b).abs().mean()
            for fakes, reals in zip(of_fake, of_real, strict=True)
            for a, b in zip(fakes[:-1], reals[:-1], strict=True)
        )
        perceptual = sum(
            w * (a - b).abs().mean()
            for w, a, b in zip(
                (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), vgg.features(fake), vgg.features(batch.image), strict=True
            )
        )
    expected = {
        "gan": gan,
        "feature_matching": 10 * matching / 2,
        "perceptual": 3 * perceptual,
        "l1": 2 * (fake - batch.image).abs().mean(),
        "d_real": sum((1 - scale[-1]).clamp(min=0).mean() for scale in of_real) / 2,
        "d_fake": sum((1 + scale[-1]).clamp(min=0).mean() for scale in of_fake) / 2,
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
        assert not losses[name].requires_grad


@pytest.mark.processor
@pytest.mark.parametrize("name", ["multiscale", "fpse"])
@pytest.mark.parametrize("edges", [False, True])
def test_gradients_equal_those_of_two_separate_passes(name, edges):
    """As published: one batch of fake and real for the generator, and again for the discriminator."""
    latent = {"z_dim": 6, "size": (32, 32), "encoder": True, "encoder_width": 4}
    generator, discriminator = networks(edges, dtype=torch.float64, **latent)
    if name != "multiscale":
        discriminator = DISCRIMINATORS[name](ROWS + edges + 3, width=4).double().train()
    weights = objective(vgg=VGGPerceptual("random").double(), perceptual=3.0)
    batch = make_batch()
    batch = Batch(batch.image.double(), batch.label_map, batch.names)
    noise = torch.randn(2, 6, dtype=torch.float64)
    own_generator, own_discriminator = copy.deepcopy(generator), copy.deepcopy(discriminator)
    step(generator, discriminator, batch, weights, edges, noise=noise)

    labels = one_hot(batch, edges).double()
    state = copy.deepcopy(own_discriminator.state_dict())

    def judged(fake):
        own_discriminator.load_state_dict(state)  # one step of the power iteration from the same vectors
        both = own_discriminator(torch.cat([torch.cat([labels, fake], 1), torch.cat([labels, batch.image], 1)]))
        return [[f[:2] for f in scale] for scale in both], [[f[2:].detach() for f in scale] for scale in both], both

    fake, mu, logvar = own_generator(batch.label_map, batch.image, noise)
    of_fake, of_real, _ = judged(fake)
    scales = len(of_fake)
    loss = sum(-scale[-1].mean() for scale in of_fake) / scales
    for fakes, reals in zip(of_fake, of_real, strict=True):
        loss = loss + sum(10 * (a - b).abs().mean() for a, b in zip(fakes[:-1], reals[:-1], strict=True)) / scales
    loss = loss + 3 * weights.vgg(fake, batch.image) + 2 * (fake - batch.image).abs().mean()
    loss = loss + 0.05 * 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / 2
    loss.backward()
    own_discriminator.zero_grad()
    both = judged(fake.detach())[2]
    sum((1 + s[-1][:2]).clamp(min=0).mean() + (1 - s[-1][2:]).clamp(min=0).mean() for s in both).div(scales).backward()

    for ours, expected in ((generator, own_generator), (discriminator, own_discriminator)):
        for (key, a), b in zip(ours.named_parameters(), expected.parameters(), strict=True):
            # Losses are averaged in float32, whatever the type of the networks.
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-12 + 1e-6 * b.grad.abs().max().item()), key
    state = discriminator.state_dict()
    for key, value in own_discriminator.state_dict().items():
        assert torch.allclose(state[key], value), key


def test_a_term_of_weight_0_is_not_computed():
    generator, discriminator = networks()
    losses = step(generator, discriminator, make_batch(), objective(feature_matching=0.0, l1=0.0))
    assert losses.keys() == {"gan", "d_real", "d_fake"}


def test_the_adversarial_loss_alone_reaches_all_of_both_networks():
    generator, discriminator = networks()
    step(generator, discriminator, make_batch(), objective(feature_matching=0.0, l1=0.0))
    for module in (generator, discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_the_kl_term_needs_an_encoder():
    batch = make_batch()
    noise = torch.randn(2, 6)
    plain, discriminator = networks(z_dim=6, size=(32, 32))
    assert "kl" not in step(plain, discriminator, batch, objective(), noise=noise)
    styled, discriminator = networks(z_dim=6, size=(32, 32), encoder=True, encoder_width=2)
    mu, logvar = copy.deepcopy(styled).generator.encode(batch.image)
    fake = copy.deepcopy(styled)(batch.label_map, batch.image, noise)[0]
    losses = step(styled, discriminator, batch, objective(), noise=noise)
    expected = 0.05 * 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / 2
    assert losses["kl"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in styled.generator.encoder.parameters())
    z = mu + (0.5 * logvar).exp() * noise
    again = copy.deepcopy(networks(z_dim=6, size=(32, 32), encoder=True, encoder_width=2)[0]).generator
    assert torch.allclose(again(batch.label_map, z=z), fake, atol=1e-5)


@pytest.mark.parametrize("name", ["clade", "clade-icpe", "spade"])
def test_two_half_batches_accumulate_to_the_gradient_of_the_whole(name):
    """Exactly so without batch statistics. A picture's gradient must not depend on its neighbours."""
    generator, discriminator = networks(dtype=torch.float64, name=name, normalization="instance")
    discriminator.eval()  # spectral norm would move between the halves
    generator.eval()
    batch = make_batch(4, seed=3)
    batch = Batch(batch.image.double(), batch.label_map, batch.names)
    halves = [Batch(batch.image[k : k + 2], batch.label_map[k : k + 2], batch.names[k : k + 2]) for k in (0, 2)]
    modules = nn.ModuleList([generator, discriminator])

    def gradients(batches):
        modules.zero_grad()
        for part in batches:
            step(generator, discriminator, part, objective(), parts=len(batches))
        return [p.grad.clone() for p in modules.parameters()]

    whole, parts = gradients([batch]), gradients(halves)
    for a, b in zip(whole, parts, strict=True):
        # Losses are averaged in float32, whatever the type of the networks.
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * a.abs().max().item())


@pytest.mark.parametrize(("rank_count", "world"), [(1, 4), (2, 2), (4, 1)])
def test_the_noise_of_the_ranks_is_the_noise_of_one_process(rank_count, world):
    whole = latent_noise(seed=noise_seed(3, 7), count=4, shape=(5,), rank=0, world_size=1)
    parts = [latent_noise(noise_seed(3, 7), rank_count, (5,), rank, world) for rank in range(world)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_noise_is_standard_normal_new_for_every_batch_and_seed_and_leaves_the_global_numbers_alone():
    before = torch.get_rng_state()
    noise = [latent_noise(noise_seed(seed, number), 64, (64,), 0, 1) for seed in range(3) for number in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    joined = torch.stack(noise)
    assert joined.mean().abs() < 0.03
    assert abs(joined.std() - 1) < 0.03
    correlations = torch.corrcoef(joined.flatten(1)) - torch.eye(len(noise))
    assert correlations.abs().max() < 0.1


def tiny_recipe(*overrides):
    plain = {
        "data": {"size": [32, 32], "options": {"count": 8, "val_count": 2}},
        "generator": {"name": "clade", "width": 2},
        "discriminator": {"width": 4, "layers": 2},
        "losses": {"perceptual": 0},
        "training": {"steps": 8, "batch_size": 2, "accelerator": "cpu", "precision": "fp32"},
    }
    return Recipe.from_dict(plain, overrides)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The training runs that ``stepper`` builds, to look inside."""
    made = []
    build = _Run.__init__

    def noted(self, *args, **kwargs):
        build(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(_Run, "__init__", noted)

    def start(*overrides):
        step = stepper(tiny_recipe(*overrides), tmp_path / "run")
        return made[-1], step

    return start


@pytest.mark.parametrize("parts", [1, 3])
def test_generator_statistics_move_once_per_batch(runs, parts):
    """The published discriminator step runs the generator again, and its statistics move twice."""
    run, step = runs("--training.accumulate", str(parts))
    norms = [module for module in run.generator.modules() if isinstance(module, BatchNorm)]
    assert norms
    for number in (1, 2):
        step()
        assert {int(norm.num_batches_tracked) for norm in norms} == {number * parts}


def test_a_step_trains_both_networks_on_one_look_at_the_generator_s_images(runs):
    run, step = runs()
    seen = []
    run.wrapped_d.register_forward_pre_hook(lambda module, inputs: seen.append([x.detach() for x in inputs[1:]]))
    before = copy.deepcopy(run.generator), copy.deepcopy(run.discriminator)
    step()
    ((fake, real),) = seen
    batch = next(run.feed.training(run.generator, 0, 1))
    assert torch.allclose(fake, TrainableGenerator(before[0]).train()(batch.label_map, batch.image, None)[0], atol=1e-6)
    assert torch.equal(real, batch.image)
    for old, new in zip(before, (run.generator, run.discriminator), strict=True):
        for (key, a), b in zip(old.named_parameters(), new.parameters(), strict=True):
            # At the first hinge step the gradient of the scores' bias is exactly -1 for real and +1 for fake.
            assert key.endswith("score.bias") or not torch.equal(a, b), key


def test_accumulated_losses_are_means_over_the_parts(runs, monkeypatch):
    _, step = runs("--training.accumulate", "3")
    values = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr("clade.training.fit.training_step", lambda *_, **__: {"gan": torch.tensor(next(values))})
    assert step() == {"gan": pytest.approx(3.0)}


def by_hand(averages, source, step, decay):
    d = min(decay, (1 + step) / (10 + step))
    return {
        key: source[key].clone()
        if not source[key].is_floating_point() or key.endswith(("._u", "._v"))
        else d * value.double() + (1 - d) * source[key].double()
        for key, value in averages.items()
    }


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_moving_average_equals_its_equation(decay):
    generator = create_generator("clade", num_classes=3, width=1)
    ema = Ema(generator, decay)
    expected = {k: v.clone() for k, v in generator.state_dict().items()}
    assert any(k.endswith("._u") for k in expected)
    assert any(k.endswith("num_batches_tracked") for k in expected)
    for step in (1, 2, 3, 50):
        with torch.no_grad():
            for value in generator.state_dict().values():
                value.copy_(torch.randn_like(value)) if value.is_floating_point() else value.add_(step)
        ema.update(generator, step)
        state = generator.state_dict()
        expected = by_hand(expected, state, step, decay)
        for key, value in ema.generator.state_dict().items():
            assert torch.allclose(value.double(), expected[key].double(), atol=1e-6), key
            if decay == 0 or not value.is_floating_point() or key.endswith(("._u", "._v")):
                assert torch.equal(value, state[key]), key


def test_the_moving_average_warms_up():
    generator = create_generator("clade", num_classes=3, width=1)
    ema = Ema(generator, 0.9999)
    weight = next(generator.parameters())
    with torch.no_grad():
        weight.fill_(0)
        next(ema.generator.parameters()).fill_(1)
    ema.update(generator, 1)
    assert next(ema.generator.parameters()).mean().item() == pytest.approx(2 / 11)


def test_the_moving_average_neither_trains_nor_shares_weights():
    generator = create_generator("clade", num_classes=3, width=1)
    ema = Ema(generator, 0.9)
    assert not ema.generator.training
    assert not any(p.requires_grad for p in ema.generator.parameters())
    own = {p.data_ptr() for p in generator.state_dict().values()}
    assert own.isdisjoint(p.data_ptr() for p in ema.generator.state_dict().values())


@pytest.mark.parametrize(
    ("step", "steps", "constant", "factor"),
    [
        (0, 100, 0.5, 1.0),
        (49, 100, 0.5, 1.0),
        (50, 100, 0.5, 1.0),
        (51, 100, 0.5, 0.98),
        (75, 100, 0.5, 0.5),
        (99, 100, 0.5, 0.02),
        (99, 100, 1.0, 1.0),
        (0, 100, 0.0, 1.0),
        (25, 100, 0.0, 0.75),
        (0, 1, 0.5, 1.0),
    ],
)
def test_the_step_size_is_constant_then_falls_linearly(step, steps, constant, factor):
    assert lr_factor(step, steps, constant) == pytest.approx(factor)


def test_both_optimizers_get_the_scheduled_step_sizes(runs):
    run, step = runs("--optimizer.constant", "0.5", "--optimizer.lr_generator", "0.1")
    for number in range(1, 9):
        step()
        factor = 1.0 if number <= 5 else (8 - (number - 1)) / 4
        assert run.optimizer_g.param_groups[0]["lr"] == pytest.approx(0.1 * factor)
        assert run.optimizer_d.param_groups[0]["lr"] == pytest.approx(4e-4 * factor)


def test_the_optimizer_is_adam_with_the_recipe_s_moments():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    module = nn.ParameterList([weight])
    optimizer = build_optimizer(OptimizerConfig(beta1=0.0, beta2=0.9), module, 0.1)
    value, second = weight.detach().clone(), torch.zeros(2)
    for number in range(1, 4):
        gradient = torch.tensor([0.5, -3.0]) * number
        weight.grad = gradient.clone()
        optimizer.step()
        second = 0.9 * second + 0.1 * gradient**2
        value -= 0.1 * gradient / ((second / (1 - 0.9**number)).sqrt() + 1e-8)
        assert torch.allclose(weight.detach(), value, atol=1e-6)
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.1)


def test_without_momentum_the_optimizer_equals_torch_s_adam_and_keeps_no_first_moment():
    torch.manual_seed(0)
    own, other = nn.Linear(7, 5), nn.Linear(7, 5)
    other.load_state_dict(own.state_dict())
    optimizers = (
        build_optimizer(OptimizerConfig(beta1=0.0), own, 1e-2),
        torch.optim.Adam(other.parameters(), lr=1e-2, betas=(0.0, 0.9), fused=True),
    )
    for number in range(5):
        for module, optimizer in zip((own, other), optimizers, strict=True):
            module(torch.full((2, 7), number - 1.5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        if number == 2:  # as after a resume, also from a state that holds the first moments
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
        for a, b in zip(own.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    for moments in optimizers[0].state_dict()["state"].values():
        assert moments.keys() == {"step", "exp_avg_sq"}


def test_with_momentum_the_optimizer_keeps_it():
    module = nn.Linear(2, 2)
    optimizer = build_optimizer(OptimizerConfig(beta1=0.5), module, 0.1)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert all("exp_avg" in moments for moments in optimizer.state_dict()["state"].values())
