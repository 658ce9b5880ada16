#!/usr/bin/env bash
# Sets kvbench up with what its tests need, and runs them all.
#
#   bash launch/test.sh [--mpi mpich|impi-rt] [options of pytest]
#
# --mpi: with that MPI of the package index (impi-rt is Intel's) in the place of the usual one, in .venv-NAME.
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

set_up dev
cd -- "$ROOT"
export PATH=$VENV/bin:$PATH
if [ "${1:-}" = --mpi ]; then
    other_mpi "${2:-}"
    export PATH=$ROOT/.venv-$2/bin:$PATH
    shift 2
fi
# Tests start kvbench hundreds of times, which would be compiled each time.
unset PYTHONDONTWRITEBYTECODE
# Tests look after that themselves.
unset PYTHONSAFEPATH
exec python -m pytest "$@"
