"""Time and peak memory of one picture, measured on this machine."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clade.complexity.counting import replica
from clade.complexity.result import Timing
from clade.data.scenes import SMALLEST, UNKNOWN, draw_scene
from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.losses import ADVERSARIAL, feature_matching, kl_divergence
from clade.models import Generator, MultiscaleDiscriminator, discriminate
from clade.nn import fold_spectral_norm
from clade.system.measure import alternate, processor, threads
from clade.system.processor import resolve_precision

Size = tuple[int, int]


def time_generators(
    generators: Mapping[str, Generator],
    size: Size = (256, 256),
    *,
    rounds: int = 5,
    threads_used: int = 1,
    device: str = "cpu",
    precision: str = "fp32",
) -> dict[str, Timing]:
    """Seconds per picture of several generators, taken in turn so that all meet the same noise.

    Each is the eager network in eval mode, with spectral norm folded into its weights, on one drawn scene; what it
    makes of the label map itself (positions, edges) is part of the time. A first run of each does not count.

    Args:
        rounds: runs of each that count.
        threads_used: of torch on the CPU.
        precision: ``fp32`` (with torch's defaults, which let a GPU's convolutions compute in TF32), ``bf16`` by
            autocast, or ``auto`` (:func:`clade.system.processor.resolve_precision`).

    Raises:
        CladeError: a generator without values (on the meta device), an unknown device or precision.
    """
    place, precision = checked_place(device, precision)
    if rounds < 1 or threads_used < 1:
        raise CladeError(f"rounds is {rounds} and threads {threads_used}; each must be at least 1.")
    calls = {name: drawing(generator, size, device, precision) for name, generator in generators.items()}
    with threads(threads_used):
        seconds = alternate(calls, rounds)
    return {name: Timing(tuple(times), threads_used, device_name(place), precision) for name, times in seconds.items()}


def drawing(
    generator: Generator, size: Size = (256, 256), device: torch.device | str = "cpu", precision: str = "fp32"
) -> Callable[[], None]:
    """A call that draws one picture and waits for it, as :func:`time_generators` measures it.

    The generator is not changed and may be let go: of its weights only those without spectral norm are shared.
    """
    place, precision = checked_place(str(device), precision)
    _require_values(generator)
    network = replica(generator, place).eval().requires_grad_(False)
    fold_spectral_norm(network)
    return partial(_draw, network, scene_labels(generator.num_rows, size).to(place), precision)


def inference_memory(
    generator: Generator, size: Size = (256, 256), *, device: str = "cpu", precision: str = "fp32"
) -> int:
    """Peak bytes of drawing one picture: weights and buffers, and the most that the forward holds at once beyond them.

    The network is that of :func:`time_generators`. The label map itself is not counted.
    """
    place, precision = checked_place(device, precision)
    draw = drawing(generator, size, device, precision)
    draw()  # what a library keeps for good after a first call is not this call's
    return tensor_bytes(generator) + peak_allocated(draw, place)


def training_memory(
    generator: Generator, size: Size = (256, 256), *, device: str = "cpu", precision: str = "fp32"
) -> int:
    """Peak bytes of one training step with batch 1: what is held all the time, and the most held at once beyond that.

    Held all the time: weights, buffers and both moments of Adam, of the generator and of the multi-scale discriminator
    (width 64, two scales). The step: the generator in training mode; the discriminator on its image and a photo; hinge
    loss, 10 x feature matching and, with a style encoder, 0.05 x KL; backward; Adam; the discriminator's own step on
    the same images. Gradients live from a backward to its Adam step. No perceptual loss, no averaged weights, which
    cost every generator the same. Measured in the second step, where Adam has its moments. That is the published order
    of things, for comparisons; ``clade train`` looks with the discriminator once per step, and needs less.

    Raises:
        CladeError: as :func:`time_generators`; or a picture so small that a channel has a single value, which BatchNorm
            refuses.
    """
    place, precision = checked_place(device, precision)
    _require_values(generator)
    if getattr(generator, "folded", False) or not any(p.requires_grad for p in generator.parameters()):
        raise CladeError(
            "This generator is made for drawing only (frozen, spectral norm folded away), as clade.load makes it, and "
            "cannot be trained. Measure clade.read_checkpoint(path).generator."
        )
    trained = copy.deepcopy(generator).to(place).train()
    discriminator = MultiscaleDiscriminator(generator.num_rows + generator.uses_instances + 3).to(place)
    optimizers = [
        torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4, betas=(0.0, 0.9))
        for network in (trained, discriminator)
    ]
    label_map = scene_labels(generator.num_rows, size).to(place)
    real = torch.zeros(1, 3, *size, device=place)

    def step() -> None:
        discriminator.requires_grad_(False)
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
            loss, fake = _generator_loss(trained, discriminator, label_map, real)
        _update(optimizers[0], loss)
        discriminator.requires_grad_(True)
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = _discriminator_loss(trained, discriminator, label_map, fake, real)
        _update(optimizers[1], loss)

    try:
        step()
    except ValueError as error:  # BatchNorm refuses a single value per channel
        raise CladeError(
            f"A training step with one picture of {size[0]}x{size[1]} cannot be made ({error}). Choose a larger size."
        ) from error
    moments = sum(_bytes(v) for o in optimizers for state in o.state.values() for v in state.values())
    return tensor_bytes(trained) + tensor_bytes(discriminator) + moments + peak_allocated(step, place)


def _generator_loss(
    generator: Generator, discriminator: MultiscaleDiscriminator, label_map: LabelMap, real: Tensor
) -> tuple[Tensor, Tensor]:
    """(loss, fake image without its graph)"""
    labels = LabelPyramid(label_map, generator.num_rows)
    shape = generator.latent_shape(label_map.size)
    noise = None if shape is None else torch.randn(1, *shape, device=real.device)
    z, mu, logvar = generator.training_latent(label_map, real, noise)
    fake = generator(label_map, z=z)
    of_fake, of_real = discriminate(discriminator, labels, fake, real, generator.uses_instances)
    adversarial = ADVERSARIAL["hinge"].generator([scale[-1] for scale in of_fake])
    loss = adversarial + 10 * feature_matching(of_fake, of_real)
    if mu is not None and logvar is not None:
        loss = loss + 0.05 * kl_divergence(mu, logvar)
    return loss, fake.detach()


def _discriminator_loss(
    generator: Generator, discriminator: MultiscaleDiscriminator, label_map: LabelMap, fake: Tensor, real: Tensor
) -> Tensor:
    labels = LabelPyramid(label_map, generator.num_rows)
    of_fake, of_real = discriminate(discriminator, labels, fake, real, generator.uses_instances)
    on_real, on_fake = ADVERSARIAL["hinge"].discriminator(
        [scale[-1] for scale in of_real], [scale[-1] for scale in of_fake]
    )
    return on_real + on_fake


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def peak_allocated(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """The most bytes of tensors that were held at once during ``call()`` beyond those held before.

    On CUDA by torch's own statistics, on the CPU from the allocations that its profiler records. Workspace that a
    library takes from the system by itself is not seen.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    memory.sort(key=lambda event: event["ts"])
    if not memory:
        return 0
    start = memory[0]["args"]["Total Allocated"] - memory[0]["args"]["Bytes"]
    return max(0, max(event["args"]["Total Allocated"] for event in memory) - start)


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(_bytes(t) for tensors in (module.parameters(), module.buffers()) for t in tensors)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def scene_labels(num_rows: int, size: Size) -> LabelMap:
    """A drawn street with instances whose 13 ids are spread over ``num_rows``."""
    height, width = size
    scene = draw_scene(2, seed=0, height=max(height, SMALLEST), width=max(width, SMALLEST))
    ids = np.where(scene.ids == UNKNOWN, 12, scene.ids).astype(np.int64) * num_rows // 13
    return LabelMap(ids[:height, :width], scene.instances[:height, :width])


def checked_place(device: str, precision: str) -> tuple[torch.device, str]:
    """The device to measure on, and ``fp32`` or ``bf16``.

    Raises:
        CladeError: an unknown device or precision, or CUDA where there is none.
    """
    place = checked_device(device)
    return place, resolve_precision(precision, place)


def checked_device(device: str) -> torch.device:
    """A device to compute on.

    Raises:
        CladeError: an unknown device, or CUDA where there is none.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise CladeError(f"There is no device '{device}'. Known: cpu, cuda, cuda:N.") from error
    if chosen.type not in ("cpu", "cuda"):
        raise CladeError(f"Device '{device}' cannot be measured on. Known: cpu, cuda, cuda:N.")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise CladeError(f"Device '{device}' was asked for, but torch finds no CUDA device. Use device='cpu'.")
    return chosen


def device_name(device: torch.device) -> str:
    """What a table calls a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _draw(network: Generator, label_map: LabelMap, precision: str) -> None:
    device = label_map.device
    style = None
    if network.encoder_is_part:  # it draws through its encoder, which is counted, too
        style = torch.zeros(1, 3, *label_map.size, device=device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        network(label_map, style=style)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _require_values(generator: Generator) -> None:
    if any(p.is_meta for p in generator.parameters()):
        raise CladeError(
            "This generator has no values (it is on the meta device), so it can be counted, but not measured. "
            "Build it outside `torch.device('meta')`."
        )
