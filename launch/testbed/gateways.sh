# shellcheck shell=bash
# An S3 gateway (Ceph's RADOS gateway) on each node of a test bed, before its Ceph cluster. Sourced.
#
# Each listens on its node's loopback alone, where kvbench talks to a server without TLS, and all serve the same objects,
# which lie on the OSDs of cephfs.sh. One user, whose keys only the owner of the test bed can read.
# shellcheck disable=SC2154  # what the caller sets

S3_PORT=17480
S3_BUCKET=kvbench
GATEWAY=client.rgw

check_gateways() {
    need radosgw radosgw
    need radosgw-admin radosgw
    need curl curl
}

has_gateways() {
    [ -d "$STATE/s3" ]
}

# prepare_gateways: before the cluster starts.
prepare_gateways() {
    mkdir -m 700 "$STATE/s3"
    mkdir "$STATE/s3/data"
    write_gateway "$GATEWAY" "$STATE/s3/data" "$S3_PORT"
    make_key "$GATEWAY" --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
}

# make_s3_user: before the first gateway starts.
make_s3_user() {
    # As many groups of objects as CephFS has for its data, so that both lie on both OSDs.
    on_ceph ceph osd pool create default.rgw.buckets.data 32
    on_ceph ceph osd pool application enable default.rgw.buckets.data rgw
    make_user "$STATE/s3"
    write_keys "$STATE/s3" "$S3_PORT" "each node of test bed $NAME"
}

# start_gateway NODE
start_gateway() {
    in_node "$1" radosgw -n "$GATEWAY" >> "$CEPH/log/radosgw.out" 2>&1 || fail "no gateway on node $1: $(tail -n 3 "$CEPH/log/radosgw.out")"
    wait_for 90 in_node "$1" curl --silent --max-time 5 --output /dev/null "http://127.0.0.1:$S3_PORT/" ||
        fail "the gateway of node $1 does not start: see $CEPH/log"
    wait_for 30 make_bucket_on "$1" || fail "cannot make a bucket on node $1: see $CEPH/log"
}

# make_bucket_on NODE: the bucket is everybody's; who asks for one that he has is told that he has it.
make_bucket_on() {
    # shellcheck disable=SC2016  # the node's shell expands it
    in_node "$1" bash -c '. "$1/ceph-cluster.sh"; make_bucket "$2" "$3"' make-bucket "$HERE" "$STATE/s3" "$S3_BUCKET"
}
