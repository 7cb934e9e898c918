"""``clade data convert``: label maps in the forms that other tools write -> the folder layout of docs/data.md."""

from clade.data.convert import coco, labelme, layouts, masks, panoptic, parts, voc, yolo  # noqa: F401  (they register)
from clade.data.convert.base import CONVERTERS, formats
from clade.data.convert.running import convert
from clade.data.convert.summary import ConvertReport

__all__ = ["CONVERTERS", "ConvertReport", "convert", "formats"]
