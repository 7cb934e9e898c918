"""The doctor of datasets: reads every file once and says all that is wrong with it."""

from clade.data.doctor.checking import check
from clade.data.doctor.report import Report
from clade.data.doctor.splits import SplitReport

__all__ = ["Report", "SplitReport", "check"]
