"""Headway: make every thinking token count. Importing it loads no torch."""

from importlib.metadata import version

__version__ = version("headway")
