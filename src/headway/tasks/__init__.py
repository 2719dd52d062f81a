"""Procedural problems: made on the fly from a seed, checked exactly."""
