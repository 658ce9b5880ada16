#!/usr/bin/env bash
# Process 1 of a node of the test bed: its host name, its mounts and its ssh server.
#
#   node-init.sh STATE NODE HOSTNAME     (started by nodes.sh inside new namespaces; nothing here is seen outside of them)
set -euo pipefail
state=$1 node=$2 host=$3
home=$state/nodes/$node

hostname "$host"
# Sockets and locks that programs keep under fixed names, and shared memory, are the node's own.
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/sshd /run/gluster /run/lock
mount --bind "$state/etc-hosts" /etc/hosts
for folder in /var/lib/glusterd /var/log/glusterfs; do
    if [ -d "$folder" ]; then
        mkdir -p "$home/$(basename "$folder")"
        mount --bind "$home/$(basename "$folder")" "$folder"
    fi
done
if [ -f "$home/local.img" ]; then
    mount -o loop "$home/local.img" "$state/local"
    rmdir "$state/local/lost+found" 2> /dev/null || true
else
    mount --bind "$home/local" "$state/local"
fi

until [ -e "$home/connected" ]; do
    sleep 0.05
done
if [ -f "$home/sshd_config" ]; then
    env -i PATH="$PATH" "$(type -P sshd)" -f "$home/sshd_config" -E "$home/log/sshd"
fi
touch "$home/ready"

# Waiting in `wait` collects the processes whose parents have ended.
while true; do
    sleep 3600 &
    wait $! || true
done
