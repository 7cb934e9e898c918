"""Published weights: the published key names and shapes <-> our modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from clade.errors import CheckpointError
from clade.models import Generator
from clade.models.checkpoints import require_unfolded
from clade.models.published import cc_fpse, dagan, groupdnet, parts, pix2pixhd, sean, spade_shaped
from clade.models.published.naming import Family, State, published_name, to_ours, to_published
from clade.nn import NormLayer
from clade.registry import near_match

__all__ = ["FAMILIES", "export_official", "import_official"]

FAMILIES: dict[str, Family] = {
    **spade_shaped.FAMILIES,
    **pix2pixhd.FAMILIES,
    **dagan.FAMILIES,
    **sean.FAMILIES,
    **groupdnet.FAMILIES,
    **cc_fpse.FAMILIES,
    **parts.FAMILIES,
}


def import_official(name: str, state_dict: State, **options: Any) -> nn.Module:
    """Published weights -> a network of this library, in eval mode.

    Args:
        name: a generator's name (``clade.list_generators()``); ``encoder`` (returns mu and logvar of an image,
            GroupDNet's of an image and its label map); ``discriminator`` (takes labels, edge and image concatenated,
            returns a list of lists of features).
        state_dict: published key -> tensor, as ``torch.load(path, weights_only=True)`` gives it.
        options: the constructor's keywords. What the shapes tell (classes, edges, width, latent input, ...) need not be
            given; ``upsampling`` other than the default must be, and ``unknown_class=True`` or ``num_classes`` where
            the last class is the unknown one. Where the edge looks like one more class (SPADE, DAGAN, pix2pixHD,
            CC-FPSE), give ``instance_edges=True`` or ``num_classes``. For CLADE-ICPE see ``skip_class`` of the
            generator. A discriminator of three layers is taken for SEAN's, whose last stride is 2; say
            ``last_stride=1`` for SPADE's code with three. ``encoder`` may be the state dict of the published style
            encoder that belongs to the generator.

    Raises:
        CheckpointError: keys or shapes that do not fit, naming them and the options that would.
    """
    if name not in FAMILIES:
        hint = near_match(name, FAMILIES)
        raise CheckpointError(f"No published weights are known for '{name}'.{hint} Known: {', '.join(FAMILIES)}.")
    state = _state(state_dict)
    family = FAMILIES[name]
    encoder = _state(options.pop("encoder")) if isinstance(options.get("encoder"), Mapping) else None
    if encoder is not None:
        options |= {"encoder": True, **_encoder_options(encoder)}
    try:
        inferred = family.infer(name, state, options)
    except KeyError as missing:
        looks = _recognised(state)
        other = looks if looks and not family.recognise(state) else None
        found = f"It looks like one of '{other}'." if other else f"It holds {len(state)} keys{_examples(state)}."
        raise CheckpointError(
            f"This is no state dict of a published '{name}': the key {missing} is missing. {found}"
        ) from missing
    module = family.build(name, {**inferred, **options})
    renamed = to_ours(state, family, module)
    if encoder is not None:
        part = module.encoder
        assert isinstance(part, nn.Module)
        renamed |= {f"encoder.{key}": value for key, value in to_ours(encoder, FAMILIES["encoder"], part).items()}
    _fit(name, module, family, renamed, options, inferred, state)
    return module.eval()


def export_official(module: nn.Module) -> dict[str, Tensor]:
    """A network of this library -> a state dict with the published key names; the inverse of :func:`import_official`.

    Args:
        module: a generator made by name, its encoder, or a discriminator. A generator's own style encoder is left out,
            because published files keep it apart: export ``generator.encoder``.

    Raises:
        CheckpointError: no published network has this form.
    """
    require_unfolded(module)
    name = module.name if isinstance(module, Generator) else parts.name_of(module)
    if name not in FAMILIES:
        raise CheckpointError(
            f"{type(module).__name__} has no published form. Known: generators made by clade.create_generator, "
            "their encoders, and discriminators."
        )
    for layer in module.modules():
        if isinstance(layer, NormLayer) and not type(layer).__module__.startswith("clade.nn."):
            raise CheckpointError(f"Its layer {type(layer).__name__} is none of clade's, and has no published form.")
    state = to_published(module, FAMILIES[name])
    apart = isinstance(module, Generator) and not module.encoder_is_part
    return {key: value for key, value in state.items() if not (apart and key.startswith("encoder."))}


def _state(state_dict: Any) -> dict[str, Tensor]:
    if not isinstance(state_dict, Mapping):
        raise CheckpointError(
            f"state_dict is {type(state_dict).__name__}; needed is a mapping of keys to tensors, as "
            "torch.load(path, weights_only=True) gives it."
        )
    inside = [key for key, value in state_dict.items() if isinstance(value, Mapping)]
    if inside or not all(isinstance(key, str) for key in state_dict):
        hint = f" Give what is under '{inside[0]}'." if inside else ""
        raise CheckpointError(f"state_dict is no mapping of names to tensors.{hint}")
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def _encoder_options(encoder: State) -> dict[str, Any]:
    try:
        inferred = FAMILIES["encoder"].infer("encoder", encoder, {})
    except KeyError as missing:
        raise CheckpointError(f"The encoder's state dict is not a published one: {missing} is missing.") from missing
    return {f"encoder_{key}": inferred[key] for key in ("width", "layers") if key in inferred}


def _recognised(state: State) -> str | None:
    return next((name for name, family in FAMILIES.items() if family.recognise(state)), None)


def _examples(state: State) -> str:
    return f", such as {', '.join(list(state)[:3])}" if state else ""


def _fit(
    name: str,
    module: nn.Module,
    family: Family,
    renamed: dict[str, tuple[list[str], Tensor]],
    options: dict[str, Any],
    inferred: dict[str, Any],
    state: State,
) -> None:
    """Load what fits, or say all that does not."""
    own = module.state_dict()
    unexpected = [key for ours, (keys, _) in renamed.items() if ours not in own for key in keys]
    absent = [key for key in own if key not in renamed and not key.endswith(family.left_out or "\0")]
    missing = [published_name(key, module, family) for key in absent]
    shapes = [
        f"{keys[0]} is {tuple(value.shape)}, expected {tuple(own[ours].shape)}"
        for ours, (keys, value) in renamed.items()
        if ours in own and own[ours].shape != value.shape
    ]
    problems = [
        f"{len(found)} {what}: {'; '.join(found[:3])}{'; ...' if len(found) > 3 else ''}"
        for what, found in (("keys without a place", unexpected), ("missing keys", missing), ("other shapes", shapes))
        if found
    ]
    if problems:
        built = getattr(module, "options", None) or {**inferred, **options}
        raise CheckpointError(
            f"The state dict does not fit '{name}' built with {built}. {'. '.join(problems)}. "
            f"{_advice(name, family, options, state)}"
        )
    values = {ours: value.to(own[ours].dtype) for ours, (_, value) in renamed.items()}
    module.load_state_dict({**{key: own[key] for key in own if key not in values}, **values})


def _advice(name: str, family: Family, options: dict[str, Any], state: State) -> str:
    """Which options, or which name, the state dict speaks for."""
    looks = _recognised(state)
    if looks is not None and not family.recognise(state):
        return f"It looks like one of '{looks}': import it by that name."
    read = family.infer(name, state, {})
    other = {key: read[key] for key in options if key in read and read[key] != options[key]}
    if other:
        told = ", ".join(f"{key}={value!r} (given: {options[key]!r})" for key, value in other.items())
        return f"The shapes say {told}. Leave options out to have them read from the shapes."
    return "Leave options out to have them read from the shapes, or choose the name that the weights were made for."
