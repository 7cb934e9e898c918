"""User studies: which of two systems' pictures people find more realistic (section 4.5, Table 5).

``clade.tools.study.building.build`` makes one. It is not imported here: serving and counting need no torch.
"""

from clade.tools.study.report import Preference, Report, report
from clade.tools.study.study import Question, Screen, Study, plan, read_study

__all__ = ["Preference", "Question", "Report", "Screen", "Study", "plan", "read_study", "report"]
