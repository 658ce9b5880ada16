#!/usr/bin/env bash
# Builds what others install: kvbench-VERSION.tar.gz, and of that one wheel for every Python from 3.11 on.
#
#   bash launch/build.sh [FOLDER]      dist, where none is named
#
# The wheel's name says how old a system it runs on: that of the C library here, so build on the oldest that shall have it.
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

EXTENSIONS=(kvbench/cache/chains/_core kvbench/cache/chains/_curves kvbench/timed_io/_stopwatch)

set_up release
folder=${1:-$ROOT/dist}
export PATH=$VENV/bin:$PATH
made=$(mktemp -d)
trap 'rm -rf -- "$made"' EXIT

# The wheel is built of the archive, which therefore holds all that it takes.
python -m build --outdir "$made/plain" "$ROOT" > "$made/log" 2>&1 || fail "no package is built: $(tail -n 3 -- "$made/log")"
wheel=$(compgen -G "$made/plain/*.whl")
names=$(python -m zipfile --list "$wheel")
for extension in "${EXTENSIONS[@]}"; do
    grep -q "^$extension.abi3.so " <<< "$names" || fail "the wheel has no $extension.abi3.so: it takes gcc and Python's headers"
done
abi3audit --strict "$wheel" > "$made/log" 2>&1 || fail "an extension leaves the limited API: $(tail -n 20 -- "$made/log")"
auditwheel repair --wheel-dir "$made/repaired" "$wheel" > "$made/log" 2>&1 || fail "auditwheel: $(tail -n 3 -- "$made/log")"

mkdir -p -- "$folder"
mv -- "$made"/plain/*.tar.gz "$made"/repaired/*.whl "$folder"
say "built in $folder:"
(cd -- "$folder" && ls -l -- kvbench-*)
