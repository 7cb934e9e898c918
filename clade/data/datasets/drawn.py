"""The built-in drawn scenes as a dataset: no files, any number, any size."""

from __future__ import annotations

from clade.data.base import DATASETS, Dataset, Sample
from clade.data.scenes import COLORS, NAMES, UNKNOWN, UNKNOWN_COLOR, draw_scene
from clade.errors import DataError
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match

SPLITS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""First scene of each split."""
_ROOM = 1_000_000  # scenes from one split to the next


@DATASETS.register("scenes")
class ScenesDataset(Dataset):
    """Drawn scenes (``clade.data.scenes``) with instances.

    Each split is a range of scene numbers of its own: splits never share a scene, whatever their lengths.

    Args:
        count: number of scenes in "train".
        start: where in the split's range to begin.
        seed: which series of scenes.
        height, width: size in pixels.
        split: "train", "val" or "test".
        val_count: number of scenes in "val" and in "test".

    Raises:
        DataError: no such split, or a range that would reach into the next split.
    """

    def __init__(
        self,
        count: int = 2000,
        start: int = 0,
        seed: int = 0,
        height: int = 128,
        width: int = 128,
        split: str = "train",
        val_count: int = 64,
    ) -> None:
        if split not in SPLITS:
            raise DataError(
                f"The scenes have no split {split!r}.{near_match(str(split), SPLITS)} Known: {', '.join(SPLITS)}."
            )
        length = count if split == "train" else val_count
        if length < 1 or start < 0 or start + length > _ROOM:
            raise DataError(
                f"{length} scenes from number {start} on do not fit into a split; "
                f"needed are at least 1 scene, start >= 0, and at most {_ROOM} for both together."
            )
        self.label_space = LabelSpace(names=NAMES, colors=COLORS, unknown=UNKNOWN, unknown_color=UNKNOWN_COLOR)
        self._scenes = range(SPLITS[split] + start, SPLITS[split] + start + length)
        self._drawing = {"seed": seed, "height": height, "width": width}

    def __len__(self) -> int:
        return len(self._scenes)

    def name(self, index: int) -> str:
        return f"scene-{self._scenes[index]:07d}"

    def read(self, index: int) -> Sample:
        """Draws the scene; raises CladeError for a size or seed that cannot be drawn."""
        scene = draw_scene(self._scenes[index], **self._drawing)
        name = self.name(index)
        return Sample(name, scene.image, self.label_space.encode(scene.ids, name), scene.instances)
