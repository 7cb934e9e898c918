"""The parts of a recipe: frozen dataclasses, one per part of a training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

Problem = tuple[bool, str, str]
"""(whether it is wrong, dotted key of the value, what is needed)"""


def not_finite(config: Any, prefix: str = "") -> list[Problem]:
    """The numbers of a recipe that are none, or have no end; YAML knows both, and no range here has them."""
    found: list[Problem] = []
    for field_ in dataclasses.fields(config):
        key, value = f"{prefix}{field_.name}", getattr(config, field_.name)
        if dataclasses.is_dataclass(value):
            found += not_finite(value, f"{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            found.append((True, key, "a finite number"))
    return found


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned from."""

    name: str = "scenes"
    """Dataset: 'folder' (images/, labels/, classes.json), 'scenes' (drawn, built in), or a benchmark dataset in its own
    layout: 'ade20k', 'ade20k-outdoor', 'coco-stuff', 'cityscapes', 'celebamask-hq', 'deepfashion', 'camvid', 'ccp'."""
    root: str | None = None
    """Folder of the dataset, or of what `clade data prepare` made of it."""
    train_split: str = "train"
    """Subfolder or part to train on."""
    val_split: str = "val"
    """Subfolder or part to validate on."""
    split_file: str | None = None
    """YAML file, or the name of one that comes with clade (camvid-drives, ccp): parts made of the dataset's splits by
    the names of pictures, as 'val: {from: train, names: ["0006R0_*"], except: [...]}'. train_split and val_split then
    name these parts, and so does the split that other commands take."""
    size: tuple[int, int] = (256, 256)
    """Height and width of training and validation pictures."""
    num_classes: int | None = None
    """Number of classes, where the dataset does not say (no classes.json)."""
    unknown: int | None = None
    """Number that label files use for unlabelled pixels, where the dataset does not say."""
    remap: dict[int, int] | None = None
    """Number in the label file -> number to read it as."""
    merge: str | None = None
    """YAML file, or the name of one that comes with clade (ccp-20), with the table by which `clade data convert` merges
    classes. The classes are then those of the table; num_classes, unknown, remap and palette are of the files."""
    palette: list[tuple[int, int, int]] | None = None
    """Colour (r, g, b) of each class in RGB label files, where the dataset does not say."""
    load_size: tuple[int, int] | None = None
    """Height and width that pictures are brought to before they are augmented (SPADE: 286x286 for 256x256), which is
    what `clade data prepare` stores; by default the augmentation takes them from the original in one step."""
    flip: bool = True
    """Mirror half of the training pictures."""
    max_zoom: float = 1.117
    """Training pictures are enlarged by 1 to this factor and cropped (SPADE: 286/256)."""
    crop: str = "zoom"
    """'zoom' resamples a part of random size; 'pixels' cuts 'size' out of 'load_size' as it is, as SPADE does."""
    fit: str = "stretch"
    """How pictures of another shape come to 'size': 'stretch' as SPADE does, or 'crop' to keep the aspect ratio."""
    jitter: float = 0.0
    """Brightness, contrast and saturation of the photo are each multiplied by a factor in [1 - jitter, 1 + jitter];
    below 1."""
    sampling: str = "uniform"
    """'uniform' shows every picture once per epoch; 'balanced' shows those with rare classes more often (LVIS's repeat
    factors)."""
    on_error: str = "stop"
    """A file that cannot be used: 'stop' the training with its name, or 'skip' and count it."""
    workers: int = 0
    """Loader processes; 0 loads in the training process."""
    cache_mib: int = 512
    """Decoded pictures are kept in memory up to this many MiB per process."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the dataset (count, seed for 'scenes')."""

    def problems(self) -> list[Problem]:
        """The ranges of all keys here."""
        load_size = self.load_size
        holds_size = load_size is not None and all(a >= b for a, b in zip(load_size, self.size, strict=True))
        return [
            (min(self.size) < 32, "data.size", "at least 32 x 32"),
            (self.fit not in ("stretch", "crop"), "data.fit", "'stretch' or 'crop'"),
            (load_size is not None and min(load_size) < 1, "data.load_size", "at least 1 x 1"),
            (self.sampling not in ("uniform", "balanced"), "data.sampling", "'uniform' or 'balanced'"),
            (self.on_error not in ("stop", "skip"), "data.on_error", "'stop' or 'skip'"),
            (self.crop not in ("zoom", "pixels"), "data.crop", "'zoom' or 'pixels'"),
            (
                self.crop == "pixels" and not holds_size,
                "data.load_size",
                "at least data.size on both sides, because data.crop is 'pixels'",
            ),
            (self.max_zoom < 1, "data.max_zoom", "at least 1"),
            (not 0 <= self.jitter < 1, "data.jitter", "in [0, 1)"),
            (self.workers < 0, "data.workers", "at least 0"),
            (self.cache_mib < 0, "data.cache_mib", "at least 0"),
        ]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The network that is trained."""

    name: str = "clade"
    """One of clade.list_generators()."""
    width: int | None = None
    """Channels of the last block (the official ngf); by default the network's own, 64 but for spade-light."""
    upsampling: str | None = None
    """'normal' starts at 1/32 of the size, 'more' at 1/64, 'most' at 1/128; by default the network's own."""
    instance_edges: bool = False
    """The network sees the borders between objects."""
    z_dim: int | None = None
    """Start from a latent vector of this length (multi-modal synthesis), 256 in the paper; by default the network's own
    choice, which is none but for cc-fpse."""
    encoder: bool = False
    """Train a style encoder with it (needs a latent input)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the generator."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The network that it is trained against."""

    name: str = "multiscale"
    """'multiscale' (pix2pixHD, SPADE), 'fpse' (CC-FPSE) or 'segmentation' (OASIS); only the first has 'scales' and
    'layers', and the last no feature matching."""
    width: int = 64
    """Channels of the first layer (the official ndf; published 64, of 'segmentation' 128)."""
    scales: int = 2
    """Number of scales."""
    layers: int = 4
    """Convolutions per scale before the one that scores."""
    diff_augment: str = ""
    """DiffAugment of what it sees, for small data: any of 'color,translation,cutout'."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the discriminator ('multiscale': last_stride; 'segmentation': depth, label_mix)."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """L = GAN + feature_matching * L_FM + perceptual * L_P + l1 * L_1 + kl * L_KL (equation 18)."""

    adversarial: str = "hinge"
    """'hinge', 'least-squares', 'non-saturating' or 'wasserstein'; leave it out with the discriminator 'segmentation',
    whose losses are cross-entropies."""
    feature_matching: float = 10.0
    """Weight of the discriminator's feature matching; must be 0 with the discriminator 'segmentation'."""
    perceptual: float = 10.0
    """Weight of the perceptual loss, of VGG19's features; 0 needs no VGG weights."""
    vgg_weights: str | None = None
    """File with torchvision's VGG19 weights; by default torchvision's own cache is looked at."""
    perceptual_judge: str | None = None
    """File of `clade judge train`: the perceptual loss is then of its encoder's features, and needs no VGG weights."""
    vgg_input: str = "imagenet"
    """'imagenet' normalises as VGG was trained; 'raw' feeds [-1, 1] as the published code does."""
    l1: float = 0.0
    """Weight of the mean absolute difference to the photo."""
    kl: float = 0.05
    """Weight of the KL term, a mean over the batch; only with a style encoder."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam for both networks; TTUR gives the discriminator the larger step."""

    lr_generator: float = 1e-4
    """Step size of the generator."""
    lr_discriminator: float = 4e-4
    """Step size of the discriminator."""
    beta1: float = 0.0
    """Adam's first moment."""
    beta2: float = 0.9
    """Adam's second moment."""
    constant: float = 0.5
    """Part of the training with a constant step size; it then falls linearly to 0."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at once, and what is kept."""

    epochs: float = 200
    """Times that every training picture is seen; 'steps' overrides it."""
    steps: int | None = None
    """Number of optimizer steps."""
    max_minutes: float | None = None
    """Save and stop after this long; the same command goes on."""
    batch_size: int = 1
    """Pictures per device and backward pass."""
    accumulate: int = 1
    """Backward passes per step."""
    precision: str = "auto"
    """'fp32', 'bf16' (autocast; weights stay float32), or 'auto': bf16 where the device multiplies in it."""
    ema: float = 0.9999
    """Decay of the generator's moving average, which is what is validated and saved; 0 turns it off."""
    calibrate: int = 25
    """Batches on which the averaged generator's BatchNorm statistics are measured before it is validated or saved."""
    seed: int = 0
    """Everything random follows from it."""
    devices: int = 1
    """Processes on this machine; torchrun overrides it."""
    accelerator: str = "auto"
    """'auto', 'cpu' or 'cuda'."""
    threads: int | None = None
    """CPU threads per process; by default as many as find a free core when the training begins, and then the same."""
    save_every: int = 500
    """Steps between training states; a killed run loses at most these."""
    validate_every: float = 10.0
    """Epochs between validations."""
    log_every: int = 20
    """Steps between points of the curves."""
    samples: int = 6
    """Validation pictures on a sample sheet."""
    init_from: str | None = None
    """Checkpoint whose generator weights the training begins with, as for a fine-tune of what `clade convert` wrote."""
    metrics: list[str] = field(default_factory=list)
    """Scores of every validation besides L1, as `clade evaluate` computes them: fid, kid, miou, ..."""
    best_by: str = "l1"
    """Score that decides which weights best.safetensors holds: 'l1' or any of `clade evaluate`."""
    protocol: str = "paper"
    """Protocol of these scores, as of `clade evaluate`: 'paper', 'oasis' or a YAML file."""
    judge: str | None = None
    """Segmenter of miou and accuracy, as of `clade evaluate`; by default the published one of the dataset."""
    score_weights: dict[str, str] = field(default_factory=dict)
    """Weights files of these scores, by name: inception, or the protocol's extractor."""
