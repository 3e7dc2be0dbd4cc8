"""Train small networks side by side and measure their average robustness."""

from importlib.metadata import version

import lazy_loader

# What the package offers is named in __init__.pyi, and imported when it is first used: torch takes two seconds, and not all need it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("robustnb")
