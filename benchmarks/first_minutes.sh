#!/usr/bin/env bash
# The first minutes on a GPU: what only a GPU can say, in order of worth, into one folder of less than 16 MiB.
#
#   benchmarks/first_minutes.sh OUT [--minutes 12] [--rehearse]
#
# A checkout with its .venv is all it needs; PYTHON names another Python. See benchmarks/first_minutes.py.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD" OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
exec "${PYTHON:-.venv/bin/python}" benchmarks/first_minutes.py run "$@"
