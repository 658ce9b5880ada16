#!/usr/bin/env bash
# Sets kvbench up and runs a first benchmark: 2 ranks, about 10 s, against a directory that it makes and removes.
#
#   bash launch/quickstart.sh [options of `kvbench run`]
#
# Leaves kvbench-out/quickstart.h5 and its report quickstart.html beside the repository's files, and prints its summary.
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

set_up base
cd -- "$ROOT"
mkdir -p kvbench-out
directory=$(mktemp -d kvbench-out/storage.XXXXXX)
trap 'rm -rf -- "$ROOT/$directory"' EXIT
"$VENV/bin/python" -P -m kvbench run quickstart --ranks 2 --dir "$directory" --out kvbench-out/quickstart.h5 --overwrite "$@"
"$VENV/bin/python" -P -m kvbench report kvbench-out/quickstart.h5 --out kvbench-out/quickstart.html > /dev/null
say "the run is in $ROOT/kvbench-out/quickstart.h5, its report beside it in quickstart.html; \`. .venv/bin/activate\` brings the command kvbench"
