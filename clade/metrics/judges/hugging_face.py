"""Judges from the Hugging Face Hub: any semantic segmenter of transformers, by name or as a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CheckpointError, CladeError, first_line
from clade.metrics.judges.base import Size
from clade.metrics.judges.matching import ClassMap, Match, NamedJudge, chosen
from clade.metrics.judges.packages import require
from clade.metrics.judges.pixels import Images, as_pixels

_SEMANTIC = "ForSemanticSegmentation"
_MASKS = {"maskformer": "MaskFormerForInstanceSegmentation", "mask2former": "Mask2FormerForUniversalSegmentation"}
"""Networks that answer with masks and a class for each: what of them gives a class for every pixel."""


class HuggingFaceJudge(NamedJudge):
    """A segmenter of transformers with its own image processor.

    Scores are the network's logits, or for mask classifiers (MaskFormer, Mask2Former) the sum over masks of class
    probability times mask, resized bilinearly, as ``post_process_semantic_segmentation`` does.

    Args:
        network: a ``...ForSemanticSegmentation``, MaskFormer or Mask2Former.
        processor: the image processor that belongs to it.
        name: what to call it.
        matched: see :class:`clade.metrics.judges.matching.NamedJudge`.
    """

    def __init__(self, network: nn.Module, processor: Any, name: str, matched: Match | None = None) -> None:
        super().__init__(network, names_of(network), matched)
        self.processor, self.name = processor, f"hf:{name}"

    def preprocess(self, images: Images) -> Tensor:
        pictures = list(as_pixels(images).movedim(1, 3).cpu().numpy())
        # A centre that is cut out would be taken for the whole picture.
        whole = {"do_center_crop": False} if getattr(self.processor, "do_center_crop", None) else {}
        made = self.processor(images=pictures, return_tensors="pt", **whole)
        x = made["pixel_values"]
        if "pixel_mask" in made:  # without the padding, which evaluate adds and takes off the scores
            x = x[..., : int(made["pixel_mask"][0].any(1).sum()), : int(made["pixel_mask"][0].any(0).sum())]
        return x.to(self.device, torch.float32)

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        height, width = x.shape[-2:]
        multiple = int(getattr(self.processor, "size_divisor", None) or 1)
        below, right = -height % multiple, -width % multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below))
        out = self.network(pixel_values=x)
        scores = out.logits if hasattr(out, "logits") else self._from_masks(out)
        if below or right:
            scores = F.interpolate(scores, x.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]
        if size is None or tuple(scores.shape[-2:]) == tuple(size):
            return scores
        return F.interpolate(scores, size, mode="bilinear", align_corners=False)

    def _from_masks(self, out: Any) -> Tensor:
        masks = out.masks_queries_logits
        if _model_type(self.network) == "mask2former":
            masks = F.interpolate(masks, (384, 384), mode="bilinear", align_corners=False)  # as transformers does
        classes = out.class_queries_logits.softmax(-1)[..., :-1]  # without "no object"
        return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """Images -> the last hidden features, averaged over the picture: (N, D) float32.

        Raises:
            CladeError: a network that does not show them.
        """
        x = self.preprocess(images)
        out = self.guarded(x, lambda: self.network(pixel_values=x, output_hidden_states=True))
        states = getattr(out, "hidden_states", None) or getattr(out, "encoder_hidden_states", None)
        if not states or not isinstance(states[-1], Tensor) or states[-1].ndim not in (3, 4):
            raise CladeError(f"'{self.name}' does not show its features. Take another judge for the Frechet distance.")
        last = states[-1]
        return last.mean((2, 3)) if last.ndim == 4 else last.mean(1)

    def options(self) -> dict[str, object]:
        return {**super().options(), "processor": json.loads(self.processor.to_json_string())}


def names_of(network: Any) -> tuple[str, ...]:
    """Names of a network's classes, in order."""
    id2label = network.config.id2label
    return tuple(str(id2label[k]) for k in sorted(id2label))


def open_hugging_face(
    name: str, *, names: Sequence[str] | None = None, mapping: ClassMap | None = None, download: bool = False
) -> HuggingFaceJudge:
    """A judge from the Hub's local cache, or from a folder that ``save_pretrained`` wrote.

    Weights must be safetensors; code from the Hub is never run.

    Args:
        name: ``nvidia/segformer-b0-finetuned-ade-512-512`` say, or a folder.
        names, mapping: the classes to answer in; see :func:`clade.metrics.judges.matching.match`.
        download: fetch what is not in the cache.

    Raises:
        CladeError: transformers is missing, or the network is no semantic segmenter.
        CheckpointError: not in the cache, or without all its weights.
        LabelError: classes that do not match.
    """
    require("transformers", f"The judge 'hf:{name}'")
    import transformers

    kept: dict[str, Any] = {"local_files_only": not download}
    config = _fetched(name, lambda: transformers.AutoConfig.from_pretrained(name, **kept))
    architecture = (config.architectures or ["none"])[0]
    if not architecture.endswith(_SEMANTIC) and architecture != _MASKS.get(config.model_type):
        raise CladeError(
            f"hf:{name}: is a {architecture}, which gives no class for every pixel. Needed is a ...{_SEMANTIC}, "
            f"{' or '.join(_MASKS.values())}."
        )
    kind: Any = getattr(transformers, architecture, None)
    if kind is None:
        raise CladeError(f"hf:{name}: transformers {transformers.__version__} has no {architecture}. Try a newer one.")
    loading: dict[str, Any] = {**kept, "use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    network, report = _fetched(name, lambda: kind.from_pretrained(name, **loading))
    wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if wrong:
        raise CheckpointError(
            f"hf:{name}: {len(wrong)} weights of {architecture} are not in its files, such as {wrong[0]}. They would "
            "be random. Take a checkpoint of a trained segmenter."
        )
    processor = _fetched(name, lambda: transformers.AutoImageProcessor.from_pretrained(name, **kept))
    called = Path(name).resolve().name if Path(name).is_dir() else name
    return HuggingFaceJudge(network, processor, called, chosen(names_of(network), names, mapping))


def _fetched(name: str, fetch: Any) -> Any:
    try:
        return fetch()
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise CheckpointError(
            f"hf:{name}: cannot be opened ({type(error).__name__}: {first_line(error)}). Needed is a folder, or a name "
            f"that is in the local cache with safetensors weights; `hf download {name}` puts it there."
        ) from error


def _model_type(network: Any) -> str:
    return network.config.model_type
