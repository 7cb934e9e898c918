"""The segmentation discriminator of OASIS: it sees an image alone and says, pixel by pixel, which class it is of.

Sushko, Schoenfeld, Zhang, Gall, Schiele, Khoreva, "You Only Need Adversarial Supervision for Semantic Image Synthesis",
ICLR 2021, arXiv 2012.04781.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from clade.errors import CladeError
from clade.models.discriminators.multiscale import DISCRIMINATORS, Discriminator, Features, Look, Losses
from clade.nn import conv2d, spectral_norm


@DISCRIMINATORS.register("segmentation")
class SegmentationDiscriminator(Discriminator):
    """A U-Net of residual blocks: image -> logits of every class and of "generated", for every pixel (section 3.1).

        L_D = L(real, classes) + L(fake, generated) + label_mix * L_M        L_G = L(fake, classes)

    L is a cross-entropy, for the classes balanced by :func:`pixel_weights`. With M true for whole classes of a picture,
    each by a coin of its own, LabelMix asks that the logits D depend on a pixel's own class alone:

        L_M = mean (D(M real + (1 - M) fake) - (M D(real) + (1 - M) D(fake)))^2

    Args:
        num_classes: classes, without the unknown one. Unknown pixels have no class to be predicted.
        unknown_class: whether unlabelled pixels have the id ``num_classes``.
        width: channels of the first two blocks, then doubled twice; 128 as published.
        depth: blocks down, and up; images must be divisible by 2^depth. Published are 6.
        label_mix: weight of LabelMix, published 10 (Cityscapes: 5); 0 turns it off.
    """

    wants_visible = True

    def __init__(
        self,
        num_classes: int,
        *,
        unknown_class: bool = False,
        width: int = 64,
        depth: int = 6,
        label_mix: float = 10.0,
    ) -> None:
        super().__init__()
        if width < 2 or depth < 2 or label_mix < 0:
            raise CladeError(
                f"width is {width}, depth {depth} and label_mix {label_mix}; needed are at least 2, at least 2 and at "
                "least 0."
            )
        self.num_classes, self.label_mix = num_classes, label_mix
        self.draws = num_classes + unknown_class if label_mix else 0
        widths = [width * 2 ** min(k // 2, 2) for k in range(depth)]
        self.down = nn.ModuleList(
            _Down(before, after, activate=k > 0)
            for k, (before, after) in enumerate(zip([3, *widths[:-1]], widths, strict=True))
        )
        below = widths[:-1][::-1]  # from coarse to fine, as the blocks up
        self.up = nn.ModuleList([_Up(widths[-1], below[0])])
        self.up.extend(_Up(2 * before, after) for before, after in zip(below, [*below[1:], width // 2], strict=True))
        self.classify = _conv(width // 2, num_classes + 1, 1, spectral=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, num_classes + 1, H, W), the last for "generated"."""
        self.check_size((image.shape[2], image.shape[3]))
        x = image.contiguous(memory_format=torch.channels_last)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for up in self.up[1:]:
            x = up(torch.cat([skips.pop(), x], dim=1))
        return self.classify(x)

    def check_size(self, size: tuple[int, int]) -> None:
        depth = len(self.down)
        if any(length % 2**depth for length in size):
            fits = max(k for k in range(depth) if not any(length % 2**k for length in size))
            smaller = f", or a smaller depth: discriminator.options={{depth: {fits}}}" if fits >= 2 else ""
            raise CladeError(
                f"The segmentation discriminator halves images {depth} times and cannot see {size[0]}x{size[1]}: both "
                f"must be multiples of {2**depth}. Choose another data.size{smaller}."
            )

    def losses(self, look: Look, of_features: Callable[[Features, Features], Losses]) -> Losses:
        fake, real = look.fake, look.real.to(look.fake.dtype)
        ids = look.labels.ids((fake.shape[2], fake.shape[3])).long()
        of_classes, of_generated = pixel_weights(ids, self.num_classes, look.visible)
        with parametrize.cached():  # one step of the power iteration for all looks
            on_fake, on_real = self(fake), self(real)
            mask = self._mask(ids, look.numbers)
            on_mixed = None if mask is None else self(torch.where(mask, real, fake.detach()))
        log_fake, log_real = (F.log_softmax(logits.float(), dim=1) for logits in (on_fake, on_real))
        generated = torch.full_like(ids, self.num_classes)
        discriminators = {
            "d_real": cross_entropy(log_real, ids, of_classes),
            "d_fake": cross_entropy(log_fake, generated, of_generated),
        }
        if mask is not None and on_mixed is not None:
            apart = torch.where(mask, on_real, on_fake).float() - on_mixed.float()
            discriminators["d_label_mix"] = self.label_mix * apart.square().mean()
        return {"gan": cross_entropy(log_fake, ids, of_classes)}, discriminators

    def _mask(self, ids: Tensor, numbers: Tensor | None) -> Tensor | None:
        """LabelMix's M, true for the photo: (N, 1, H, W); None where LabelMix is off."""
        if not self.label_mix:
            return None
        assert numbers is not None, "LabelMix draws one number per class and picture"
        assert numbers.shape == (len(ids), self.draws)
        return (numbers < 0.5).gather(1, ids.flatten(1)).view(ids.shape)[:, None]


def pixel_weights(ids: Tensor, num_classes: int, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights of pixels in a sum: for the cross-entropy of their classes, and of "generated" (equation 1).

        w_p = 1 / (K n_c), c the class of p        w'_p = 1 / n

    Every class counts alike, whatever its area: n_c is its visible pixels in the batches of all processes, K the number
    of classes that have any. n is the number of visible pixels. So both sums are means; equation 2 of the paper has no
    K, its published code has it. Pixels that are unknown have w = 0, those that are not visible also w' = 0.

    Args:
        ids: (N, H, W); ``num_classes`` is unknown.
        visible: (N, 1, H, W), true where the images show something; None where they do everywhere.

    Returns:
        (w, w'), float32, (N, H, W). Where there are several processes, times their number: gradients are averaged.
    """
    unknown, erased = num_classes, num_classes + 1
    kinds = ids if visible is None else torch.where(visible[:, 0], ids, erased)
    counts = torch.zeros(num_classes + 2, dtype=torch.long, device=ids.device)
    counts.scatter_add_(0, kinds.flatten(), torch.ones_like(kinds).flatten())
    processes = 1
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        processes = dist.get_world_size()
        dist.all_reduce(counts)
    of_known, present = counts[:unknown].clamp(min=1), (counts[:unknown] > 0).sum().clamp(min=1)
    table = F.pad(processes / (present * of_known).float(), [0, 2])  # of unknown and of erased pixels: 0
    visible_pixels = counts[:erased].sum().clamp(min=1)
    return table[kinds], (kinds != erased) * (processes / visible_pixels.float())


def cross_entropy(log_probabilities: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """-sum_p w_p log P(target_p): (N, C, H, W), (N, H, W), (N, H, W) -> a scalar"""
    return -(log_probabilities.gather(1, targets[:, None])[:, 0] * weights).sum()


class _Down(nn.Module):
    """LeakyReLU, conv, LeakyReLU, conv, average of 2x2, and a shortcut; the block that sees the image has no first one.

    A 3x3 convolution and the average of 2x2 are one 4x4 convolution of stride 2; 1x1 convolution and average commute.
    """

    def __init__(self, channels_in: int, channels_out: int, activate: bool) -> None:
        super().__init__()
        self.activate = activate
        self.conv1 = _conv(channels_in, channels_out, 3)
        self.conv2 = _conv(channels_out, channels_out, 3)
        self.shortcut = _shortcut(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.leaky_relu(x, 0.2) if self.activate else x)
        y = F.conv2d(F.leaky_relu(y, 0.2), _doubled(self.conv2.weight) / 4, self.conv2.bias, stride=2, padding=1)
        return self.shortcut(F.avg_pool2d(x, 2)) + y


class _Up(nn.Module):
    """LeakyReLU, nearest x 2, conv, LeakyReLU, conv, and a shortcut.

    Nearest x 2 and a 3x3 convolution are one transposed 4x4 convolution of stride 2.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels_out, 3)
        self.conv2 = _conv(channels_out, channels_out, 3)
        self.shortcut = _shortcut(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        kernel = _doubled(self.conv1.weight.flip(2, 3)).transpose(0, 1)
        y = F.conv_transpose2d(F.leaky_relu(x, 0.2), kernel, self.conv1.bias, stride=2, padding=1)
        return F.interpolate(self.shortcut(x), scale_factor=2.0) + self.conv2(F.leaky_relu(y, 0.2))


def _conv(channels_in: int, channels_out: int, kernel: int, spectral: bool = True) -> nn.Conv2d:
    """A convolution with orthogonal weights, zero bias, and spectral norm unless said otherwise.

    Divided by its spectral norm, a Gaussian weight halves what passes; twelve blocks leave next to nothing, and the
    first hundreds of steps go by before the classes are told apart. An orthogonal one keeps its size.
    """
    conv = conv2d(channels_in, channels_out, kernel)
    nn.init.orthogonal_(conv.weight)
    return spectral_norm(conv) if spectral else conv


def _shortcut(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Identity() if channels_in == channels_out else _conv(channels_in, channels_out, 1)


def _doubled(kernel: Tensor) -> Tensor:
    """A kernel convolved with 2x2 ones: (O, I, 3, 3) -> (O, I, 4, 4)"""
    rows = F.pad(kernel, [0, 0, 0, 1]) + F.pad(kernel, [0, 0, 1, 0])
    return F.pad(rows, [0, 1]) + F.pad(rows, [1, 0])
