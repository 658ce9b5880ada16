# shellcheck shell=bash
# shellcheck disable=SC2034  # names that the other parts use
# The Ceph cluster of a test bed, in the storage node, and its filesystem (CephFS) on the other nodes. Sourced.
#
# Two OSDs, whose BlueStore lies in files on this machine's disk. Each node has a client of its own (ceph-fuse).

CEPH_CLIENT=kvbench
CEPH_OSDS=2

# use_ceph: names of the cluster's parts, and what ceph-cluster.sh wants to know.
use_ceph() {
    CEPH=$STATE/ceph
    CEPHFS=$STATE/cephfs
    CEPH_PORT=3300 CEPH_PORTS=40
    [ -z "${SUBNET:-}" ] || CEPH_ADDRESS=$(address "$STORAGE")
    export CEPH_CONF=$CEPH/ceph.conf
}

on_server() {
    in_node "$STORAGE" "$@"
}

has_ceph() {
    [ -d "$STATE/ceph" ]
}

# check_ceph: what this machine lacks for it is added to MISSING.
check_ceph() {
    need ceph-mon ceph-mon
    need ceph-mgr ceph-mgr
    need ceph-osd ceph-osd
    need ceph-mds ceph-mds
    need ceph-fuse ceph-fuse
    need ceph ceph-common
}

# start_ceph COPIES SIZE S3: SIZE is that of each OSD's file; S3 is `yes` where the nodes are to get a gateway each.
start_ceph() {
    local copies=$1 bytes osd
    bytes=$(numfmt --from=iec "$2" 2> /dev/null) || fail "--ceph-size $2: give a size such as 4G"
    prepare_cluster "$copies"
    # An OSD that dies is missed by those that it is connected to at once, and by others within so many seconds. A small one
    # that stops at the usual 95 % would be past its end before it notices. What it reads comes from its file: it keeps no
    # data in memory.
    cat >> "$CEPH_CONF" << END
[mon]
mon osd min down reporters = 1
mon osd nearfull ratio = .70
mon osd backfillfull ratio = .75
mon osd full ratio = .80
[osd]
osd heartbeat interval = 1
osd heartbeat grace = 4
osd memory target = 939524096
bluestore default buffered read = false
bluestore block size = $bytes
[client]
admin socket = $CEPH/run/\$name.\$host.asok
pid file = $CEPH/run/\$name.\$host.pid
log file = $CEPH/log/\$name.\$host.log
client mount timeout = 30
END
    for ((osd = 0; osd < CEPH_OSDS; osd++)); do
        prepare_osd "$osd" 'osd objectstore = bluestore'
    done
    mkdir "$CEPH/mds.a"
    printf '[mds.a]\nmds data = %s\n' "$CEPH/mds.a" >> "$CEPH_CONF"
    make_key mds.a --cap mon 'allow profile mds' --cap mgr 'allow profile mds' --cap osd 'allow rwx' --cap mds 'allow *'
    make_key "client.$CEPH_CLIENT" --cap mon 'allow r' --cap mds 'allow rwp' --cap osd 'allow rw tag cephfs *=*'
    [ "$3" = no ] || prepare_gateways
    start_cluster "$CEPH_OSDS"
    start_daemon mds.a
    on_ceph ceph osd pool create cephfs_metadata 8
    on_ceph ceph osd pool create cephfs_data 32
    on_ceph ceph fs new cephfs cephfs_metadata cephfs_data
    # As short as Ceph lets it be: for so long files that a client had open wait for it when it is gone.
    on_ceph ceph fs set cephfs session_timeout 30
    on_ceph ceph fs set cephfs session_autoclose 30
    wait_for 60 ceph_is_served || fail "the metadata server does not start: see $CEPH/log"
    [ "$3" = no ] || make_s3_user
}

ceph_is_served() {
    on_server timeout 10 ceph mds stat | grep -q 'up:active'
}

mount_cephfs() {
    in_node "$1" ceph-fuse --id "$CEPH_CLIENT" "$CEPHFS" >> "$CEPH/log/ceph-fuse.out" 2>&1 || true
    has_mounted "$1" "$CEPHFS" || fail "CephFS cannot be mounted on node $1: $(tail -n 3 "$CEPH/log/ceph-fuse.out")"
}

# need_daemon DAEMON
need_daemon() {
    has_ceph || fail "test bed $NAME has no Ceph cluster: make one with \`testbed.sh up --cephfs\`"
    [[ " $(ceph_daemons) " == *" ${1:-} "* ]] || fail "name a daemon: $(ceph_daemons)"
}

ceph_daemons() {
    local osd
    printf 'mon.a mgr.a mds.a'
    for ((osd = 0; osd < CEPH_OSDS; osd++)); do
        printf ' osd.%s' "$osd"
    done
}

# restart_ceph: after the storage node was killed.
restart_ceph() {
    local daemon
    for daemon in $(ceph_daemons); do
        start_daemon "$daemon"
    done
}
