"""What a trained generator's pictures are worth: one checkpoint's scores, and tables over many."""

from clade.evaluation.comparing import Comparison, compare
from clade.evaluation.evaluating import evaluate
from clade.evaluation.result import Evaluation

__all__ = ["Comparison", "Evaluation", "compare", "evaluate"]
