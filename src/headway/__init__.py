"""Headway: make every thinking token count.

The public names are in `__init__.pyi`, in the order of the pipeline; each is loaded when it is first used, so that
`import headway` is fast and loads no torch.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("headway")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
