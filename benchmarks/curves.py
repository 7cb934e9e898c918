"""Loss curves of a training as a picture: `python -m benchmarks.curves RUN --out curve.png`.

Reads the TensorBoard files of the run's folder. Thin lines are the points as written, thick ones a moving average.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clade.io.images import save_png

PANEL = (420, 220)
COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, default=Path("curve.png"))
    args = parser.parse_args()
    curves = read_curves(args.run)
    panels = {
        "generator: gan": ["loss/gan"],
        "generator: feature matching": ["loss/feature_matching"],
        "generator: l1, perceptual, kl": ["loss/l1", "loss/perceptual", "loss/kl"],
        "discriminator: real (blue), fake (red)": ["loss/d_real", "loss/d_fake"],
        "validation: mean absolute error": ["val/l1"],
        "images per second": ["images_per_second"],
    }
    drawn = [_panel(title, [curves[key] for key in keys if key in curves]) for title, keys in panels.items()]
    rows = [np.concatenate(drawn[k : k + 2], axis=1) for k in range(0, len(drawn), 2)]
    save_png(np.concatenate(rows), args.out)
    print(args.out)


def read_curves(run: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Scalar name -> (steps, values), of all parts of a resumed training; of a step that was repeated, the last."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        points = {event.step: event.value for event in events.Scalars(tag)}
        steps = np.array(sorted(points))
        curves[tag] = (steps, np.array([points[step] for step in steps]))
    return curves


def _panel(title: str, lines: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    width, height = PANEL
    page = Image.new("RGB", PANEL, "white")
    draw = ImageDraw.Draw(page)
    draw.text((8, 4), title, fill="black")
    left, top, right, bottom = 52, 24, width - 10, height - 22
    draw.rectangle((left, top, right, bottom), outline=(180, 180, 180))
    if not lines:
        draw.text((left + 8, top + 8), "not used", fill=(120, 120, 120))
        return np.asarray(page)
    low = min(float(values.min()) for _, values in lines)
    high = max(float(values.max()) for _, values in lines)
    last = max(int(steps.max()) for steps, _ in lines)
    scale = (high - low) or 1.0
    for value, y in ((high, top), (low, bottom - 10)):
        draw.text((4, y), f"{value:.3g}", fill=(80, 80, 80))
    draw.text((left, bottom + 4), "0", fill=(80, 80, 80))
    draw.text((right - 40, bottom + 4), str(last), fill=(80, 80, 80))
    for (steps, values), color in zip(lines, COLORS, strict=False):
        x = left + steps / last * (right - left)
        pale = tuple((channel + 2 * 255) // 3 for channel in color)
        for y_values, shade, thick in ((values, pale, 1), (_smooth(values), color, 2)):
            y = bottom - (y_values - low) / scale * (bottom - top)
            draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=shade, width=thick)
    return np.asarray(page)


def _smooth(values: np.ndarray) -> np.ndarray:
    window = max(1, len(values) // 15)
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")


if __name__ == "__main__":
    main()
