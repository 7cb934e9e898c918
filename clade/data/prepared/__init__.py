"""Datasets packed for training at one size: pictures decoded and resized once, stored without loss."""

from clade.data.prepared.dataset import PreparedDataset, is_prepared, prepared_with, require_raw
from clade.data.prepared.manifest import MANIFEST
from clade.data.prepared.packing import Prepared, prepare

__all__ = ["MANIFEST", "Prepared", "PreparedDataset", "is_prepared", "prepare", "prepared_with", "require_raw"]
