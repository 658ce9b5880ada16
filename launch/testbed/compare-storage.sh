#!/usr/bin/env bash
# The multi-node comparison: node-local disk against GlusterFS, CephFS and S3, 2 nodes x 2 ranks, on a test bed made for
# it. Needs root.
#
#   compare-storage.sh [--repeats N] [--out DIR] [--paths "buffered direct"] [--shared "gluster cephfs s3"]
#                      [options of `kvbench run`, such as --set ...]
#
# Runs take turns between the storages, N times (5 without the option), for each read path. On each shared one the ranks of
# a node then read what those of the other have just written, but for S3: kvbench shares no objects of a bucket yet. S3 is
# Ceph's, with a gateway on each node; it has no paths, and runs once in each turn. Leaves the run files in DIR (kvbench-out/compare-storage) and
# prints the tables of docs/findings.md, made from what `kvbench compare` and `kvbench summary` say. All are on the same
# disk of this machine, one copy of each object: the difference is the filesystem, its network, its processes, and where it
# caches. `kvbench compare` refuses runs that did not do the same work; compare_objects.py does that for S3.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd -- "$here/../.." && pwd -P)
repeats=5 out=kvbench-out/compare-storage paths='buffered direct' shared='gluster cephfs s3' name=compare

while [ $# -gt 0 ]; do
    case $1 in
        --repeats) repeats=$2 && shift 2 ;;
        --out) out=$2 && shift 2 ;;
        --paths) paths=$2 && shift 2 ;;
        --shared) shared=$2 && shift 2 ;;
        *) break ;;
    esac
done

[ ! -x "$root/.venv/bin/kvbench" ] || export PATH=$root/.venv/bin:$PATH
type -P kvbench > /dev/null || { echo "compare-storage: kvbench is not installed: bash launch/quickstart.sh sets it up" >&2 && exit 1; }
mkdir -p -- "$out"
out=$(cd -- "$out" && pwd -P)
testbed() {
    bash "$here/testbed.sh" --name "$name" "$@"
}

options=()
[[ " $shared " == *' gluster '* ]] || options+=(--no-gluster)
[[ ! " $shared " =~ \ (cephfs|s3)\  ]] || options+=(--cephfs --ceph-copies 1)
[[ " $shared " != *' s3 '* ]] || options+=(--s3)
filesystems=()
for target in $shared; do
    [[ $target =~ ^(gluster|cephfs|s3)$ ]] || { echo "compare-storage: --shared $target: give gluster, cephfs, s3 or several" >&2 && exit 1; }
    [ "$target" = s3 ] || filesystems+=("$target")
done
# What S3 is compared with: the disk without memory before it, where that is measured.
beside=${paths%% *}
[[ " $paths " != *' direct '* ]] || beside=direct

trap 'testbed down' EXIT
testbed up --nodes 2 --slots 2 "${options[@]}"
# shellcheck source=/dev/null
. "${KVBENCH_TESTBED_ROOT:-/var/tmp/kvbench-testbed}/$name/env.sh"
if [ -n "$KVBENCH_TESTBED_S3" ]; then
    # shellcheck source=/dev/null
    . "$KVBENCH_TESTBED/s3/env.sh"
fi
if [[ " $shared " == *' gluster '* ]]; then
    # With O_DIRECT the server reads from its disk too, and not from its memory.
    testbed exec storage gluster --mode=script volume set kvbench performance.strict-o-direct on > /dev/null
    testbed exec storage gluster --mode=script volume set kvbench network.remote-dio disable > /dev/null
fi

# run TARGET PATH REPEAT [options]: one run. On a machine that is busy beyond measure, mpirun may not get its nodes to start
# in time: that is tried again.
run() {
    local target=$1 path=$2 label=$1-$2-$3 directory expected=shared attempt moving
    shift 3
    moving=(--set "io.read_path=$path" --set "io.write_path=$path")
    case $target in
        local) directory=$KVBENCH_TESTBED_LOCAL expected=local ;;
        gluster) directory=$KVBENCH_TESTBED_SHARED ;;
        cephfs) directory=$KVBENCH_TESTBED_CEPHFS ;;
        # One request at a time for each thread, as with files.
        s3) directory=$KVBENCH_TESTBED_S3 moving=(--set tiers.0.kind=object --set io.depth=1) ;;
    esac
    for attempt in 1 2 3; do
        if mpirun --hostfile "$KVBENCH_TESTBED/hosts" -n 4 kvbench run "$here/compare-storage.yaml" --dir "$directory" \
            --expect "$expected" --out "$out/$label.h5" --overwrite "${moving[@]}" "$@" > "$out/$label.txt" 2> "$out/$label.err"; then
            echo "compare-storage: $label: $(sed -n "s/^\(storage reads: .*\) (.*device.*/\1/p" "$out/$label.txt")"
            return
        fi
        tail -n 20 "$out/$label.txt" "$out/$label.err" >&2
        grep -q 'daemon failed to report back' "$out/$label.txt" "$out/$label.err" || break
        echo "compare-storage: $label: mpirun did not start its nodes (attempt $attempt of 3)" >&2
    done
    return 1
}

for ((repeat = 1; repeat <= repeats; repeat++)); do
    echo "compare-storage: turn $repeat of $repeats, load average $(cut -d ' ' -f 1 /proc/loadavg)" | tee -a "$out/load.txt"
    for path in $paths; do
        for target in local "${filesystems[@]}"; do
            run "$target" "$path" "$repeat" "$@"
        done
        if [ "$path" = "$beside" ] && [ -n "$KVBENCH_TESTBED_S3" ]; then
            run s3 requests "$repeat" "$@"
        fi
    done
done
for target in "${filesystems[@]}"; do
    run "$target" direct across-nodes "$@" --set namespace=shared --set roles=prefill=0-1,decode=2-3
done

tables=() across=() splits=()
for path in $paths; do
    for target in local "${filesystems[@]}"; do
        splits+=("$out/$target-$path"-[0-9]*.h5)
    done
done
for target in "${filesystems[@]}"; do
    kvbench summary --json "$out/$target-direct-across-nodes.h5" > "$out/$target-across-nodes.json"
    across+=("$target=$out/$target-across-nodes.json")
    for path in $paths; do
        compared=("$out"/local-"$path"-[0-9]*.h5 --vs "$out/$target-$path"-[0-9]*.h5)
        kvbench compare "${compared[@]}" > "$out/compare-$target-$path.txt"
        kvbench compare --json "${compared[@]}" > "$out/compare-$target-$path.json"
        tables+=("$target,$path=$out/compare-$target-$path.json")
    done
done
objects=()
if [ -n "$KVBENCH_TESTBED_S3" ]; then
    splits+=("$out"/s3-requests-[0-9]*.h5)
    objects=(--files "$out"/local-"$beside"-[0-9]*.h5 --objects "$out"/s3-requests-[0-9]*.h5)
fi
{
    [ ${#tables[@]} -eq 0 ] || { python3 "$here/compare_table.py" "${tables[@]}" --across-nodes "${across[@]}" && echo; }
    python3 "$here/compare_objects.py" --split "${splits[@]}" "${objects[@]}"
} | tee "$out/table.md"
echo "compare-storage: the run files, and all that kvbench compare says of them, are in $out"
