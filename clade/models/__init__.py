"""Generators, discriminators, encoders."""

from clade.models.base import GENERATORS, Generator, create_generator, generator_options, list_generators
from clade.models.discriminators.fpse import FpseDiscriminator
from clade.models.discriminators.multiscale import DISCRIMINATORS, MultiscaleDiscriminator, discriminate
from clade.models.discriminators.segmentation import SegmentationDiscriminator
from clade.models.encoders.group import GroupEncoder
from clade.models.encoders.region import RegionEncoder
from clade.models.encoders.style import ConvEncoder
from clade.models.generators import cc_fpse, clade, dagan, groupdnet, pix2pixhd, sean, spade

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "ConvEncoder",
    "FpseDiscriminator",
    "Generator",
    "GroupEncoder",
    "MultiscaleDiscriminator",
    "RegionEncoder",
    "SegmentationDiscriminator",
    "cc_fpse",
    "clade",
    "create_generator",
    "dagan",
    "discriminate",
    "generator_options",
    "groupdnet",
    "list_generators",
    "pix2pixhd",
    "sean",
    "spade",
]
