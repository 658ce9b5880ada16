#!/usr/bin/env bash
# An S3 server on this machine's loopback: Ceph's RADOS gateway, with a cluster of its own that keeps its objects in
# memory. Needs no root and no namespaces. See docs/testbed.md.
#
#   ceph.sh up [--port PORT] [--memory SIZE]   start it (17480, 8G), with a bucket `kvbench`; says what to source
#   ceph.sh check                    whether this machine has what it takes; says what is missing
#   ceph.sh down | status
#   ceph.sh stop | continue          the gateway stands still, and goes on
#   ceph.sh kill | restart           the gateway dies, and is started again with the same objects
#
# With --name NAME, several at a time ("main" without it). All it makes is below /var/tmp/kvbench-testbed/NAME.s3 (or
# KVBENCH_TESTBED_ROOT); of its ports, PORT is the gateway's, and those up to PORT + 9 are the cluster's.
set -euo pipefail
# shellcheck source=launch/testbed/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/testbed/ceph-cluster.sh
. "$HERE/ceph-cluster.sh"

BUCKET=kvbench
GATEWAY=client.rgw.a
DAEMONS=("$GATEWAY" osd.0 mgr.a mon.a)

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'
}

check() {
    MISSING=()
    need radosgw radosgw
    need radosgw-admin radosgw
    need ceph-mon ceph-mon
    need ceph-mgr ceph-mgr
    need ceph-osd ceph-osd
    need ceph ceph-common
    need curl curl
    [ ${#MISSING[@]} -eq 0 ] ||
        fail "missing: apt-get install --no-install-recommends $(printf '%s\n' "${MISSING[@]}" | sort --unique | tr '\n' ' ')"
}

on_server() {
    "$@"
}

up() {
    local memory=8G bytes
    PORT=17480
    while [ $# -gt 0 ]; do
        case $1 in
            --port) PORT=${2:-} && shift ;;
            --memory) memory=${2:-} && shift ;;
            *) fail "up: unknown option $1" ;;
        esac
        shift
    done
    [[ $PORT =~ ^[1-9][0-9]{3,4}$ && $PORT -le 65526 ]] || fail "--port $PORT: give a number from 1024 to 65526"
    bytes=$(numfmt --from=iec "$memory" 2> /dev/null) || fail "--memory $memory: give a size such as 8G"
    check
    [ ! -e "$STATE" ] || fail "$STATE is there already: \`ceph.sh down --name $NAME\` first, or take another --name"
    ! answers || fail "something listens on port $PORT already: give another --port"

    trap 'undo $?' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -p "$TESTBED_ROOT"
    mkdir -m 700 "$STATE" || fail "cannot make $STATE"
    touch "$STATE/$S3_MARKER"
    umask 077
    mkdir "$STATE/rgw"
    echo "$PORT" > "$STATE/port"
    use_ports
    prepare_cluster 1
    prepare_osd 0 "osd objectstore = memstore
memstore device bytes = $bytes"
    write_gateway "$GATEWAY" "$STATE/rgw" "$PORT"
    make_key "$GATEWAY" --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
    start_cluster 1
    start_gateway
    make_user "$STATE"
    write_keys "$STATE" "$PORT" "test bed $NAME"
    wait_for 30 make_bucket "$STATE" "$BUCKET" || fail "cannot make a bucket: see $STATE/log"
    trap - EXIT INT TERM HUP
    say "an S3 server is up on 127.0.0.1:$PORT: . $STATE/env.sh; kvbench doctor --dir s3://$BUCKET"
}

start_gateway() {
    on_ceph radosgw -n "$GATEWAY"
    wait_for 90 answers || fail "the gateway does not start: see $STATE/log"
}

answers() {
    curl --silent --max-time 5 --output /dev/null "http://127.0.0.1:$PORT/"
}

# undo CODE: a half-made server is taken away; what went wrong has been said.
undo() {
    trap - EXIT
    trap '' INT TERM HUP
    say "not up; taking away what was made" >&2
    down
    exit "$(($1 == 0 ? 1 : $1))"
}

down() {
    local daemon
    if [ ! -f "$STATE/$S3_MARKER" ]; then
        say "there is no S3 server $NAME"
        return
    fi
    for daemon in "${DAEMONS[@]}"; do
        end_daemon "$daemon"
    done
    rm -rf --one-file-system -- "$STATE"
    rmdir --ignore-fail-on-non-empty -- "$TESTBED_ROOT"
    say "S3 server $NAME is gone"
}

status() {
    local daemon
    say "S3 server $NAME on 127.0.0.1:$PORT, state in $STATE"
    for daemon in "${DAEMONS[@]}"; do
        say "$daemon: $(daemon_pid "$daemon" > /dev/null && echo running || echo 'not running')"
    done
}

# use_ports: those of the cluster, behind the gateway's.
use_ports() {
    CEPH_PORT=$((PORT + 1)) CEPH_PORTS=8
}

main() {
    split_name "" "$@"
    set -- "${ARGUMENTS[@]}"
    case ${1:-help} in help | -h | --help) usage && return ;; esac
    use_name "$GIVEN_NAME"
    STATE=$TESTBED_ROOT/$NAME.s3
    S3_MARKER=kvbench-s3
    CEPH=$STATE CEPH_ADDRESS=127.0.0.1
    export CEPH_CONF=$STATE/ceph.conf
    local command=$1
    shift
    case $command in
        up) up "$@" && return ;;
        check) check && return ;;
        down) down && return ;;
        status | stop | continue | kill | restart) ;;
        *) fail "no command $command; ceph.sh help tells all" ;;
    esac
    [ -f "$STATE/$S3_MARKER" ] || fail "there is no S3 server $NAME: make one with \`ceph.sh up --name $NAME\`"
    PORT=$(cat "$STATE/port")
    case $command in
        status) status ;;
        stop) signal_daemon "$GATEWAY" STOP || fail "the gateway does not run" ;;
        continue) signal_daemon "$GATEWAY" CONT || fail "the gateway does not run" ;;
        kill) signal_daemon "$GATEWAY" KILL || fail "the gateway does not run" ;;
        restart) is_gone "$GATEWAY" || fail "the gateway runs"; start_gateway ;;
    esac
}

main "$@"
