"""Generators, discriminators, encoders."""

from clade.models import cc_fpse, clade, dagan, groupdnet, pix2pixhd, sean, spade
from clade.models.base import GENERATORS, Generator, create_generator, generator_options, list_generators
from clade.models.discriminators import DISCRIMINATORS, MultiscaleDiscriminator, discriminate
from clade.models.encoders import ConvEncoder
from clade.models.fpse import FpseDiscriminator
from clade.models.group_encoder import GroupEncoder
from clade.models.region_encoder import RegionEncoder
from clade.models.segmentation_discriminator import SegmentationDiscriminator

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
