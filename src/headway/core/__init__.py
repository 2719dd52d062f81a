"""The mathematics: NumPy in, NumPy out. No model, no text, no I/O."""
