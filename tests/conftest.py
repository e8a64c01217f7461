"""One thread for every numeric library, which would wait for each other where the machine is busy.

A `make` that a test starts is nobody's child, also where `make test` runs the tests: it says what a user's says.
"""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
for variable in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(variable, None)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: those of an archive hold the time, and two workers must collect the same tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
def server(monkeypatch):
    """A server of this machine behind the addresses of two data sets."""
    from server import serving  # which loads what the variables above are for

    from i2i_lib.data import downloads

    with serving() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        for name, file in (("horse2zebra", "horse2zebra.zip"), ("maps", "maps.tar.gz")):
            real = downloads.SOURCES[name]
            monkeypatch.setitem(downloads.SOURCES, name, downloads.Source(f"{address}/{file}", real.holds, real.about))
        monkeypatch.setattr(downloads, "CHUNK", 1000)
        yield server
