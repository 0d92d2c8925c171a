"""m2kd_lite: incremental learning by multi-model and multi-level knowledge distillation, small enough to read.

The package follows the paper (Zhou et al., BMVC 2020) one concept a module; start with `methods.py`, the table, and
`train.py`, the algorithm. Importing the package loads neither torch nor any data.
"""
__version__ = "0.1.0"
