"""A judge of any kind from one word, as a command line gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clade.errors import CheckpointError
from clade.metrics.judges.base import Judge
from clade.metrics.judges.hugging_face import open_hugging_face
from clade.metrics.judges.matching import ClassMap
from clade.metrics.judges.published import JUDGES, read
from clade.metrics.judges.trained import read_judge
from clade.registry import near_match


def open_judge(
    spec: str | Path,
    *,
    names: Sequence[str] | None = None,
    mapping: ClassMap | None = None,
    download: bool = False,
    **options: Any,
) -> Judge:
    """A judge from a word.

    Args:
        spec: a ``.safetensors`` file that ``clade judge train`` wrote (or its folder); ``hf:NAME`` for a segmenter of
            transformers; one of the paper's four, as ``upernet101`` or ``upernet101=PATH``.
        names: of the dataset's classes, for judges of other ones (not for the paper's four, which know their dataset).
        mapping: which classes are meant where names differ: a mapping or a YAML file.
        download: ``hf:NAME`` may be fetched from the Hub.
        options: of one of the paper's four, see its class.

    Raises:
        CladeError: no such judge, or weights that are missing or do not fit; the message says what to put where.
    """
    word = str(spec)
    classes = None if names is None else tuple(names)
    if word.startswith("hf:"):
        _no_options(word, options)
        return open_hugging_face(word.removeprefix("hf:"), names=classes, mapping=mapping, download=download)
    name, _, path = word.partition("=")
    name = name.replace("_", "-")
    if name in JUDGES:
        if mapping is not None:
            raise CheckpointError(f"'{name}' judges its own dataset's classes; it takes no mapping. Leave it out.")
        make: Callable[..., Judge] = JUDGES[name]
        return make(read(JUDGES[name], path or None), **options)
    file = Path(spec)
    if file.is_dir() and (file / "best.safetensors").is_file():
        file = file / "best.safetensors"
    if not file.exists() and file.suffix != ".safetensors":
        hint = near_match(name, JUDGES)
        raise CheckpointError(
            f"There is no judge '{word}'.{hint} Needed is a .safetensors file of `clade judge train`, hf:NAME, or one "
            f"of {', '.join(JUDGES)} (perhaps =PATH)."
        )
    _no_options(word, options)
    return read_judge(file, names=classes, mapping=mapping)


def _no_options(word: str, options: dict[str, Any]) -> None:
    if options:
        raise CheckpointError(f"'{word}' takes no option '{next(iter(options))}'; only the paper's four have options.")
