#!/bin/sh
### BEGIN INIT INFO
# Provides:          collective-host-keys
# Required-Start:    $local_fs
# Required-Stop:
# X-Start-Before:    ssh
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: makes this computer's own SSH host keys
### END INIT INFO
# The system was made without host keys, which all of its instances would share. This makes them when
# it starts without. No RSA key: making one takes seconds, and every client of today can do without.
[ "$1" = start ] || exit 0
for kind in ecdsa ed25519; do
    key=/etc/ssh/ssh_host_${kind}_key
    [ -s "$key" ] && [ -s "$key.pub" ] && continue
    rm -f "$key" "$key.pub"
    ssh-keygen -q -t "$kind" -N '' -f "$key"
done
