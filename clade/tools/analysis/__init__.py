"""``clade analyze``: section 3.1 on a trained generator. How much of gamma and beta does the class alone decide?"""

from clade.tools.analysis.analyzing import Choice, analyze
from clade.tools.analysis.layers import modulation_layers
from clade.tools.analysis.moments import Histogram, Moments
from clade.tools.analysis.result import (
    Analysis,
    Bins,
    ClassSpread,
    Factor,
    LayerResult,
    Picture,
    PictureRow,
    Share,
    Spread,
)

__all__ = [
    "Analysis",
    "Bins",
    "Choice",
    "ClassSpread",
    "Factor",
    "Histogram",
    "LayerResult",
    "Moments",
    "Picture",
    "PictureRow",
    "Share",
    "Spread",
    "analyze",
    "modulation_layers",
]
