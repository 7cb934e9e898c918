"""``clade generate``: a checkpoint and label maps -> pictures, and what there is to say of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch

from clade.errors import CladeError
from clade.synthesis import generate
from clade.synthesis.synthesizer import load
from clade.system.threads import free_cores, use_threads


def run(args: argparse.Namespace, size: tuple[int, int] | Literal["trained"] | None, style: Any, to: Any) -> int:
    """The command, with its arguments parsed.

    Args:
        size: of the pictures; None for that of each label map.
        style, to: see :func:`clade.synthesis.generate`.
    """
    use_threads(args.threads)
    synthesizer = load(args.checkpoint, args.device, args.precision, compile=args.compile)
    generator = synthesizer.generator
    if args.style_labels is not None and not generator.regional:
        print(
            "Note: --style-labels changes nothing here; this generator has one style for all classes.", file=sys.stderr
        )
    drawn = style is None or isinstance(style, Mapping) or args.samples > 1
    if args.seed is not None and not (generator.stochastic or (drawn and generator.latent_shape((1, 1)))):
        print("Note: --seed changes nothing here; it chooses a sample of a multi-modal generator.", file=sys.stderr)
    trained, size = size == "trained", _trained_size(synthesizer.recipe) if size == "trained" else size
    if args.compile:
        seconds = synthesizer.warm_up(size or (256, 256), args.batch)
        print(f"Compiled in {seconds:.1f} s.", file=sys.stderr)
    outcome = generate(
        synthesizer,
        args.labels,
        args.out,
        size=size,
        fit=synthesizer.recipe["data"]["fit"] if trained and synthesizer.recipe else "stretch",
        style=style,
        seed=args.seed,
        samples=args.samples,
        to=to,
        grid=args.grid,
        batch=args.batch,
        workers=_free_threads(synthesizer.device.type) if args.workers is None else args.workers,
        progress=not args.quiet,
    )
    if sys.stderr.isatty() and not args.quiet:
        print(outcome.pace, file=sys.stderr)
    for note in outcome.notes:
        print(f"Note: {note}", file=sys.stderr)
    for message in outcome.failed.values():
        print(f"clade: error: {message}", file=sys.stderr)
    for path in outcome.left_out:
        print(f"Not a label map, left out: {path}", file=sys.stderr)
    if outcome.without_instances:
        print(
            f"{outcome.without_instances} label maps have no instance map: class borders were drawn as edges instead."
        )
    if outcome.seeds:
        print(
            "Seeds of the samples: " + ", ".join(map(str, outcome.seeds))
            if len(outcome.seeds) > 1
            else f"Seed: {outcome.seeds[0]}"
        )
    failed = f"; {len(outcome.failed)} label maps failed" if outcome.failed else ""
    print(
        f"{len(outcome.written)} images in {args.out}{failed}" + (f"; overview {outcome.grid}" if outcome.grid else "")
    )
    return 1 if outcome.failed else 0


def _free_threads(device: str) -> int:
    """Helper threads that take no core from the network: with none free, they slow it by more than they save."""
    return 0 if device == "cpu" and free_cores() <= torch.get_num_threads() else 2


def _trained_size(recipe: dict[str, Any] | None) -> tuple[int, int]:
    if recipe is None:
        raise CladeError("--size trained: the checkpoint carries no recipe. Give the size as HxW, 256x512 say.")
    height, width = recipe["data"]["size"]
    return height, width
