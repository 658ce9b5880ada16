# shellcheck shell=bash
# The network and the nodes of a test bed. Sourced.
#
# A node is a process in namespaces of its own (network, host name, mounts, processes, IPC, clock): `unshare` and, as its
# child, node-init.sh, which is process 1 of the node. When that one is killed, the kernel ends every process of the
# node and drops its mounts and its end of the cable.

# Addresses: node I is 10.213.X.I, the storage server .253, this machine .254. X is the first that nobody uses.
STORAGE=storage

# Node I's CLOCK_MONOTONIC is ahead of this machine's by I times so many seconds: known, and different on each node.
CLOCK_STEP_S=100000

# choose_subnet: prints `10.213.X`, whose addresses no interface and no route of this machine has.
choose_subnet() {
    local used x
    used=$(ip -4 -o addr show; ip -4 route show table all; cat "$TESTBED_ROOT"/*/subnet 2> /dev/null || true)
    for ((x = 1; x < 255; x++)); do
        if ! grep -qF "10.213.$x." <<< "$used"; then
            printf '10.213.%s' "$x"
            return
        fi
    done
    fail "all of 10.213.0.0/16 is in use here: take down other test beds (testbed.sh list)"
}

make_bridge() {
    ip link add "$BRIDGE" type bridge
    # A bridge that learns slowly (spanning tree) or asks for IPv6 addresses would delay or say more than it should.
    echo 1 > "/proc/sys/net/ipv6/conf/$BRIDGE/disable_ipv6" 2> /dev/null || true
    ip addr add "$SUBNET.254/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
}

# address NODE
address() {
    [ "$1" = "$STORAGE" ] && printf '%s.253' "$SUBNET" || printf '%s.%s' "$SUBNET" "$1"
}

cable() {
    [ "$1" = "$STORAGE" ] && printf '%s-s' "$BRIDGE" || printf '%s-%s' "$BRIDGE" "$1"
}

host_name() {
    [ "$1" = "$STORAGE" ] && printf '%s-storage' "$NAME" || printf '%s-n%s' "$NAME" "$1"
}

# start_node NODE: its processes and network; NODE is a number or `storage`.
start_node() {
    local node=$1 home=$STATE/nodes/$1 clock=() pid
    mkdir -p "$home/local" "$home/log"
    if [ "$node" != "$STORAGE" ]; then
        echo $((node * CLOCK_STEP_S)) > "$home/clock_offset_s"
        clock=(--time --monotonic "$((node * CLOCK_STEP_S))" --boottime "$((node * CLOCK_STEP_S))")
    fi
    rm -f "$home/ready"
    setsid unshare --net --uts --ipc --mount --propagation slave --pid --fork --kill-child --mount-proc "${clock[@]}" \
        bash "$HERE/node-init.sh" "$STATE" "$node" "$(host_name "$node")" < /dev/null > "$home/log/init" 2>&1 &
    wait_for 20 node_pid "$node" || fail "node $node does not start: $(tail -n 1 "$home/log/init")"
    pid=$(node_pid "$node")
    ip link add "$(cable "$node")" type veth peer name eth0 netns "$pid"
    ip link set "$(cable "$node")" master "$BRIDGE" up
    in_node "$node" ip link set lo up
    in_node "$node" ip addr add "$(address "$node")/24" dev eth0
    in_node "$node" ip link set eth0 up
    touch "$home/connected"
    wait_for 30 test -e "$home/ready" || fail "node $node does not get ready: $(tail -n 1 "$home/log/init")"
}

# is_node PID NODE: whether a process is `node-init.sh STATE NODE ...` of this very test bed ("" for any node).
is_node() {
    local words=()
    mapfile -d '' -t words 2> /dev/null < "/proc/$1/cmdline" || return 1
    [ "${words[0]:-}" = bash ] && [ "${words[1]:-}" = "$HERE/node-init.sh" ] && [ "${words[2]:-}" = "$STATE" ] || return 1
    [ -z "$2" ] || [ "${words[3]:-}" = "$2" ]
}

# node_pids [NODE]: process 1 of the node, or of all nodes, as this machine numbers it.
node_pids() {
    local pid found=1
    # The state's path narrows it down; is_node then compares argument by argument.
    for pid in $(pgrep -f "node-init.sh $STATE " || true); do
        # Children of process 1 that have not become another program yet look like it.
        if is_node "$pid" "${1:-}" && [ "$(awk '/^NSpid:/ { print $NF }' "/proc/$pid/status" 2> /dev/null)" = 1 ]; then
            echo "$pid"
            found=0
        fi
    done
    return $found
}

node_pid() {
    node_pids "$1" | head -n 1 | grep .
}

# in_node NODE COMMAND...: the command, as a process of the node.
in_node() {
    local node=$1 pid
    shift
    pid=$(node_pid "$node") || fail "node $node of test bed $NAME is not running"
    local clock=(--time)
    [ "$node" != "$STORAGE" ] || clock=()
    nsenter --target "$pid" --net --uts --ipc --mount --pid "${clock[@]}" -- "$@"
}

# has_mounted NODE DIRECTORY: by the kernel's table, which answers while the server does not.
has_mounted() {
    grep -qF " $2 " "/proc/$(node_pid "$1")/mountinfo"
}

# need_node NODE
need_node() {
    [ -n "${1:-}" ] || fail "name a node: 1 to $(cat "$STATE/node_count"), or $STORAGE"
    [ -d "$STATE/nodes/$1" ] || fail "test bed $NAME has no node $1: it has 1 to $(cat "$STATE/node_count"), and $STORAGE with a shared filesystem"
}

# kill_nodes [NODE]: ends the node, or all, with every process in them.
#
# What Open MPI's daemons of a node have in /tmp, which is this machine's, goes with it, as it would with a node of its
# own: it is named after their numbers there, and the next daemon that has one of these does not start.
kill_nodes() {
    local pids pid daemons=() daemon
    pids=$(node_pids "${1:-}") || return 0
    for pid in $pids; do
        for daemon in $(nsenter --target "$pid" --mount --pid -- pgrep -x prted 2> /dev/null); do
            daemons+=("/tmp/prted.$daemon")
        done
    done
    # shellcheck disable=SC2086  # a list of numbers
    kill -KILL $pids 2> /dev/null || true
    wait_for 20 no_nodes "${1:-}" || fail "the processes of ${1:-the nodes} do not end: $pids"
    [ ${#daemons[@]} -eq 0 ] || rm -rf -- "${daemons[@]}"
}

no_nodes() {
    ! node_pids "${1:-}" > /dev/null
}

remove_network() {
    local link
    for link in $(ip -o link show | awk -F '[ :@]+' '{ print $2 }'); do
        if [[ $link == "$BRIDGE" || $link =~ ^$BRIDGE-([0-9]+|s)$ ]]; then
            ip link delete "$link" 2> /dev/null || true
        fi
    done
}
