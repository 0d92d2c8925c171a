"""m2kd_lite: incremental learning by multi-model and multi-level knowledge distillation, small enough to read.

The package follows the paper (Zhou et al., BMVC 2020) one concept a module; start with `method/table.py`, the
table, and `training/train.py`, the algorithm. What most programs need has a name here, as `m2kd_lite.target_matrix`: `__init__.pyi`
lists them. Each is loaded when it is first used, so importing the package loads neither torch nor any data.
"""
import os
import sys

import lazy_loader

# Threads that wait by spinning are three times slower where other programs want the same cores (docs/measured.md). GNU's OpenMP, which
# torch brings on Linux, spins less if it is told so before it is loaded; alone, a run of a small network loses 8 %.
if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
