"""GroupDNet's style encoder: one style per class, from the photo's pixels of that class alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelMap
from clade.nn import InstanceNorm, conv2d


class GroupEncoder(nn.Module):
    """A photo and its label map -> mean and log-variance of a style per class (Zhu et al. 2020).

    Each class's pixels are cut out of the photo (:func:`class_crops`) and run through 3x3 convolutions of stride 2 with
    one group per class, spectral and instance norm and LeakyReLU(0.2), and two grouped 3x3 convolutions.

    Args:
        num_rows: number of ids, the unknown class included.
        width: channels of the first layer, all classes together; the others have 2, 4, 8, 8, 8 times as many. None for
            256 as near as the number of classes divides it, and for at least 4 per class.
        code_channels: channels of one class's style.
        layers: convolutions; 6, or 5 as the published code has for pictures smaller than 256.

    Raises:
        CladeError: a width that does not divide among the classes.
    """

    def __init__(self, *, num_rows: int, width: int | None = None, code_channels: int = 8, layers: int = 6) -> None:
        super().__init__()
        width = num_rows * max(4, 256 // num_rows) if width is None else width
        if width < 1 or width % num_rows:
            raise CladeError(
                f"The style encoder has {width} channels at its first layer, which do not divide among {num_rows} "
                f"classes (the unknown one included). Choose a multiple of {num_rows} (4 to 32 channels per class in "
                "the published networks), or leave it out."
            )
        if not 1 <= layers <= 6:
            raise CladeError(f"The style encoder has {layers} layers; needed is 1 to 6 (6, or 5, as published).")
        self.num_rows = num_rows
        channels = [3 * num_rows, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width][: layers + 1]
        self.convs = nn.ModuleList(
            conv2d(channels[k], channels[k + 1], 3, stride=2, bias=False, groups=num_rows, spectral=True)
            for k in range(layers)
        )
        self.norms = nn.ModuleList(InstanceNorm(count) for count in channels[1:])
        self.to_mu = conv2d(channels[-1], code_channels * num_rows, 3, groups=num_rows)
        self.to_logvar = conv2d(channels[-1], code_channels * num_rows, 3, groups=num_rows)

    def forward(
        self, image: Tensor, label_map: LabelMap | Tensor, grid: tuple[int, int] = (4, 4)
    ) -> tuple[Tensor, Tensor]:
        """Photos and their label maps -> mu, logvar, each (N, code_channels * num_rows, *grid), class after class.

        Args:
            image: (N, 3, h, w) in [-1, 1]; resized to the label maps where it has another size.
            label_map: the photos' label maps, or their ids (N, H, W).
            grid: size of the style; a class's cut-out is resized to 2^layers times as much.

        Raises:
            LabelError: ids outside the classes.
            CladeError: another number of photos than of label maps.
        """
        label_map = label_map if isinstance(label_map, LabelMap) else LabelMap(label_map)
        ids = label_map.check(self.num_rows).ids
        if len(image) != len(ids):
            raise CladeError(
                f"{len(image)} style photos came with {len(ids)} label maps. Give every photo its own label map; to "
                "draw other maps with the style of one photo, encode() it and give its codes as z."
            )
        if tuple(image.shape[2:]) != label_map.size:
            image = F.interpolate(image, size=label_map.size, mode="bilinear", align_corners=False)
        scale = 2 ** len(self.convs)
        x = class_crops(image, ids, self.num_rows, (scale * grid[0], scale * grid[1])).flatten(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            if x.shape[2] * x.shape[3] > 1:  # instance norm of one pixel would leave nothing of the photo
                x = norm(x)
            x = F.leaky_relu(x, 0.2)
        return self.to_mu(x), self.to_logvar(x)


def class_crops(image: Tensor, ids: Tensor, num_rows: int, size: tuple[int, int]) -> Tensor:
    """Each class's pixels, cut to the class's bounding box and nearest-resized; the rest of the box is 0.

    Args:
        image: (N, 3, H, W).
        ids: (N, H, W), in [0, num_rows).
        num_rows: number of ids.
        size: (height, width) of every cut-out.

    Returns:
        (N, num_rows, 3, *size); 0 for a class that a picture does not have.
    """
    ids = ids.long()
    pictures, height, width = ids.shape
    n = torch.arange(pictures, device=ids.device)[:, None, None]
    in_rows = torch.zeros(pictures, num_rows, height, dtype=torch.bool, device=ids.device)
    in_rows[n, ids, torch.arange(height, device=ids.device)[:, None]] = True
    in_columns = torch.zeros(pictures, num_rows, width, dtype=torch.bool, device=ids.device)
    in_columns[n, ids, torch.arange(width, device=ids.device)] = True
    picture, row = in_rows.any(2).nonzero(as_tuple=True)  # what there is: one entry per picture and class
    y = _nearest_inside(in_rows[picture, row], size[0])[:, :, None]
    x = _nearest_inside(in_columns[picture, row], size[1])[:, None, :]
    at = picture[:, None, None]
    inside = ids[at, y, x] == row[:, None, None]
    pixels = image.movedim(1, -1)[at, y, x].where(inside[..., None], 0)
    crops = image.new_zeros(pictures, num_rows, *size, image.shape[1])
    crops[picture, row] = pixels
    return crops.movedim(-1, 2)


def _nearest_inside(occupied: Tensor, out: int) -> Tensor:
    """Sources of a nearest resize from the first to the last occupied place: (P, length) bool -> (P, out)."""
    first = occupied.int().argmax(1, keepdim=True)
    last = occupied.shape[1] - 1 - occupied.flip(1).int().argmax(1, keepdim=True)
    length = last - first + 1
    # In float32 as torch.nn.functional.interpolate(mode="nearest") computes them.
    step = length.to(torch.float32) / out
    places = torch.arange(out, dtype=torch.float32, device=occupied.device) * step
    return first + places.long().minimum(length - 1)
