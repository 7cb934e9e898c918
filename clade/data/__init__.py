"""Datasets, what is done to their pictures, and the batches that come of it."""

from clade.data.base import DATASETS, Batch, Dataset, Sample, create_dataset
from clade.data.doctor import Report, check
from clade.data.drawn import ScenesDataset
from clade.data.folder import FolderDataset, read_photo
from clade.data.loading import Cached, Stream, eval_loader, train_loader
from clade.data.transforms import Augment, plain_resize, to_batch

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "Cached",
    "Dataset",
    "FolderDataset",
    "Report",
    "Sample",
    "ScenesDataset",
    "Stream",
    "check",
    "create_dataset",
    "eval_loader",
    "plain_resize",
    "read_photo",
    "to_batch",
    "train_loader",
]
