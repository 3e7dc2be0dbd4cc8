from .atlas import load_atlas
from .convnets import ConvNet, convolutional
from .data import Dataset, load_data, two_classes
from .initialization import Initialization, get_initialization, non_lazy
from .networks import FCN, fully_connected
from .stability import Stability, lazy_ratio, perturbation_stability, stability_by_gram, uniform_in_ball
from .training import Run, gradient_descent, is_untrained, paper_lr, stepped_lr, train

__version__: str

__all__ = [
    "FCN",
    "ConvNet",
    "Dataset",
    "Initialization",
    "Run",
    "Stability",
    "convolutional",
    "fully_connected",
    "get_initialization",
    "gradient_descent",
    "is_untrained",
    "lazy_ratio",
    "load_atlas",
    "load_data",
    "non_lazy",
    "paper_lr",
    "perturbation_stability",
    "stability_by_gram",
    "stepped_lr",
    "train",
    "two_classes",
    "uniform_in_ball",
]
