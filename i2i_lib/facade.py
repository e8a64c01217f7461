"""Names of a package, imported at their first use: `import i2i_lib.data.tiles` stays light."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, exports: dict[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `package` (PEP 562) that finds each name of `exports` in the submodule beside it."""

    def find(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{exports[name]}"), name)

    return find
