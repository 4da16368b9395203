"""What a run leaves on disk, and what many runs say together: files, pictures, tables and pages.

Nothing here decides anything: results come in as records.Result and go out as files. matplotlib is
imported only when a picture is drawn.
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
