"""Datasets, what is done to their pictures, and the batches that come of it."""

from clade.data.ade20k import ADE20KDataset, ADE20KOutdoorDataset
from clade.data.base import DATASETS, Batch, Dataset, Sample, create_dataset
from clade.data.camvid import CamVidDataset
from clade.data.ccp import CCPDataset
from clade.data.celebamask_hq import CelebAMaskHQDataset
from clade.data.chosen import Chosen
from clade.data.cityscapes import CityscapesDataset
from clade.data.coco_stuff import COCOStuffDataset
from clade.data.deepfashion import DeepFashionDataset
from clade.data.doctor import Report, check
from clade.data.drawn import ScenesDataset
from clade.data.files import FileDataset, find_layout, layouts
from clade.data.folder import FolderDataset
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
