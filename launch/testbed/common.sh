# shellcheck shell=bash
# What all parts of the test bed use: messages, where the state is, what the machine has to have. Sourced.
# shellcheck disable=SC2034  # names that the other parts use

# Where a user's PATH may not lead: ip, sshd, glusterd.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

TESTBED_ROOT=${KVBENCH_TESTBED_ROOT:-/var/tmp/kvbench-testbed}
MARKER=kvbench-testbed
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

fail() {
    printf 'testbed: %s\n' "$*" >&2
    exit 1
}

say() {
    printf 'testbed: %s\n' "$*"
}

# split_name COMMANDS ARGUMENT...: sets GIVEN_NAME to what follows --name ("main" without it), and ARGUMENTS to all others.
# Behind one of COMMANDS (`exec run`) everything but a leading --name is the command's.
split_name() {
    local commands=" $1 "
    shift
    GIVEN_NAME=main ARGUMENTS=()
    while [ $# -gt 0 ] && [[ ${#ARGUMENTS[@]} -eq 0 || $commands != *" ${ARGUMENTS[0]} "* ]]; do
        case $1 in
            --name) GIVEN_NAME=${2:-} && shift $(($# < 2 ? 1 : 2)) ;;
            --name=*) GIVEN_NAME=${1#*=} && shift ;;
            *) ARGUMENTS+=("$1") && shift ;;
        esac
    done
    if [ "${1:-}" = --name ]; then
        GIVEN_NAME=${2:-} && shift 2
    fi
    ARGUMENTS+=("$@")
}

# use_name NAME: sets what follows from a test bed's name. The kernel grants a network interface 15 characters.
use_name() {
    [[ $1 =~ ^[a-z][a-z0-9]{0,7}$ ]] || fail "--name $1: give 1 to 8 small letters and digits, beginning with a letter"
    NAME=$1
    STATE=$TESTBED_ROOT/$NAME
    BRIDGE=kvb-$NAME
    LOCAL=$STATE/local
    SHARED=$STATE/shared
}

exists() {
    [ -f "$STATE/$MARKER" ]
}

need_state() {
    exists || fail "there is no test bed $NAME (in $TESTBED_ROOT): make one with \`testbed.sh up --name $NAME\`"
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "namespaces, bridges and mounts need root: run it as root (sudo), in a virtual machine if this one is not yours"
}

# need COMMAND PACKAGE
need() {
    type -P "$1" > /dev/null || MISSING+=("$2")
}

# check_machine GLUSTER CEPH S3 (yes or no): every package that is missing, in one message.
check_machine() {
    MISSING=()
    need ip iproute2
    need unshare util-linux
    need nsenter util-linux
    need flock util-linux
    need pgrep procps
    need sshd openssh-server
    need ssh openssh-client
    need ssh-keygen openssh-client
    if [ "$1" = yes ]; then
        need glusterd glusterfs-server
        need mount.glusterfs glusterfs-client
        need getfattr attr
    fi
    [ "$2" = no ] || check_ceph
    [ "$3" = no ] || check_gateways
    if [ ${#MISSING[@]} -gt 0 ]; then
        mapfile -t MISSING < <(printf '%s\n' "${MISSING[@]}" | sort --unique)
        fail "missing: apt-get install --no-install-recommends ${MISSING[*]} (those are Debian's and Ubuntu's names)"
    fi
    [ -e /proc/self/ns/time ] || fail "this kernel ($(uname -r)) has no time namespaces: use Linux 5.6 or newer"
    [ "$1$2" = nono ] || [ -c /dev/fuse ] || fail "there is no /dev/fuse for the shared filesystems: modprobe fuse, or use --no-gluster alone"
    local words
    words=$(unshare --net --uts --ipc --mount --pid --fork --time true 2>&1) || fail "this root may not make namespaces (a container's?): $words"
}

# wait_for SECONDS COMMAND...: until the command works; 1 when it does not in time.
wait_for() {
    local rounds=$(($1 * 20))
    shift
    until "$@" > /dev/null 2>&1; do
        ((rounds-- > 0)) || return 1
        sleep 0.05
    done
}
