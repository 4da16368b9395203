"""What a run leaves on disk: its files, its picture, and the picture of several runs together.

Nothing here decides anything: results come in as records.Result and go out as files. matplotlib is
imported only when a picture is drawn.
"""

from gpusim.results.evacuation import write_evacuation
from gpusim.results.files import read_summary, write_failure, write_run
from gpusim.results.plot import require_matplotlib
from gpusim.results.whole import ResultsError

__all__ = [
    "ResultsError",
    "read_summary",
    "require_matplotlib",
    "write_evacuation",
    "write_failure",
    "write_run",
]
