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

# A few threads and a few groups of objects: what would serve a cluster takes longer to start than a test lasts.
write_configuration() {
    cat << END
[global]
fsid = $1
mon host = v2:127.0.0.1:$((PORT + 1))/0
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = $((PORT + 2))
ms bind port max = $((PORT + 9))
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $STATE/keyring
run dir = $STATE/run
admin socket = $STATE/run/\$name.asok
pid file = $STATE/run/\$name.pid
log file = $STATE/log/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 1
[mon.a]
mon data = $STATE/mon
[mgr.a]
mgr data = $STATE/mgr
[osd.0]
osd data = $STATE/osd
osd objectstore = memstore
memstore device bytes = $2
[$GATEWAY]
rgw data = $STATE/rgw
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
debug rgw = 0/0
END
}

up() {
    local memory=8G bytes fsid osd
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
    mkdir "$STATE/mon" "$STATE/mgr" "$STATE/osd" "$STATE/rgw" "$STATE/run" "$STATE/log"
    echo "$PORT" > "$STATE/port"
    fsid=$(cat /proc/sys/kernel/random/uuid)
    osd=$(cat /proc/sys/kernel/random/uuid)
    write_configuration "$fsid" "$bytes" > "$CEPH_CONF"
    make_keys
    quietly monmaptool --create --addv a "[v2:127.0.0.1:$((PORT + 1))]" --fsid "$fsid" "$STATE/monmap"
    quietly ceph-mon --mkfs -i a --monmap "$STATE/monmap" --keyring "$STATE/keyring"
    quietly ceph-mon -i a
    wait_for 30 timeout 10 ceph -s || fail "the monitor does not start: see $STATE/log"
    quietly ceph-mgr -i a
    quietly ceph osd new "$osd"
    quietly ceph-osd -i 0 --mkfs --osd-uuid "$osd"
    quietly ceph-osd -i 0
    start_gateway
    # It makes up the keys itself: given on its command line, every user of the machine could read them.
    radosgw-admin user create --uid kvbench --display-name kvbench > "$STATE/user.json" 2> "$STATE/log/radosgw-admin.out" ||
        fail "no user can be made: $(tail -n 3 "$STATE/log/radosgw-admin.out")"
    write_environment "$(made_key access_key)" "$(made_key secret_key)" > "$STATE/env.sh"
    wait_for 30 make_bucket "$BUCKET" || fail "cannot make a bucket: see $STATE/log"
    trap - EXIT INT TERM HUP
    say "an S3 server is up on 127.0.0.1:$PORT: . $STATE/env.sh; kvbench doctor --dir s3://$BUCKET"
}

make_keys() {
    local keys=$STATE/keyring
    quietly ceph-authtool --create-keyring "$keys" --gen-key -n mon. --cap mon 'allow *'
    quietly ceph-authtool "$keys" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    quietly ceph-authtool "$keys" --gen-key -n mgr.a --cap mon 'allow profile mgr' --cap osd 'allow *'
    quietly ceph-authtool "$keys" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
    quietly ceph-authtool "$keys" --gen-key -n "$GATEWAY" --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
}

# made_key NAME: a key of the user.
made_key() {
    # In JSON a slash may have a backslash before it, which no key has.
    sed -n "s/^ *\"$1\": \"\([^\"]*\)\".*/\1/p" "$STATE/user.json" | head -n 1 | tr -d "\\\\"
}

start_gateway() {
    quietly radosgw -n "$GATEWAY"
    wait_for 90 answers || fail "the gateway does not start: see $STATE/log"
}

answers() {
    curl --silent --max-time 5 --output /dev/null "http://127.0.0.1:$PORT/"
}

# make_bucket NAME: signed with the keys of env.sh.
make_bucket() (
    # shellcheck source=/dev/null
    . "$STATE/env.sh"
    curl --silent --show-error --fail --max-time 10 --config - --request PUT "$AWS_ENDPOINT_URL/$1" << END
user = "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
aws-sigv4 = "aws:amz:$AWS_REGION:s3"
header = "x-amz-content-sha256: $(printf '' | sha256sum | cut -d ' ' -f 1)"
END
)

write_environment() {
    cat << END
# Where the S3 server of test bed $NAME is, and its keys; to be sourced.
export AWS_ENDPOINT_URL=http://127.0.0.1:$PORT AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=$1 AWS_SECRET_ACCESS_KEY=$2
END
}

# quietly COMMAND...: what it says is kept, and told when it fails.
quietly() {
    "$@" >> "$STATE/log/$1.out" 2>&1 || fail "$1 failed: $(tail -n 3 "$STATE/log/$1.out")"
}

# undo CODE: a half-made server is taken away; what went wrong has been said.
undo() {
    trap - EXIT
    trap '' INT TERM HUP
    say "not up; taking away what was made" >&2
    down
    exit "$(($1 == 0 ? 1 : $1))"
}

# daemon_pid DAEMON: its process, if it is one of this server's; its number may be another's by now.
daemon_pid() {
    local pid
    pid=$(cat "$STATE/run/$1.pid" 2> /dev/null) || return 1
    grep -qzF "CEPH_CONF=$CEPH_CONF" "/proc/$pid/environ" 2> /dev/null || return 1
    echo "$pid"
}

# signal_daemon DAEMON SIGNAL
signal_daemon() {
    local pid
    pid=$(daemon_pid "$1") || return 1
    kill "-$2" "$pid"
}

is_gone() {
    ! daemon_pid "$1"
}

end_daemon() {
    # It may stand still.
    signal_daemon "$1" KILL 2> /dev/null || return 0
    wait_for 20 is_gone "$1" || fail "$1 does not end"
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

main() {
    local name=main arguments=()
    while [ $# -gt 0 ]; do
        case $1 in
            --name) name=${2:-} && shift $(($# < 2 ? 1 : 2)) ;;
            --name=*) name=${1#*=} && shift ;;
            *) arguments+=("$1") && shift ;;
        esac
    done
    set -- "${arguments[@]}"
    case ${1:-help} in help | -h | --help) usage && return ;; esac
    use_name "$name"
    STATE=$TESTBED_ROOT/$NAME.s3
    S3_MARKER=kvbench-s3
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
