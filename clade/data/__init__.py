"""Datasets, what is done to their pictures, and the batches that come of it."""

from clade.data.base import DATASETS, Batch, Dataset, Sample, create_dataset
from clade.data.chosen import Chosen
from clade.data.datasets.ade20k import ADE20KDataset, ADE20KOutdoorDataset
from clade.data.datasets.camvid import CamVidDataset
from clade.data.datasets.ccp import CCPDataset
from clade.data.datasets.celebamask_hq import CelebAMaskHQDataset
from clade.data.datasets.cityscapes import CityscapesDataset
from clade.data.datasets.coco_stuff import COCOStuffDataset
from clade.data.datasets.deepfashion import DeepFashionDataset
from clade.data.datasets.drawn import ScenesDataset
from clade.data.datasets.folder import FolderDataset
from clade.data.doctor import Report, check
from clade.data.files import FileDataset, find_layout, layouts
from clade.data.loading import Cached, Stream, eval_loader, train_loader
from clade.data.photos import read_photo
from clade.data.prepared import PreparedDataset, is_prepared, prepare
from clade.data.resized import Resized
from clade.data.transforms import Augment, plain_resize, to_batch

__all__ = [
    "DATASETS",
    "ADE20KDataset",
    "ADE20KOutdoorDataset",
    "Augment",
    "Batch",
    "CCPDataset",
    "COCOStuffDataset",
    "Cached",
    "CamVidDataset",
    "CelebAMaskHQDataset",
    "Chosen",
    "CityscapesDataset",
    "Dataset",
    "DeepFashionDataset",
    "FileDataset",
    "FolderDataset",
    "PreparedDataset",
    "Report",
    "Resized",
    "Sample",
    "ScenesDataset",
    "Stream",
    "check",
    "create_dataset",
    "eval_loader",
    "find_layout",
    "is_prepared",
    "layouts",
    "plain_resize",
    "prepare",
    "read_photo",
    "to_batch",
    "train_loader",
]
