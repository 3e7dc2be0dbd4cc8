"""Interactive parts of the book."""

from .lab import Laboratory

__all__ = ["Laboratory"]
