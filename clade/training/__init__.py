"""Training: one step is pure, the loop resumes exactly."""

from clade.training.fit import Result, train

__all__ = ["Result", "train"]
