# The public names: what `import m2kd_lite` offers, and where each lives. Read at run time by lazy_loader, and by type checkers.
from . import checks, data, pictures, widgets
from .config import RunConfig
from .data import load_data
from .data.images import ImageSet
from .data.stream import ClassStream
from .errors import BadInput, DamagedFile, M2KDError
from .method.losses import auxiliary_loss, binary_cross_entropy, distillation_loss, total_loss
from .method.masks import active, check_lasting, free, kept_count, new_masks, prune
from .method.metrics import average_incremental_accuracy, confusion_matrix, forgetting
from .method.nets import IncrementalNet
from .method.snapshots import Snapshots
from .method.table import METHODS, Method
from .method.targets import batch_targets, no_teachers, own_step, penultimate, target_matrix
from .results.bank import load_bank
from .results.report import write_report
from .training.train import run

__all__ = ["METHODS", "BadInput", "ClassStream", "DamagedFile", "ImageSet", "IncrementalNet", "M2KDError", "Method", "RunConfig", "Snapshots",
           "active", "auxiliary_loss", "average_incremental_accuracy", "batch_targets", "binary_cross_entropy", "check_lasting", "checks",
           "confusion_matrix", "data", "distillation_loss", "forgetting", "free", "kept_count", "load_bank", "load_data",
           "new_masks", "no_teachers", "own_step", "penultimate", "pictures", "prune", "run", "target_matrix", "total_loss", "widgets",
           "write_report"]
__version__: str
