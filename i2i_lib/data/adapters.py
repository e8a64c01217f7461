"""The module that makes each task. Light, so that the planner of a run can look it up."""

# The module beside this one, and the function there. Only the one needed is imported, so that a task depends on its own
# source alone.
LOADERS = {
    "earth": ("earth", "load_earth"),
    "earth-labels": ("earth_labels", "load_earth_labels"),
    "earth-unpaired": ("earth", "load_earth_unpaired"),
    "fluent": ("fluent", "load_fluent"),
    "fluent-outline": ("fluent", "load_fluent_outline"),
    "openmoji": ("openmoji", "load_openmoji"),
    "cityscapes": ("cityscapes", "load_cityscapes"),
    "folder": ("folders", "load_folder"),
    "horse2zebra": ("folders", "load_horse2zebra"),
    "zebra2horse": ("folders", "load_zebra2horse"),
    "maps": ("folders", "load_maps"),
}


def loader_module(name: str) -> str:
    """The module that makes a task. ValueError for an unknown name."""
    if name not in LOADERS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(sorted(LOADERS))}")
    return f"i2i_lib.data.{LOADERS[name][0]}"
