"""Translation tasks: tiles, the batches drawn from them, and where they come from."""

from i2i_lib.facade import lazy

EXPORTS = {"Batch": "tiles", "load_task": "tasks", "save_task": "store", "load_saved_task": "store"}
__getattr__ = lazy(__name__, EXPORTS)
