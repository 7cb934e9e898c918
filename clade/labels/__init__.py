"""Label maps: files, ids, positions, and the pyramid that networks read."""

from clade.labels.files import label_array, read_instances, read_label
from clade.labels.labelmap import LabelMap, nearest
from clade.labels.labelspace import LabelSpace
from clade.labels.positions import positions
from clade.labels.pyramid import LabelPyramid, instance_edges

__all__ = [
    "LabelMap",
    "LabelPyramid",
    "LabelSpace",
    "instance_edges",
    "label_array",
    "nearest",
    "positions",
    "read_instances",
    "read_label",
]
