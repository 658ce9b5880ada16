#!/usr/bin/env bash
# Runs kvbench on the nodes of a PBS job (PBS Professional, OpenPBS). See docs/clusters.md.
#
#   qsub -v KVBENCH_DIR=/mnt/cache,KVBENCH_EXPECT=shared launch/pbs.sh
#
# Read from the environment: KVBENCH_DIR (directory under test, needed), KVBENCH_CONFIG (personas), KVBENCH_OUT
# (kvbench-JOB.h5), KVBENCH_EXPECT (shared or local; nothing), KVBENCH_OPTIONS (more options of `kvbench run`),
# KVBENCH_VENV (.venv where the job was submitted, if it is there), KVBENCH_SECONDS (1680: after so many the run is asked
# to end in good order; a little less than the walltime, at which PBS kills).
#
#PBS -N kvbench
#PBS -l select=2:ncpus=32:mpiprocs=4:mem=128gb
#PBS -l place=scatter:exclhost
#PBS -l walltime=00:30:00
#PBS -j oe
set -euo pipefail

cd -- "${PBS_O_WORKDIR:-.}"
directory=${KVBENCH_DIR:?kvbench: KVBENCH_DIR has to name the directory under test}
venv=${KVBENCH_VENV:-.venv}
[ ! -x "$venv/bin/kvbench" ] || PATH=$(cd -- "$venv/bin" && pwd -P):$PATH
export PATH
expect=()
[ -z "${KVBENCH_EXPECT:-}" ] || expect=(--expect "$KVBENCH_EXPECT")
read -r -a options <<< "${KVBENCH_OPTIONS:-}"

# PBS names a host once for each rank that it is to have (mpiprocs).
ranks=$(wc -l < "$PBS_NODEFILE")
hosts=$(mktemp)
trap 'rm -f -- "$hosts"' EXIT
sort --unique -- "$PBS_NODEFILE" > "$hosts"

# Every node by itself first: what is missing on one is said before the run starts.
case $(mpirun --version) in
    *'Open MPI'*) mpirun -n "$(wc -l < "$hosts")" --hostfile "$hosts" -x PATH kvbench doctor --dir "$directory" ;;
    *) mpirun -n "$(wc -l < "$hosts")" -ppn 1 -f "$hosts" kvbench doctor --dir "$directory" ;;
esac

# --ranks starts the mpirun that belongs to this Python, without binding. SIGTERM makes it end in good order.
timeout --foreground --signal=TERM "${KVBENCH_SECONDS:-1680}" \
    kvbench run "${KVBENCH_CONFIG:-personas}" --ranks "$ranks" --hostfile "$PBS_NODEFILE" --dir "$directory" \
    --out "${KVBENCH_OUT:-kvbench-${PBS_JOBID:-job}.h5}" "${expect[@]}" "${options[@]}"
