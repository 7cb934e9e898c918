"""``clade convert``: a trained generator -> one of another kind, how near it is, and a fine-tune from there."""

from clade.tools.conversion.converting import CONVERSIONS, convert
from clade.tools.conversion.fitting import fit_tables
from clade.tools.conversion.halving import Difference, difference, halve
from clade.tools.conversion.keeping import Kept, KeptBlock, block_sizes, kept
from clade.tools.conversion.recipes import convert_checkpoint, converted_recipe, finetune_recipe

__all__ = [
    "CONVERSIONS",
    "Difference",
    "Kept",
    "KeptBlock",
    "block_sizes",
    "convert",
    "convert_checkpoint",
    "converted_recipe",
    "difference",
    "finetune_recipe",
    "fit_tables",
    "halve",
    "kept",
]
