#!/usr/bin/env bash
# Installs what launch/build.sh has built, one after the other, into a bare environment, and runs it there, from another folder.
#
#   bash launch/try-packages.sh [FOLDER]      dist, where none is named
#
# The wheel has to bring the compiled stopwatch, which every Python on the PATH from 3.11 on must be able to load. The archive is
# installed where there is no compiler, and its run has to say that it was timed in Python. PYTHON names the one to install for.
set -euo pipefail
# shellcheck source=launch/environment.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

folder=${1:-$ROOT/dist}
version=$(sed -n 's/^version = //p' "$ROOT/setup.cfg")
wheel=$(compgen -G "$folder/kvbench-$version-*.whl") || fail "no wheel of $version in $folder: bash launch/build.sh"
archive=$folder/kvbench-$version.tar.gz
[ -f "$archive" ] || fail "no $archive: bash launch/build.sh"
python=$(find_python)
bare=$(mktemp -d)
trap 'rm -rf -- "$bare"' EXIT

# try_package PACKAGE TIMER: a run of what PACKAGE installs, from another folder; and who timed it.
try_package() {
    local name=${1##*/} log=$bare/log here timer
    "$bare/venv/bin/python" -m pip install --no-compile "$1" > "$log" 2>&1 || fail "$name is not installed: $(tail -n 3 -- "$log")"
    here=$(mktemp -d -p "$bare")
    cd -- "$here"
    [ "$("$bare/venv/bin/kvbench" --version)" = "kvbench, version $version" ] || fail "$name: $("$bare/venv/bin/kvbench" --version)"
    "$bare/venv/bin/kvbench" run smoke --dir . --out run.h5 > "$log" 2>&1 || fail "$name does not run: $(tail -n 3 -- "$log")"
    "$bare/venv/bin/kvbench" summary run.h5 --json > summary.json
    timer=$("$bare/venv/bin/python" -c 'import json; print(json.load(open("summary.json"))["run"]["timer"])')
    [ "$timer" = "$2" ] || fail "$name: the run was timed by $timer, not by $2"
    say "$name: installed, run and summed up; timed by $timer"
    "$bare/venv/bin/python" -m pip uninstall --yes kvbench > /dev/null
}

# Extensions of the wheel alone, without what kvbench depends on.
LOAD='
import importlib.machinery, importlib.util, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.abi3.so")):
    loader = importlib.machinery.ExtensionFileLoader(path.name.partition(".")[0], str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
'

"$python" -m zipfile --extract "$wheel" "$bare/wheel"
for other in python3.{11..19}; do
    if type -P "$other" > /dev/null && "$other" -c '' 2> /dev/null; then
        "$other" -I -c "$LOAD" "$bare/wheel" || fail "$other cannot load the extensions of $wheel"
        say "$other loads the extensions of the wheel"
    fi
done

"$python" -m venv "$bare/venv"
(try_package "$wheel" extension)
# What is left of the wheel is what both depend on.
(CC=/nonexistent/cc try_package "$archive" python)
