"""Extractors from the libraries of backbones: timm and transformers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CheckpointError, CladeError, first_line
from clade.metrics.extractors import Extractor
from clade.metrics.weights import RANDOM, named, require


class ResizingExtractor(Extractor):
    """A network that takes the whole picture at one size, normalised; subclasses say how it answers.

    Pictures are resized with antialiasing in float32 and rounded to 8 bits again, as torchvision does with bytes.

    Args:
        size: (height, width) of the network's input; the picture is stretched to it.
        mean, std: of RGB in [0, 1].
        mode: "bilinear" or "bicubic".
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        dtype: torch.dtype,
        *,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        mode: str,
    ) -> None:
        super().__init__(name, network.to(dtype))
        self.size, self.mean, self.std, self.dtype = size, mean, std, dtype
        self.mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
        self.dim = self(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[1]

    def options(self) -> dict[str, Any]:
        preprocessing = {"size": self.size, "mean": self.mean, "std": self.std, "mode": self.mode}
        return {**preprocessing, "dtype": str(self.dtype)}

    def preprocess(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 3, *size) of the network's type."""
        x = pixels.float()
        if tuple(x.shape[-2:]) != tuple(self.size):
            x = nn.functional.interpolate(x, self.size, mode=self.mode, antialias=True, align_corners=False)
            x = x.round().clamp(0, 255)
        x = x.to(self.dtype) / 255
        return (x - x.new_tensor(self.mean).view(3, 1, 1)) / x.new_tensor(self.std).view(3, 1, 1)


class TimmExtractor(ResizingExtractor):
    """Pooled features of a timm model, before its classifier, at its own input size."""

    def __init__(
        self, model: str, weights: str | Path | None, dtype: torch.dtype, name: str | None = None, **options: Any
    ) -> None:
        timm = require("timm", "timm", "judges")
        if not timm.is_model(model):
            raise CladeError(f"timm {timm.__version__} has no model '{model}'. timm.list_models('*vit*') lists some.")
        if weights == RANDOM:
            network = timm.create_model(model, pretrained=False, num_classes=0, **options)
        else:
            path = self._find(timm, model) if weights is None else Path(weights)
            if not path.is_file():
                raise CheckpointError(f"{path}: no such file of weights for timm's '{model}'. {self._how(timm, model)}")
            try:
                if path.suffix != ".safetensors":
                    torch.load(path, map_location="cpu", weights_only=True)  # older versions of timm unpickle
                network = self._strictly(timm, model, path, options)
            except Exception as error:  # a stranger's file fails in many ways
                raise CheckpointError(
                    f"{path}: not the weights of timm's '{model}' ({type(error).__name__}: {first_line(error)}). "
                    f"{self._how(timm, model)}"
                ) from error
        data = timm.data.resolve_model_data_config(network)
        size = (options["img_size"],) * 2 if "img_size" in options else tuple(data["input_size"][1:])
        super().__init__(
            named(name or f"timm:{model}", weights),
            network,
            dtype,
            size=(size[0], size[1]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            mode=data["interpolation"],
        )

    def compute(self, pixels: Tensor) -> Tensor:
        return self.network(self.preprocess(pixels)).flatten(1)

    @staticmethod
    def _strictly(timm: Any, model: str, path: Path, options: dict[str, Any]) -> nn.Module:
        """The network without its classifier, and all of its weights from a file with or without one."""
        own = {"file": str(path), "custom_load": False}
        try:
            # With num_classes other than the file's, timm would leave whatever is missing random.
            network = timm.create_model(model, pretrained=True, pretrained_cfg_overlay=own, **options)
        except RuntimeError:
            none = {"num_classes": 0}
            return timm.create_model(model, pretrained=True, pretrained_cfg_overlay={**own, **none}, **none, **options)
        network.reset_classifier(0)
        return network

    @staticmethod
    def _find(timm: Any, model: str) -> Path:
        config = timm.get_pretrained_cfg(model)
        hub = importlib.import_module("huggingface_hub")
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = hub.try_to_load_from_cache(config.hf_hub_id, file) if config.hf_hub_id else None
            if isinstance(found, str):
                return Path(found)
        direct = Path(torch.hub.get_dir()) / "checkpoints" / str(config.url or "").rpartition("/")[2]
        if config.url and direct.is_file():
            return direct
        raise CheckpointError(
            f"The weights of timm's '{model}' are not in the local caches, and nothing is downloaded unasked. "
            f"{TimmExtractor._how(timm, model)}"
        )

    @staticmethod
    def _how(timm: Any, model: str) -> str:
        config = timm.get_pretrained_cfg(model)
        hub = config.hf_hub_id if config is not None else None
        fetch = f" `hf download {hub} model.safetensors` fetches it into the cache;" if hub else ""
        return f"Needed is its model.safetensors:{fetch} or name a .safetensors or .pth file (weights)."


class HuggingFaceExtractor(ResizingExtractor):
    """Pooled features of a vision model of transformers: its pooled output where it was trained with one, else the
    class token, else the mean over tokens or pixels."""

    def __init__(self, model: str, weights: str | Path | None, dtype: torch.dtype) -> None:
        transformers = require("transformers", "transformers", "judges")
        place = model if weights in (None, RANDOM) else str(weights)
        how = (
            f"Needed are config.json, preprocessor_config.json and model.safetensors: `hf download {model}` fetches "
            "them into the cache; or name a folder that holds them (weights)."
        )
        try:
            if weights == RANDOM:
                config = transformers.AutoConfig.from_pretrained(place, local_files_only=True)
                network = transformers.AutoModel.from_config(config)
                missing = ()
            else:
                network, loading = transformers.AutoModel.from_pretrained(
                    place, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
                missing = tuple(loading["missing_keys"])
            processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
        except Exception as error:  # a missing or strange file fails in many ways
            raise CheckpointError(
                f"'{place}': not in the local cache, or not a vision model, and nothing is downloaded unasked "
                f"({type(error).__name__}: {first_line(error)}). {how}"
            ) from error
        lost = [key for key in missing if "pooler" not in key and "classifier" not in key]
        if lost:
            raise CheckpointError(f"'{place}': its weights lack {len(lost)} keys, such as {lost[0]}. {how}")
        self._pooled = not missing
        self._has_class_token = any(key.endswith("cls_token") for key in network.state_dict())
        size = getattr(processor, "crop_size", None) or processor.size
        super().__init__(
            named(f"hf:{model}", weights),
            network,
            dtype,
            size=_size_of(dict(size)),
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            mode={2: "bilinear", 3: "bicubic"}.get(int(getattr(processor, "resample", 3) or 3), "bicubic"),
        )

    def compute(self, pixels: Tensor) -> Tensor:
        x = self.preprocess(pixels)
        if hasattr(self.network, "get_image_features"):  # CLIP and the like, which also have a text side
            out = self.network.get_image_features(pixel_values=x)  # pyright: ignore[reportCallIssue]
            return out if isinstance(out, Tensor) else out.pooler_output
        out = self.network(pixel_values=x)
        pooled = getattr(out, "pooler_output", None)
        if self._pooled and pooled is not None:
            return pooled.flatten(1)
        last = out.last_hidden_state
        if last.ndim == 4:
            return last.mean((2, 3))
        return last[:, 0] if self._has_class_token else last.mean(1)


def _size_of(size: Mapping[str, int]) -> tuple[int, int]:
    if "height" in size:
        return size["height"], size["width"]
    side = size["shortest_edge"]
    return side, side
