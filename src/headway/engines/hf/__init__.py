"""The transformers engine."""

from headway.engines.hf.engine import HFEngine, load

__all__ = ["HFEngine", "load"]
