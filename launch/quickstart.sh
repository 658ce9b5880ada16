#!/usr/bin/env bash
# Sets kvbench up and runs a first benchmark: 2 ranks, about 10 s, against a directory that it makes and removes.
#
#   bash launch/quickstart.sh [options of `kvbench run`]
#
# Leaves kvbench-out/quickstart.h5 and its report quickstart.html beside the repository's files, and prints the point of it and what to do next.
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

# Where to look now, and what to do next, to be typed as it stands.
out=$(printf %q "$ROOT/kvbench-out")
cat << END
kvbench: look at it next:
    $out/quickstart.html       the report, in a browser
    . $(printf %q "$VENV")/bin/activate       brings the command kvbench
    kvbench summary $out/quickstart.h5       every figure
kvbench: then, for a verdict on a drive of yours, minutes on it, from more ranks and nodes:
    kvbench doctor --dir DIR
    kvbench run sessions --ranks 4 --dir DIR --out mine.h5
    mpirun -n 8 --hostfile HOSTS kvbench run sessions --dir DIR --out all.h5
END
