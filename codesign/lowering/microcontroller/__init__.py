"""Layers for small processors: integers with channels last in microkernels of C, floats with blocks of sums."""
