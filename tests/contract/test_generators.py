"""What every registered generator promises. A newly registered one is covered without an edit here."""

from __future__ import annotations

import copy
import functools
import json
import math
import re

import pytest
import torch

import clade
from clade import CheckpointError, CladeError, LabelError, LabelMap, LabelSpace, create_generator, list_generators
from clade.models import GENERATORS, generator_options
from clade.nn import reparameterize

CLASSES = 3
TINY = {"width": 2, "hidden": 4, "encoder_width": 1, "style_dim": 4}  # where a generator has such an option
SIZES = [(33, 47), (5, 7), (1, 1), (64, 32)]


def options_of(name):
    return generator_options(name)


def make(name, num_classes=CLASSES, seed=0, **options):
    torch.manual_seed(seed)
    tiny = {key: value for key, value in TINY.items() if key in options_of(name)}
    return create_generator(name, num_classes=num_classes, **{**tiny, **options})


def scattered(name, **options):
    """A network with every parameter moved away from its start, where zeros hide inputs."""
    generator = copy.deepcopy(scattered_once(name, **options))
    torch.manual_seed(0)
    return generator


@functools.cache
def scattered_once(name, **options):
    generator, source = make(name, **options), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.3)
        # Statistics and spectral norm that fit the weights: else every image is all -1 and 1, or overflows.
        for _ in range(4):
            draw(generator.train(), drawn(2, 64, 64))
    return generator


def drawn(n, height, width, classes=CLASSES, seed=0):
    """Blocks rather than noise, so that objects have an inside."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (n, math.ceil(height / 4), math.ceil(width / 4)), generator=source)
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].contiguous()


def without_noise(generator):
    """Without the noise that SEAN adds to its features, of which two batches never draw the same."""
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            if key.endswith("noise_var"):
                parameter.zero_()
    return generator


def draw(generator, label_map, seed=0):
    """An image that depends on the seed and on nothing drawn before: one latent for the whole batch."""
    size = label_map.size if isinstance(label_map, LabelMap) else label_map.shape[-2:]
    shape = generator.latent_shape(size)
    torch.manual_seed(seed)
    if shape is None:
        return generator(label_map)
    z = generator.prior(torch.randn(1, *shape))
    return generator(label_map, z=z.to(next(generator.parameters()).dtype))


def having(*options):
    return [name for name in list_generators() if all(option in options_of(name) for option in options)]


every = pytest.mark.parametrize("name", list_generators())
latent = pytest.mark.parametrize("name", having("z_dim"))
with_encoder = pytest.mark.parametrize("name", having("z_dim", "encoder"))


@every
@pytest.mark.parametrize("size", SIZES)
def test_the_image_has_the_size_of_the_label_map_and_lies_in_range(name, size):
    generator = scattered(name).eval()
    with torch.no_grad():
        image = generator(drawn(2, *size))
    assert image.shape == (2, 3, *size)
    assert image.dtype == torch.float32
    assert image.isfinite().all()
    assert image.abs().max() <= 1


@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("name", having("normalization"))
def test_either_normalization_draws_a_map_smaller_than_the_coarsest_scale(name, normalization):
    generator = make(name, normalization=normalization).eval()
    assert generator(drawn(1, 5, 7)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "upsampling"), [(n, u) for n in having("upsampling") for u in GENERATORS[n].upsamplings]
)
def test_every_upsampling_keeps_the_size(name, upsampling):
    generator = make(name, upsampling=upsampling).eval()
    with torch.no_grad():
        assert generator(drawn(1, 70, 130)).shape == (1, 3, 70, 130)


@every
def test_a_map_that_does_not_fit_is_drawn_as_if_its_border_went_on(name):
    generator = scattered(name).eval()
    odd = LabelMap(drawn(1, 33, 47), drawn(1, 33, 47, seed=1), clade.positions(drawn(1, 33, 47)))
    with torch.no_grad():
        torch.testing.assert_close(
            draw(generator, odd), draw(generator, odd.padded(generator.multiple))[:, :, :33, :47]
        )


@every
def test_training_gives_every_parameter_a_finite_gradient(name):
    generator = make(name).train()
    ids, z = drawn(2, 33, 47), None
    if generator.encoder_is_part:
        z = generator.training_latent(LabelMap(ids), torch.rand(2, 3, 33, 47) * 2 - 1, None)[0]
    image = generator(ids, z=z)
    (image * torch.randn(image.shape)).sum().backward()
    for key, parameter in generator.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@every
def test_ids_of_every_integer_type_give_the_same_image(name):
    generator = scattered(name).eval()
    ids = drawn(1, 33, 47)
    with torch.no_grad():
        expected = draw(generator, ids)
        for kind in (torch.uint8, torch.int16, torch.int32, torch.int64):
            assert torch.equal(draw(generator, LabelMap(ids.to(kind))), expected)


@every
def test_eval_mode_is_deterministic_and_changes_nothing(name):
    generator = scattered(name).eval()
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    ids = drawn(1, 33, 47)
    with torch.no_grad():
        assert torch.equal(draw(generator, ids), draw(generator, ids))
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key]), key


@every
def test_a_batch_is_its_pictures_one_by_one_in_eval_mode(name):
    generator = without_noise(scattered(name)).double().eval()  # instance norm of few pixels magnifies rounding
    ids = drawn(2, 33, 47)
    with torch.no_grad():
        both = draw(generator, ids)
        for k in range(2):
            torch.testing.assert_close(draw(generator, ids[k : k + 1])[0], both[k], atol=1e-5, rtol=0)


@every
def test_the_image_depends_on_the_labels(name):
    generator = scattered(name).eval()
    with torch.no_grad():
        assert not torch.allclose(draw(generator, drawn(1, 32, 32)), draw(generator, drawn(1, 32, 32, seed=1)))


@every
def test_float32_is_near_float64(name):
    generator = make(name).eval()
    with torch.no_grad():
        single = draw(generator, drawn(1, 33, 47))
        double = draw(generator.double(), drawn(1, 33, 47))
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)


@every
def test_the_unknown_class_is_one_more_id(name):
    unknown = torch.full((1, 32, 32), CLASSES)
    with pytest.raises(LabelError, match=f"1024 pixels have class {CLASSES}"):
        make(name).eval()(unknown)
    generator = make(name, unknown_class=True).eval()
    assert generator.num_rows == CLASSES + 1
    with torch.no_grad():
        assert generator(unknown).isfinite().all()
    with pytest.raises(LabelError, match=f"class {CLASSES + 1}"):
        generator(unknown + 1)


@every
def test_instances_matter_exactly_where_they_are_used(name):
    for edges in (False, True) if "instance_edges" in options_of(name) else (False,):
        generator = scattered(name, **({"instance_edges": True} if edges else {})).eval()
        ids = drawn(1, 32, 32)
        with torch.no_grad():
            one, other = (draw(generator, LabelMap(ids, drawn(1, 32, 32, seed=seed))) for seed in (1, 2))
        assert torch.equal(one, other) is not generator.uses_instances
        assert generator.uses_instances or not edges


@every
def test_positions_matter_exactly_where_they_are_used(name):
    generator = scattered(name).eval()
    ids = drawn(1, 32, 32)
    with torch.no_grad():
        plain = draw(generator, ids)
        computed = draw(generator, LabelMap(ids, positions=clade.positions(ids)))
        mirrored = draw(generator, LabelMap(ids, positions=-clade.positions(ids)))
    assert torch.equal(plain, computed)
    assert torch.equal(plain, mirrored) is not generator.uses_positions


@every
def test_a_checkpoint_gives_back_the_very_same_network(name, tmp_path):
    space = LabelSpace(names=("sky", "tree", "road"), unknown=255, remap={9: 0})
    generator = scattered(name, unknown_class=True)
    generator(drawn(2, 64, 64)).sum().backward()  # running statistics that are not their start
    recipe = {"data": {"name": "scenes", "size": [32, 32]}, "train": {"epochs": 3}}
    clade.save(generator, tmp_path / "g.safetensors", label_space=space, recipe=recipe, info={"step": 7})
    checkpoint = clade.read_checkpoint(tmp_path / "g.safetensors")
    assert checkpoint.label_space == space
    assert checkpoint.recipe == recipe
    assert checkpoint.info["step"] == 7
    assert not checkpoint.generator.training
    assert (checkpoint.generator.name, checkpoint.generator.options) == (name, generator.options)
    own = generator.state_dict()
    assert checkpoint.generator.state_dict().keys() == own.keys()
    for key, value in checkpoint.generator.state_dict().items():
        assert torch.equal(value, own[key]), key
    with torch.no_grad():
        assert torch.equal(draw(checkpoint.generator, drawn(1, 33, 47)), draw(generator.eval(), drawn(1, 33, 47)))


@every
def test_the_options_are_plain_values_that_rebuild_the_network(name):
    generator = make(name, unknown_class=True)
    options = json.loads(json.dumps(generator.options))
    again = create_generator(generator.name, **options)
    shapes = {key: value.shape for key, value in generator.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


@every
def test_an_unknown_option_is_refused_with_the_nearest_known_one(name):
    known = next(option for option in options_of(name) if option not in ("num_classes", "self"))
    with pytest.raises(CladeError, match=f"'{name}' has no option '{known}x'.*Did you mean '{known}'"):
        make(name, **{f"{known}x": 1})


@every
def test_no_classes_are_refused(name):
    with pytest.raises(CladeError, match="num_classes is 0"):
        make(name, num_classes=0)


@every
def test_what_is_no_label_map_is_refused(name):
    generator = make(name).eval()
    with pytest.raises(LabelError, match="arg-max"):
        generator(torch.zeros(1, CLASSES, 32, 32))
    with pytest.raises(LabelError, match="have class -1"):
        generator(torch.full((1, 32, 32), -1))


@every
def test_a_latent_vector_or_a_style_is_refused_where_none_is_taken(name):
    generator = make(name, **({"z_dim": None} if "z_dim" in options_of(name) else {})).eval()
    if generator.latent_shape((32, 32)) is not None:
        pytest.skip("always takes a latent")
    with pytest.raises(CladeError, match=r"z was given.*no latent input"):
        generator(drawn(1, 32, 32), z=torch.zeros(1, 4))
    with pytest.raises(CladeError, match=r"A style was given.*no latent input"):
        generator(drawn(1, 32, 32), style=torch.zeros(1, 3, 32, 32))


def test_an_unknown_generator_is_refused_with_the_nearest_known_one():
    with pytest.raises(CladeError, match=r"no generator called 'clade-ipce'.*Did you mean 'clade-icpe'"):
        create_generator("clade-ipce", num_classes=3)


@pytest.mark.parametrize("name", having("upsampling"))
def test_an_unknown_upsampling_is_refused_with_the_nearest_known_one(name):
    with pytest.raises(CladeError, match=r"no upsampling 'mor'.*Did you mean 'more'"):
        make(name, upsampling="mor")


@pytest.mark.parametrize("name", having("upsampling"))
def test_the_upsamplings_are_those_that_are_told(name):
    for upsampling in ("normal", "more", "most"):
        if upsampling in GENERATORS[name].upsamplings:
            assert make(name, upsampling=upsampling).multiple == {"normal": 32, "more": 64, "most": 128}[upsampling]
        else:
            with pytest.raises(CladeError, match=f"no upsampling '{upsampling}'"):
                make(name, upsampling=upsampling)


@pytest.mark.parametrize(("width", "upsampling"), [(0, "normal"), (-1, "more"), (3, "most")])
@pytest.mark.parametrize("name", having("upsampling", "width"))
def test_an_impossible_width_is_refused(name, width, upsampling):
    if upsampling not in GENERATORS[name].upsamplings:
        pytest.skip(f"knows no upsampling '{upsampling}'")
    with pytest.raises(CladeError, match=f"width is {width}"):
        make(name, width=width, upsampling=upsampling)


# --- Latent input -----------------------------------------------------------------------------------------------------


@latent
def test_the_latent_vector_decides_the_image(name):
    generator = scattered(name, z_dim=4, size=(64, 64)).eval()
    assert generator.z_dim == 4
    ids = drawn(2, 64, 64)
    z = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(generator(ids, z=z), generator(ids, z=z))
        assert not torch.allclose(generator(ids, z=z), generator(ids, z=-z))


@latent
def test_without_a_latent_vector_one_is_drawn_by_torchs_random_numbers(name):
    generator = scattered(name, z_dim=4, size=(64, 64)).eval()
    images = []
    with torch.no_grad():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            images.append(generator(drawn(2, 64, 64)))
        torch.manual_seed(1)
        prior = generator(drawn(2, 64, 64), z=torch.randn(2, 4))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], prior)
    assert not torch.allclose(images[0], images[2])


@latent
def test_one_latent_vector_serves_a_whole_batch(name):
    generator = scattered(name, z_dim=4, size=(64, 64)).eval()
    z = torch.randn(1, 4)
    with torch.no_grad():
        assert torch.equal(generator(drawn(2, 64, 64), z=z), generator(drawn(2, 64, 64), z=z.repeat(2, 1)))


@latent
def test_a_latent_vector_of_another_shape_is_refused(name):
    generator = make(name, z_dim=4, size=(64, 64)).eval()
    for shape in ((4,), (2, 5), (3, 4), (2, 4, 1)):
        needed = re.escape(f"z has shape {shape}")
        with pytest.raises(CladeError, match=rf"{needed}.* needed is \(2, 4\)"):
            generator(drawn(2, 64, 64), z=torch.zeros(shape))


@latent
@pytest.mark.parametrize("size", SIZES)
def test_a_latent_generator_draws_other_sizes_than_it_was_built_for(name, size):
    generator = make(name, z_dim=4, size=(64, 96)).eval()
    with torch.no_grad():
        image = generator(drawn(1, *size), z=torch.randn(1, 4))
    assert image.shape == (1, 3, *size)
    assert image.isfinite().all()


@latent
def test_a_style_photo_needs_an_encoder(name):
    with pytest.raises(CladeError, match="no style encoder"):
        make(name, z_dim=4, size=(64, 64)).eval()(drawn(1, 64, 64), style=torch.zeros(1, 3, 8, 8))


@latent
def test_a_latent_vector_and_a_style_photo_together_are_refused(name):
    options = {"encoder": True} if "encoder" in options_of(name) else {}
    generator = make(name, z_dim=4, size=(64, 64), **options).eval()
    with pytest.raises(CladeError, match="z and a style were both given"):
        generator(drawn(1, 64, 64), z=torch.zeros(1, 4), style=torch.zeros(1, 3, 8, 8))


@with_encoder
def test_an_encoder_needs_a_latent_input(name):
    with pytest.raises(CladeError, match="encoder=True needs z_dim"):
        make(name, z_dim=None, encoder=True)


@with_encoder
def test_a_style_photo_gives_the_mean_of_its_style(name):
    generator = scattered(name, z_dim=4, size=(64, 64), encoder=True).double().eval()
    photos = torch.rand(2, 3, 40, 56, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        mu, logvar = generator.encode(photos)
        assert mu.shape == logvar.shape == (2, 4)
        assert torch.equal(generator(drawn(2, 64, 64), style=photos), generator(drawn(2, 64, 64), z=mu))
        one = generator(drawn(2, 64, 64), style=photos[:1])
    torch.testing.assert_close(one[0], generator(drawn(2, 64, 64), style=photos)[0], atol=1e-5, rtol=0)
    with pytest.raises(CladeError, match="one latent per label map"):
        generator(drawn(1, 64, 64), style=photos)


@with_encoder
def test_training_reaches_the_encoder(name):
    generator = make(name, z_dim=4, size=(64, 64), encoder=True).train()
    mu, logvar = generator.encode(torch.rand(2, 3, 64, 64))
    image = generator(drawn(2, 64, 64), z=reparameterize(mu, logvar, torch.randn(mu.shape)))
    (image * torch.randn(image.shape)).sum().backward()
    for key, parameter in generator.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key


@with_encoder
def test_a_checkpoint_keeps_the_encoder(name, tmp_path):
    generator = make(name, z_dim=4, size=(64, 64), encoder=True).eval()
    clade.save(generator, tmp_path / "g.safetensors")
    again = clade.read_checkpoint(tmp_path / "g.safetensors").generator
    photo = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        assert torch.equal(again(drawn(1, 64, 64), style=photo), generator(drawn(1, 64, 64), style=photo))


def test_a_generator_that_was_not_made_by_name_is_not_saved(tmp_path):
    generator = GENERATORS["clade"](num_classes=3, width=1)
    with pytest.raises(CheckpointError, match=r"not made by clade\.create_generator"):
        clade.save(generator, tmp_path / "g.safetensors")
    assert list(tmp_path.iterdir()) == []
