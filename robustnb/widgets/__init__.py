"""Interactive parts of the book; all of them work in a page without a kernel."""

from .lab import Laboratory
from .slides import slides

__all__ = ["Laboratory", "slides"]
