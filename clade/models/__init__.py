"""Generators, discriminators, encoders."""

from clade.models import clade, spade
from clade.models.base import GENERATORS, Generator, create_generator, generator_options, list_generators
from clade.models.discriminators import DISCRIMINATORS, MultiscaleDiscriminator, discriminate
from clade.models.encoders import ConvEncoder

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "ConvEncoder",
    "Generator",
    "MultiscaleDiscriminator",
    "clade",
    "create_generator",
    "discriminate",
    "generator_options",
    "list_generators",
    "spade",
]
