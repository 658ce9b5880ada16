#!/usr/bin/env bash
# Sets kvbench up with what its tests need, and runs them all.
#
#   bash launch/test.sh [options of pytest]
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

set_up dev
cd -- "$ROOT"
export PATH=$VENV/bin:$PATH
# Tests start kvbench hundreds of times, which would be compiled each time.
unset PYTHONDONTWRITEBYTECODE
# Tests look after that themselves.
unset PYTHONSAFEPATH
exec python -m pytest "$@"
