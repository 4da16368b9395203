"""What a profile tells of its guest. See docs/design.md."""

from gpusim.errors import require


def require_scipy() -> None:
    """Check that scipy is installed, before anything is measured, fitted or written.

    Raises:
        ResultsError: it is not.
    """
    require("scipy", "predict", "fitting a guest: ")
