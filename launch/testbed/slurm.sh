#!/usr/bin/env bash
# Slurm on the nodes of a test bed that is up (testbed.sh): a controller on node 1, and a daemon on every node. Needs
# root. See docs/testbed.md.
#
#   slurm.sh up           start it; says what to source, and how to submit a job
#   slurm.sh check        whether this machine has what it takes; says what is missing
#   slurm.sh start NODE   on a node that was killed and started again
#   slurm.sh down | status
#
# With --name NAME, on the test bed of that name ("main" without it). All it makes is below the folder of the test bed,
# in `slurm`; its daemons are processes of the nodes and end with them.
set -euo pipefail
# shellcheck source=launch/testbed/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/testbed/nodes.sh
. "$HERE/nodes.sh"

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
}

check() {
    MISSING=()
    need slurmctld slurmctld
    need slurmd slurmd
    need sbatch slurm-client
    need munged munge
    # Loaded by Slurm itself for `srun --mpi=pmix`.
    pmix_libraries > /dev/null || MISSING+=(libpmix2)
    [ ${#MISSING[@]} -eq 0 ] ||
        fail "missing: apt-get install --no-install-recommends $(printf '%s\n' "${MISSING[@]}" | sort --unique | tr '\n' ' ')"
}

# pmix_libraries: the folder in which Debian's Slurm looks for `libpmix.so`.
pmix_libraries() {
    local folder
    for folder in /usr/lib/*-linux-gnu/pmix2/lib; do
        if [ -e "$folder/libpmix.so.2" ]; then
            printf '%s' "$folder"
            return
        fi
    done
    return 1
}

# Nodes are small: what would keep a cluster calm would make a test wait. A job is alone on its nodes.
write_configuration() {
    local node
    cat << END
ClusterName=$NAME
SlurmctldHost=$(host_name 1)($(address 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$SOCKET
CredType=cred/munge
StateSaveLocation=$HOME_OF_SLURM/state
SlurmctldPidFile=/run/slurmctld.pid
SlurmctldLogFile=$HOME_OF_SLURM/slurmctld.log
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/run/slurmd
SlurmdLogFile=$HOME_OF_SLURM/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/linear
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=30
MailProg=/bin/true
EnforcePartLimits=NO
END
    for ((node = 1; node <= $(cat "$STATE/node_count"); node++)); do
        echo "NodeName=$(host_name "$node") NodeAddr=$(address "$node") CPUs=$1 RealMemory=$2 State=UNKNOWN"
    done
    echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP"
}

up() {
    local node slots memory_mib
    check
    [ ! -e "$HOME_OF_SLURM" ] || fail "Slurm is there already: \`slurm.sh down --name $NAME\` first"
    trap 'undo $?' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -m 755 "$HOME_OF_SLURM"
    mkdir -m 700 "$HOME_OF_SLURM/state"
    (umask 077 && head -c 1024 /dev/urandom > "$HOME_OF_SLURM/munge.key")
    slots=$(sed -n '1s/.*slots=//p' "$STATE/hosts")
    memory_mib=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
    write_configuration "$slots" "$memory_mib" > "$SLURM_CONF"
    # Nodes have /tmp in common, where every node would make the same folder for a step.
    echo "PMIxCliTmpDirBase=/run/slurm-pmix" > "$HOME_OF_SLURM/mpi.conf"
    write_environment > "$HOME_OF_SLURM/env.sh"
    make_pmix_folder
    for ((node = 1; node <= $(cat "$STATE/node_count"); node++)); do
        start_daemons "$node"
    done
    wait_for 60 all_idle || fail "the nodes do not get idle: see $HOME_OF_SLURM/*.log"
    trap - EXIT INT TERM HUP
    say "Slurm is up: . $STATE/env.sh; . $HOME_OF_SLURM/env.sh; testbed.sh --name $NAME exec 1 sbatch --chdir=FOLDER launch/slurm.sbatch"
}

# Debian's Slurm opens `libpmix.so`, a name that only the package for developers has. Nodes get a folder with it in the
# place of the machine's, which stays as it is.
make_pmix_folder() {
    cp -a "$(pmix_libraries)" "$HOME_OF_SLURM/pmix"
    [ -e "$HOME_OF_SLURM/pmix/libpmix.so" ] || ln -s libpmix.so.2 "$HOME_OF_SLURM/pmix/libpmix.so"
}

write_environment() {
    cat << END
# What Slurm's commands on the nodes of test bed $NAME have to be told; to be sourced.
export SLURM_CONF='$SLURM_CONF'
END
}

# start_daemons NODE
start_daemons() {
    local log=$STATE/nodes/$1/log
    in_node "$1" mount --bind "$HOME_OF_SLURM/pmix" "$(pmix_libraries)"
    in_node "$1" mkdir -p -m 755 /run/munge /run/slurmd /run/slurm-pmix
    quietly "$1" munged --force --key-file="$HOME_OF_SLURM/munge.key" --socket="$SOCKET" --pid-file=/run/munge/munged.pid \
        --log-file="$log/munged" --seed-file=/run/munge/seed
    [ "$1" != 1 ] || quietly 1 slurmctld -f "$SLURM_CONF"
    quietly "$1" slurmd -f "$SLURM_CONF"
}

# quietly NODE COMMAND...: a daemon on a node; what it says is told when it does not start.
quietly() {
    local node=$1 said=$STATE/nodes/$1/log/$2.out
    shift
    in_node "$node" env -i PATH="$PATH" "$@" > "$said" 2>&1 < /dev/null || fail "$1 does not start on node $node: $(tail -n 3 "$said")"
}

# on_first COMMAND...: a command of Slurm's on node 1.
on_first() {
    SLURM_CONF=$SLURM_CONF in_node 1 "$@"
}

all_idle() {
    [ "$(on_first sinfo --noheader --Node --format '%T' | grep -c '^idle$')" = "$(cat "$STATE/node_count")" ]
}

# undo CODE: a half-made Slurm is taken away; what went wrong has been said.
undo() {
    trap - EXIT
    trap '' INT TERM HUP
    say "not up; taking away what was made" >&2
    down
    exit "$(($1 == 0 ? 1 : $1))"
}

# end_daemons NODE: those that run there, and the steps of jobs.
end_daemons() {
    node_pids "$1" > /dev/null || return 0
    local daemon
    for daemon in slurmctld slurmd slurmstepd munged; do
        in_node "$1" pkill -KILL -x "$daemon" || true
    done
    ! in_node "$1" mountpoint --quiet "$(pmix_libraries)" || in_node "$1" umount --lazy "$(pmix_libraries)"
    in_node "$1" rm -rf /run/munge /run/slurmd /run/slurm-pmix /run/slurmd.pid /run/slurmctld.pid
}

down() {
    local node
    if [ ! -e "$HOME_OF_SLURM" ]; then
        say "there is no Slurm on test bed $NAME"
        return
    fi
    for ((node = 1; node <= $(cat "$STATE/node_count"); node++)); do
        end_daemons "$node"
    done
    rm -rf --one-file-system -- "$HOME_OF_SLURM"
    say "Slurm on test bed $NAME is gone"
}

main() {
    split_name "" "$@"
    set -- "${ARGUMENTS[@]}"
    case ${1:-help} in help | -h | --help) usage && return ;; esac
    use_name "$GIVEN_NAME"
    HOME_OF_SLURM=$STATE/slurm
    SLURM_CONF=$HOME_OF_SLURM/slurm.conf
    SOCKET=/run/munge/munge.socket.2
    case $1 in
        check) check && return ;;
        up | down | status | start) ;;
        *) fail "no command $1; slurm.sh help tells all" ;;
    esac
    need_root
    need_state
    SUBNET=$(cat "$STATE/subnet")
    case $1 in
        up) up && return ;;
        down) down && return ;;
    esac
    [ -e "$HOME_OF_SLURM" ] || fail "there is no Slurm on test bed $NAME: start it with \`slurm.sh up --name $NAME\`"
    case $1 in
        status) on_first sinfo --Node --long && on_first squeue ;;
        start) need_node "${2:-}"; start_daemons "$2" ;;
    esac
}

main "$@"
