#!/usr/bin/env bash
# Ceph's S3 gateway on a cluster of its own, all in memory and on loopback, as any user:
#
#   ceph.sh <port of the monitor> <port of the gateway> <seconds> <access key>:<secret key> ...
#
# What is deleted or overwritten keeps its memory for so many seconds; whoever still reads it then reads nothing.
# It ends with its standard input, thus with whoever started it however that dies, and leaves nothing behind.
# The users have the names of their access keys.
set -euo pipefail -m
monitor_port=$1 gateway_port=$2 seconds=$3
shift 3

directory=$(mktemp -d -t surfing-weights-ceph-XXXXXX)
export CEPH_CONF=$directory/ceph.conf
fsid=$(cat /proc/sys/kernel/random/uuid)
osd_uuid=$(cat /proc/sys/kernel/random/uuid)

cat > "$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = v2:127.0.0.1:$monitor_port
public addr = 127.0.0.1
keyring = $directory/keyring
run dir = $directory
crash dir = $directory
mon data = $directory/mon
osd data = $directory/osd
log to file = false
mon cluster log to file = false
err to stderr = true

osd objectstore = memstore
memstore device bytes = 8G
osd pool default size = 1
mon allow pool size one = true
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 2000
# A pool is made in a tenth of the time.
paxos propose interval = 0.05

# Small answers wait 40 ms without tcp_nodelay.
rgw frontends = beast endpoint=127.0.0.1:$gateway_port tcp_nodelay=1
rgw crypt require ssl = false
# The OSD holds the first 4 MiB of each of its objects twice, so let them be large.
rgw obj stripe size = 16M
# Not after two hours.
rgw gc obj min wait = $seconds
rgw gc processor period = $((seconds / 3 + 1))
CONF

cluster() {
  ceph-authtool --create-keyring "$directory/keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool "$directory/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
  ceph-authtool "$directory/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
  monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor_port]" "$directory/monmap"
  mkdir "$directory/mon" "$directory/osd"
  ceph-mon -i a --mkfs --monmap "$directory/monmap" --keyring "$directory/keyring"
  ceph-mon -i a -f &
  ceph osd new "$osd_uuid"
  ceph-osd -i 0 --mkfs --osd-uuid "$osd_uuid"
  ceph-osd -i 0 -f &
  for user in "$@"; do
    name=${user%%:*}
    radosgw-admin user create --uid "$name" --display-name "$name" --access-key "$name" --secret-key "${user#*:}"
  done
  radosgw -n client.admin -f &
  wait -n
}

script=$$
# Where the cluster ends by itself, so does what waits for the end of the input.
{ cluster "$@" || true; kill -TERM "$script"; } < /dev/null > /dev/null &
cluster=$!
finish() {
  trap - EXIT TERM
  # Nobody may be left to read what bash says of this.
  exec 2> /dev/null
  # With `set -m` it is a process group of its own.
  kill -KILL -- "-$cluster" || true
  wait "$cluster" || true
  rm -rf "$directory"
}
trap finish EXIT
trap 'exit 1' TERM
while read -r _; do :; done
