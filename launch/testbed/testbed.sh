#!/usr/bin/env bash
# Several client nodes on one Linux machine, with a GlusterFS volume, CephFS or both that they share. Needs root. See
# docs/testbed.md.
#
#   testbed.sh up [--nodes M] [--slots S] [--local-size SIZE] [--no-gluster]   bring it up (2 nodes, 2 slots each)
#              [--cephfs] [--ceph-copies N] [--ceph-size SIZE]   with a Ceph cluster (2 copies, 2 OSDs of 4G each)
#              [--s3]                       with that cluster, and an S3 gateway before it on each node
#   testbed.sh check [--no-gluster] [--cephfs] [--s3]     whether this machine has what it takes; says what is missing
#   testbed.sh down | status | list
#   testbed.sh run OPTIONS...           mpirun with the test bed's hostfile and environment
#   testbed.sh exec NODE COMMAND...     a command on a node (1 to M, or storage)
#   testbed.sh cut NODE | restore NODE  pull its network cable, and put it back
#   testbed.sh kill NODE                end the node and all that runs on it, at once
#   testbed.sh start NODE               start a killed node again
#   testbed.sh mount NODE [cephfs] | unmount NODE [cephfs]            the shared volume, or CephFS
#   testbed.sh stop-storage | continue-storage                        the GlusterFS server stands still, and goes on
#   testbed.sh kill-storage | restart-storage                         it dies, and is started again
#   testbed.sh stop-ceph DAEMON | continue-ceph DAEMON                the same for a daemon of the Ceph cluster: mon.a,
#   testbed.sh kill-ceph DAEMON | restart-ceph DAEMON                 mgr.a, mds.a, osd.0, osd.1
#
# Before the command's own arguments: --name NAME, for several test beds at a time ("main" without it). All it makes
# is below /var/tmp/kvbench-testbed/NAME (or KVBENCH_TESTBED_ROOT), in namespaces, and network interfaces kvb-NAME*.
set -euo pipefail
# shellcheck source=launch/testbed/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/testbed/nodes.sh
. "$HERE/nodes.sh"
# shellcheck source=launch/testbed/gluster.sh
. "$HERE/gluster.sh"
# shellcheck source=launch/testbed/ceph-cluster.sh
. "$HERE/ceph-cluster.sh"
# shellcheck source=launch/testbed/cephfs.sh
. "$HERE/cephfs.sh"
# shellcheck source=launch/testbed/gateways.sh
. "$HERE/gateways.sh"

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
}

# wait_for_ssh NODE: until its sshd lets in.
wait_for_ssh() {
    wait_for 20 ssh -F "$STATE/ssh_config" "$(address "$1")" true || fail "no ssh to node $1: see $STATE/nodes/$1/log/sshd"
}

up() {
    local nodes=2 slots=2 with_gluster=yes with_ceph=no with_s3=no ceph_copies=2 ceph_size=4G local_size='' node
    while [ $# -gt 0 ]; do
        case $1 in
            --nodes) nodes=${2:-} && shift ;;
            --slots) slots=${2:-} && shift ;;
            --local-size) local_size=${2:-} && shift ;;
            --no-gluster) with_gluster=no ;;
            --cephfs) with_ceph=yes ;;
            --s3) with_ceph=yes with_s3=yes ;;
            --ceph-copies) ceph_copies=${2:-} && shift ;;
            --ceph-size) ceph_size=${2:-} && shift ;;
            *) fail "up: unknown option $1" ;;
        esac
        shift
    done
    [[ $nodes =~ ^[1-9][0-9]?$ ]] || fail "--nodes $nodes: give a number from 1 to 99"
    [[ $slots =~ ^[1-9][0-9]{0,3}$ ]] || fail "--slots $slots: give the number of ranks of a node"
    [[ $ceph_copies =~ ^[12]$ ]] || fail "--ceph-copies $ceph_copies: give 1 or 2, as there are 2 OSDs"
    check_machine "$with_gluster" "$with_ceph" "$with_s3"
    [ -z "$local_size" ] || type -P mkfs.ext4 > /dev/null || fail "missing: apt-get install e2fsprogs"
    ! exists || fail "test bed $NAME is there already: \`testbed.sh down --name $NAME\` first, or take another --name"
    ! ip link show "$BRIDGE" > /dev/null 2>&1 || fail "there is a network interface $BRIDGE already: take another --name"
    [ ! -e "$STATE" ] || fail "$STATE is there, and no test bed: remove it, or take another --name"

    trap 'undo $?' EXIT
    trap 'exit 130' INT TERM HUP
    # Another test bed that goes away may take the folder of all test beds along in between.
    wait_for 2 make_state || fail "cannot make $STATE"
    touch "$STATE/$MARKER"
    # Two that come up at once take turns here, so that they do not take the same addresses.
    exec 9< "$TESTBED_ROOT"
    flock 9
    SUBNET=$(choose_subnet)
    echo "$SUBNET" > "$STATE/subnet"
    exec 9<&-
    echo "$nodes" > "$STATE/node_count"
    use_ceph
    mkdir "$STATE/local" "$STATE/shared" "$STATE/cephfs" "$STATE/nodes"
    make_keys
    write_names "$nodes" "$with_gluster$with_ceph" > "$STATE/etc-hosts"
    make_bridge
    [ "$with_gluster$with_ceph" = nono ] || start_node "$STORAGE"
    [ "$with_gluster" = no ] || start_storage
    [ "$with_ceph" = no ] || start_ceph "$ceph_copies" "$ceph_size" "$with_s3"
    for ((node = 1; node <= nodes; node++)); do
        prepare_ssh "$node"
        [ -z "$local_size" ] || make_local_image "$node" "$local_size"
        start_node "$node"
        mount_all "$node"
    done
    write_hosts "$nodes" "$slots" > "$STATE/hosts"
    write_environment > "$STATE/env.sh"
    for ((node = 1; node <= nodes; node++)); do
        wait_for_ssh "$node"
    done
    trap - EXIT INT TERM HUP
    say "$nodes nodes are up: . $STATE/env.sh; mpirun --hostfile $STATE/hosts -n $((nodes * slots)) kvbench run CONFIG --dir $LOCAL"
    [ "$with_gluster" = no ] || say "the GlusterFS volume that they share: --dir $SHARED"
    [ "$with_ceph" = no ] || say "the CephFS that they share: --dir $CEPHFS"
    [ "$with_s3" = no ] || say "the bucket that they share: . $STATE/s3/env.sh; --dir s3://$S3_BUCKET"
}

# check_up OPTIONS...: what `up` would say is missing.
check_up() {
    local with_gluster=yes with_ceph=no with_s3=no
    [[ " $* " != *' --no-gluster '* ]] || with_gluster=no
    [[ " $* " != *' --cephfs '* ]] || with_ceph=yes
    [[ " $* " != *' --s3 '* ]] || with_ceph=yes with_s3=yes
    check_machine "$with_gluster" "$with_ceph" "$with_s3"
}

has_gluster() {
    [ -d "$STATE/brick" ]
}

# mount_all NODE: what the nodes share.
mount_all() {
    ! has_gluster || mount_shared "$1"
    ! has_ceph || mount_cephfs "$1"
    ! has_gateways || start_gateway "$1"
}

make_state() {
    mkdir -p "$TESTBED_ROOT" && mkdir -m 755 "$STATE"
}

# undo CODE: a half-made test bed is taken away; what went wrong has been said.
undo() {
    trap - EXIT
    trap '' INT TERM HUP
    say "not up; taking away what was made" >&2
    down
    exit "$(($1 == 0 ? 1 : $1))"
}

make_keys() {
    mkdir -m 700 "$STATE/ssh"
    ssh-keygen -q -t ed25519 -N '' -C "kvbench test bed $NAME" -f "$STATE/ssh/key"
    ssh-keygen -q -t ed25519 -N '' -C "kvbench test bed $NAME" -f "$STATE/ssh/host_key"
    cp "$STATE/ssh/key.pub" "$STATE/ssh/authorized_keys"
    printf '%s.* %s\n' "$SUBNET" "$(cut -d ' ' -f 1,2 "$STATE/ssh/host_key.pub")" > "$STATE/ssh/known_hosts"
    cat > "$STATE/ssh_config" << END
Host *
    User root
    IdentityFile $STATE/ssh/key
    IdentitiesOnly yes
    UserKnownHostsFile $STATE/ssh/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
    ConnectTimeout 10
    LogLevel ERROR
END
}

# prepare_ssh NODE: one server that listens on the node's address alone and takes the test bed's key alone.
prepare_ssh() {
    mkdir -p "$STATE/nodes/$1"
    cat > "$STATE/nodes/$1/sshd_config" << END
ListenAddress $(address "$1")
HostKey $STATE/ssh/host_key
AuthorizedKeysFile $STATE/ssh/authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
# The keys lie below /var/tmp, which everybody may write to, in a folder that only root can enter.
StrictModes no
PrintMotd no
MaxStartups 100
END
}

make_local_image() {
    mkdir -p "$STATE/nodes/$1"
    truncate -s "$2" "$STATE/nodes/$1/local.img" || fail "--local-size $2: give a size such as 2G"
    mkfs.ext4 -q -m 0 "$STATE/nodes/$1/local.img"
}

# write_names NODES SHARED: the nodes' /etc/hosts; SHARED is `nono` where there is no storage node.
write_names() {
    local node
    printf '127.0.0.1 localhost\n'
    for ((node = 1; node <= $1; node++)); do
        printf '%s %s\n' "$(address "$node")" "$(host_name "$node")"
    done
    [ "$2" = nono ] || printf '%s %s\n' "$(address "$STORAGE")" "$(host_name "$STORAGE")"
}

write_hosts() {
    local node
    for ((node = 1; node <= $1; node++)); do
        printf '%s slots=%s\n' "$(address "$node")" "$2"
    done
}

write_environment() {
    cat << END
# What Open MPI has to be told to start ranks on the nodes of test bed $NAME; to be sourced.
export KVBENCH_TESTBED='$STATE' KVBENCH_TESTBED_LOCAL='$LOCAL' KVBENCH_TESTBED_SHARED='$(! has_gluster || printf '%s' "$SHARED")'
export KVBENCH_TESTBED_CEPHFS='$(! has_ceph || printf '%s' "$CEPHFS")' KVBENCH_TESTBED_S3='$(! has_gateways || printf 's3://%s' "$S3_BUCKET")'
export PRTE_MCA_plm_ssh_args='-F $STATE/ssh_config'
export PRTE_MCA_prte_if_include='$SUBNET.0/24'
export OMPI_MCA_btl_tcp_if_include='$SUBNET.0/24'
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,sm,tcp
# Nodes find the programs that the caller finds.
export PRTE_MCA_prte_fwd_environment=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Nodes share this machine's processors: no rank is bound to one, and there may be more ranks than processors.
export PRTE_MCA_hwloc_default_binding_policy=none PRTE_MCA_rmaps_default_mapping_policy=slot:OVERSUBSCRIBE
END
}

# Removes what a test bed of this name made, however far that got.
down() {
    if ! exists; then
        say "there is no test bed $NAME"
        return
    fi
    kill_nodes
    remove_network
    local mounted
    mounted=$(awk -v top="$STATE/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo)
    [ -z "$mounted" ] || fail "something is mounted here that the test bed did not mount; unmount it and repeat: $mounted"
    rm -rf --one-file-system -- "$STATE"
    rmdir --ignore-fail-on-non-empty -- "$TESTBED_ROOT"
    say "test bed $NAME is gone"
}

status() {
    need_state
    local home node state
    say "test bed $NAME: $SUBNET.0/24 on $BRIDGE, state in $STATE"
    for home in "$STATE"/nodes/*/; do
        node=$(basename "$home")
        if ! node_pids "$node" > /dev/null; then
            state="not running"
        elif ip link show "$(cable "$node")" | grep -q 'state DOWN'; then
            state="running, network cut"
        else
            state="running"
        fi
        if [ "$node" != "$STORAGE" ] && [[ $state == running* ]]; then
            ! has_gluster || state+=", volume $(has_mounted "$node" "$SHARED" || printf 'not ')mounted"
            ! has_ceph || state+=", CephFS $(has_mounted "$node" "$CEPHFS" || printf 'not ')mounted"
        fi
        say "node $node ($(host_name "$node"), $(address "$node"), clock ahead by $(cat "$home/clock_offset_s" 2> /dev/null || echo 0) s): $state"
    done
    has_ceph || return 0
    for node in $(ceph_daemons); do
        say "$node of the Ceph cluster: $(daemon_pid "$node" > /dev/null 2>&1 && echo running || echo 'not running')"
    done
}

list() {
    local home
    for home in "$TESTBED_ROOT"/*/; do
        [ ! -f "$home/$MARKER" ] || basename "$home"
    done
}

main() {
    split_name "exec run" "$@"
    set -- "${ARGUMENTS[@]}"
    case ${1:-help} in help | -h | --help) usage && return ;; esac
    use_name "$GIVEN_NAME"
    local command=$1
    shift
    case $command in
        list) list && return ;;
        up | check | down | status | run | exec | cut | restore | kill | start | mount | unmount) ;;
        stop-storage | continue-storage | kill-storage | restart-storage) ;;
        stop-ceph | continue-ceph | kill-ceph | restart-ceph) ;;
        *) fail "no command $command; testbed.sh help tells all" ;;
    esac
    need_root
    case $command in
        up) up "$@" && return ;;
        check)
            check_up "$@"
            return
            ;;
        down) down && return ;;
    esac
    need_state
    SUBNET=$(cat "$STATE/subnet")
    use_ceph
    case $command in
        status) status ;;
        run)
            # shellcheck source=/dev/null
            . "$STATE/env.sh"
            exec mpirun --hostfile "$STATE/hosts" "$@"
            ;;
        exec) need_node "${1:-}"; in_node "$@" ;;
        cut) need_node "${1:-}"; ip link set "$(cable "$1")" down ;;
        restore) need_node "${1:-}"; ip link set "$(cable "$1")" up ;;
        kill) need_node "${1:-}"; kill_nodes "$1" ;;
        start)
            need_node "${1:-}"
            no_nodes "$1" || fail "node $1 is running"
            wait_for 10 no_cable "$1" || ip link delete "$(cable "$1")"
            rm -f "$STATE/nodes/$1/connected"
            start_node "$1"
            [ "$1" != "$STORAGE" ] || ! has_gluster || restart_storage
            [ "$1" != "$STORAGE" ] || ! has_ceph || restart_ceph
            [ "$1" = "$STORAGE" ] || { wait_for_ssh "$1" && mount_all "$1"; }
            ;;
        mount) need_node "${1:-}"; if [ "${2:-}" = cephfs ]; then mount_cephfs "$1"; else mount_shared "$1"; fi ;;
        unmount) need_node "${1:-}"; in_node "$1" umount "$([ "${2:-}" = cephfs ] && echo "$CEPHFS" || echo "$SHARED")" ;;
        stop-storage) need_node "$STORAGE"; signal_storage STOP ;;
        continue-storage) need_node "$STORAGE"; signal_storage CONT ;;
        kill-storage) need_node "$STORAGE"; kill_storage ;;
        restart-storage) need_node "$STORAGE"; restart_storage ;;
        *-ceph)
            need_daemon "${1:-}"
            case $command in
                stop-ceph) signal_daemon "$1" STOP || fail "$1 does not run" ;;
                continue-ceph) signal_daemon "$1" CONT || fail "$1 does not run" ;;
                kill-ceph) ! is_gone "$1" || fail "$1 does not run"; end_daemon "$1" ;;
                restart-ceph) is_gone "$1" || fail "$1 runs"; start_daemon "$1" ;;
            esac
            ;;
    esac
}

no_cable() {
    ! ip link show "$(cable "$1")" > /dev/null 2>&1
}

main "$@"
