"""Serve the built book on this machine only: `python -m i2i_book.serve PORT`."""

import sys
from errno import EACCES, EADDRINUSE
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from i2i_lib.commands import one_line_errors
from i2i_lib.files import root


@one_line_errors
def main(port: str) -> int:
    """Serve `_build/html` at the loopback address until Ctrl-C.

    Raises FileNotFoundError where no book was built, ValueError or OSError for a port that cannot be had.
    """
    html = root() / "_build" / "html"
    if not (html / "index.html").is_file():
        raise FileNotFoundError("no book has been built yet: `make book` makes it")
    if not port.isdigit() or int(port) > 65535:
        raise ValueError(f"PORT is a number up to 65535, got {port!r}")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), partial(SimpleHTTPRequestHandler, directory=str(html)))
    except OSError as error:
        if error.errno not in (EADDRINUSE, EACCES):
            raise
        raise OSError(f"port {port} is in use or reserved: choose another, as in `make serve PORT=8123`") from error
    with server:
        print(f"http://localhost:{server.server_port}, until Ctrl-C", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
