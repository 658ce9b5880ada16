# shellcheck shell=bash
# A Ceph cluster, whatever it is for: its configuration and keys, its daemons, and ending them. Sourced.
#
# Whoever sources it sets CEPH (the cluster's folder), CEPH_ADDRESS and CEPH_PORT (the monitor's; those of the daemons
# are the next CEPH_PORTS), exports CEPH_CONF, and has `on_server COMMAND...`, which runs a command where the daemons run.
# shellcheck disable=SC2154  # what the caller sets

# prepare_cluster COPIES: its folder, which only its owner may read, and what all daemons are told. What single ones are
# told is added to CEPH_CONF afterwards.
prepare_cluster() {
    [ -d "$CEPH" ] || mkdir -m 700 "$CEPH"
    mkdir -m 700 "$CEPH/run" "$CEPH/log"
    FSID=$(cat /proc/sys/kernel/random/uuid)
    # A few threads and a few groups of objects: what would serve a cluster takes longer to start than a test lasts.
    cat > "$CEPH_CONF" << END
[global]
fsid = $FSID
mon host = v2:$CEPH_ADDRESS:$CEPH_PORT/0
public addr = $CEPH_ADDRESS
cluster addr = $CEPH_ADDRESS
ms bind msgr1 = false
ms bind port min = $((CEPH_PORT + 1))
ms bind port max = $((CEPH_PORT + CEPH_PORTS))
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $CEPH/keyring
run dir = $CEPH/run
admin socket = $CEPH/run/\$name.asok
pid file = $CEPH/run/\$name.pid
log file = $CEPH/log/\$name.log
osd pool default size = $1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1
auth allow insecure global id reclaim = false
[mon.a]
mon data = $CEPH/mon
[mgr.a]
mgr data = $CEPH/mgr
END
    mkdir "$CEPH/mon" "$CEPH/mgr"
    chmod 600 "$CEPH_CONF"
    on_ceph ceph-authtool --create-keyring "$CEPH/keyring" --gen-key -n mon. --cap mon 'allow *'
    make_key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *'
    make_key mgr.a --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
}

# make_key NAME CAPABILITIES...: before the monitor starts, which takes them in.
make_key() {
    on_ceph ceph-authtool "$CEPH/keyring" --gen-key -n "$@"
}

# prepare_osd NUMBER [LINES]: its key, its folder and what it is told.
prepare_osd() {
    make_key "osd.$1" --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
    mkdir "$CEPH/osd.$1"
    printf '[osd.%s]\nosd data = %s\n%s\n' "$1" "$CEPH/osd.$1" "$2" >> "$CEPH_CONF"
}

# start_cluster OSDS: monitor, manager, and OSDs 0 to OSDS - 1.
start_cluster() {
    local osd uuid
    on_ceph monmaptool --create --addv a "[v2:$CEPH_ADDRESS:$CEPH_PORT]" --fsid "$FSID" "$CEPH/monmap"
    on_ceph ceph-mon --mkfs -i a --monmap "$CEPH/monmap" --keyring "$CEPH/keyring"
    start_daemon mon.a
    wait_for 30 on_server timeout 10 ceph -s || fail "the monitor does not start: see $CEPH/log"
    start_daemon mgr.a
    for ((osd = 0; osd < $1; osd++)); do
        uuid=$(cat /proc/sys/kernel/random/uuid)
        on_ceph ceph osd new "$uuid" "$osd"
        on_ceph ceph-osd -i "$osd" --mkfs --osd-uuid "$uuid"
        start_daemon "osd.$osd"
    done
}

# on_ceph COMMAND...: what it says is kept, and told when it fails.
on_ceph() {
    on_server "$@" >> "$CEPH/log/$1.out" 2>&1 || fail "$1 failed: $(tail -n 3 "$CEPH/log/$1.out")"
}

# start_daemon TYPE.ID
start_daemon() {
    on_ceph "ceph-${1%%.*}" -i "${1#*.}"
}

# daemon_pid DAEMON: its process, if it is one of this cluster's; its number may be another's by now.
daemon_pid() {
    local pid
    pid=$(cat "$CEPH/run/$1.pid" 2> /dev/null) && [ -n "$pid" ] || return 1
    on_server grep -qzF "CEPH_CONF=$CEPH_CONF" "/proc/$pid/environ" 2> /dev/null || return 1
    echo "$pid"
}

# signal_daemon DAEMON SIGNAL
signal_daemon() {
    local pid
    pid=$(daemon_pid "$1") || return 1
    on_server kill "-$2" "$pid"
}

is_gone() {
    ! daemon_pid "$1" > /dev/null
}

end_daemon() {
    # It may stand still.
    signal_daemon "$1" KILL 2> /dev/null || return 0
    wait_for 20 is_gone "$1" || fail "$1 does not end"
}

# write_gateway DAEMON FOLDER PORT: what an S3 gateway is told, on loopback. What was deleted of an object behind its first
# 4 MiB goes within seconds: as usual, it would stay for two hours.
write_gateway() {
    cat >> "$CEPH_CONF" << END
[$1]
rgw data = $2
rgw frontends = beast endpoint=127.0.0.1:$3 tcp_nodelay=1
rgw gc obj min wait = 1
rgw gc processor period = 2
rgw gc processor max time = 2
debug rgw = 0/0
END
}

# make_user FOLDER: in its user.json. The server makes up the keys itself: given on its command line, every user of the
# machine could read them.
make_user() (
    umask 077
    on_server radosgw-admin user create --uid kvbench --display-name kvbench > "$1/user.json" 2> "$CEPH/log/radosgw-admin.out" ||
        fail "no user can be made: $(tail -n 3 "$CEPH/log/radosgw-admin.out")"
)

# made_key FOLDER NAME: a key of the user.
made_key() {
    # In JSON a slash may have a backslash before it, which no key has.
    sed -n "s/^ *\"$2\": \"\([^\"]*\)\".*/\1/p" "$1/user.json" | head -n 1 | tr -d "\\\\"
}

# write_keys FOLDER PORT WHERE: its env.sh, which only its owner may read.
write_keys() (
    umask 077
    cat > "$1/env.sh" << END
# Where the S3 server of $3 is, and its keys; to be sourced.
export AWS_ENDPOINT_URL=http://127.0.0.1:$2 AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=$(made_key "$1" access_key) AWS_SECRET_ACCESS_KEY=$(made_key "$1" secret_key)
END
)

# make_bucket FOLDER BUCKET: signed with the keys of its env.sh.
make_bucket() (
    # shellcheck source=/dev/null
    . "$1/env.sh"
    curl --silent --show-error --fail --max-time 10 --config - --request PUT "$AWS_ENDPOINT_URL/$2" << END
user = "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
aws-sigv4 = "aws:amz:$AWS_REGION:s3"
header = "x-amz-content-sha256: $(printf '' | sha256sum | cut -d ' ' -f 1)"
END
)
