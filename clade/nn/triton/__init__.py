"""The modulation of :mod:`clade.nn.modulation` as Triton kernels."""
