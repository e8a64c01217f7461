"""Translation tasks: tiles, the batches drawn from them, and where they come from."""

from i2i_lib.facade import lazy

EXPORTS = {
    "Batch": "tiles",
    "Task": "tiles",
    "Tiles": "tiles",
    "encode": "tiles",
    "to_batch": "tiles",
    "paired_batches": "batches",
    "unpaired_batches": "batches",
    "load_task": "tasks",
    "load_saved_task": "store",
    "save_task": "store",
}
__getattr__ = lazy(__name__, EXPORTS)
