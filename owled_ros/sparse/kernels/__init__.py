"""The compiled kernels: C++ for the CPU (library.py calls them), Triton for GPUs."""
