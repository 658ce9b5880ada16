# shellcheck shell=bash
# The GlusterFS server of a test bed, in a node of its own, and its volume on the other nodes. Sourced.
#
# The server's work directory, logs and sockets are the node's own (node-init.sh), and its ports are on the node's
# address: a GlusterFS server of the machine itself is not disturbed.

VOLUME=kvbench

start_storage() {
    mkdir -p "$STATE/brick"
    in_node "$STORAGE" glusterd
    wait_for 30 gluster volume list || fail "glusterd does not start: $(tail -n 1 "$STATE/nodes/$STORAGE/glusterfs/glusterd.log")"
    gluster volume create "$VOLUME" "$(address "$STORAGE"):$STATE/brick" force > /dev/null
    gluster volume start "$VOLUME" > /dev/null
}

# gluster ARGUMENTS...: the management command, on the server.
gluster() {
    in_node "$STORAGE" "$(type -P gluster)" --mode=script "$@"
}

mount_shared() {
    in_node "$1" mount -t glusterfs "$(address "$STORAGE"):/$VOLUME" "$SHARED"
    has_mounted "$1" "$SHARED" || fail "the volume cannot be mounted on node $1: see $STATE/nodes/$1/glusterfs"
}

# signal_storage SIGNAL: to the server's processes, not to process 1 of their node.
signal_storage() {
    in_node "$STORAGE" pkill "-$1" '^gluster' || fail "no GlusterFS process runs on the storage node"
}

kill_storage() {
    signal_storage KILL
}

restart_storage() {
    in_node "$STORAGE" pgrep '^glusterd$' > /dev/null || in_node "$STORAGE" glusterd
    wait_for 30 gluster volume list || fail "glusterd does not start again"
    gluster volume start "$VOLUME" force > /dev/null
}
