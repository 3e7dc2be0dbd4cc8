"""Train small networks side by side and measure their average robustness."""

from importlib.metadata import version

from .data import Dataset, load_data
from .initialization import Initialization, get_initialization, non_lazy
from .networks import FCN, fully_connected
from .stability import Stability, lazy_ratio, perturbation_stability, uniform_in_ball
from .training import Run, paper_lr, train

__version__ = version("robustnb")

__all__ = [
    "FCN",
    "Dataset",
    "Initialization",
    "Run",
    "Stability",
    "fully_connected",
    "get_initialization",
    "lazy_ratio",
    "load_data",
    "non_lazy",
    "paper_lr",
    "perturbation_stability",
    "train",
    "uniform_in_ball",
]
