"""Download the Inception weights of FID and KID: `python -m i2i_lib.metrics`."""

import sys
from pathlib import Path

import torch

from i2i_lib.metrics.networks.literature import INCEPTION_FILES, INCEPTION_PREFIX


def main() -> int:
    """Download the Inception weights, 91 MiB, to where torch-fidelity looks for them; returns the exit status."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    target = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILES[0]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), hash_prefix=INCEPTION_PREFIX)
    except (OSError, RuntimeError) as error:
        print(f"error: {URL_INCEPTION_V3} could not be fetched: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
