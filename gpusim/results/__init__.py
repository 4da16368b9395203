"""Results of one run or of many runs as files, pictures, tables and pages.

This package reads engine records and computes no migration. It imports matplotlib only to draw.
"""

from gpusim.errors import ResultsError
from gpusim.results.evacuation_files import whole_evacuation, write_evacuation
from gpusim.results.plots.canvas import require_matplotlib
from gpusim.results.run_files import begin_run, read_summary, whole_run, write_failure, write_run

__all__ = [
    "ResultsError",
    "begin_run",
    "read_summary",
    "require_matplotlib",
    "whole_evacuation",
    "whole_run",
    "write_evacuation",
    "write_failure",
    "write_run",
]
