"""What the generators cost on a GPU: `python -m benchmarks.gpu`, see :mod:`benchmarks.gpu.__main__`."""
