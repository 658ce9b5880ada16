#!/usr/bin/env bash
# Sets kvbench up and runs a first benchmark: 2 ranks, about 10 s, against a directory that it makes and removes.
#
#   bash launch/quickstart.sh [options of `kvbench run`]
#
# Leaves kvbench-out/quickstart.h5 beside the repository's files, and prints its summary.
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

set_up base
cd -- "$ROOT"
mkdir -p kvbench-out
directory=$(mktemp -d kvbench-out/storage.XXXXXX)
trap 'rm -rf -- "$ROOT/$directory"' EXIT
"$VENV/bin/python" -m kvbench run quickstart --ranks 2 --dir "$directory" --out kvbench-out/quickstart.h5 --overwrite "$@"
say "the run is in $ROOT/kvbench-out/quickstart.h5; \`. .venv/bin/activate\` brings the command kvbench"
