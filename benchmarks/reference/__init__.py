"""CLADE, CLADE-ICPE, SPADE, their discriminator and training step as published: what our speed is measured against.

In our own words, from the facts of the published code (tzt101/CLADE, NVlabs/SPADE): eager, float32, channels first, a
one-hot label map that every layer resizes and reads by itself, spectral norm computed in every forward. State dicts
have the published key names, so ``clade.import_official`` takes them.
"""

from benchmarks.reference.discriminator import ReferenceDiscriminator
from benchmarks.reference.generator import KINDS, ReferenceGenerator, one_hot
from benchmarks.reference.training import ReferenceTraining

__all__ = ["KINDS", "ReferenceDiscriminator", "ReferenceGenerator", "ReferenceTraining", "one_hot"]
