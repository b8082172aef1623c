#!/bin/sh
# Every instance of this appliance starts from the same memory. This makes one of them somebody of
# its own; it runs before anybody can reach the instance, with COLLECTIVE_NAME set, and when it
# fails the instance does not start from memory. Host name, clock, network addresses and the
# kernel's random numbers are fresh already. For what else your programs made when they first started,
# put programs of your own into /etc/collective/fresh-identity.d (`files` in appliance.yaml): they run
# last, in the order of their names, and the first that fails ends it.
set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Programs that have read it keep the old one until they start again.
if [ -f /etc/machine-id ]; then
  tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id.new
  chmod 444 /etc/machine-id.new
  mv -f /etc/machine-id.new /etc/machine-id
  if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    cat /etc/machine-id >/var/lib/dbus/machine-id
  fi
fi

# No RSA key: making one takes seconds, and every client of today can do without.
if command -v ssh-keygen >/dev/null && [ -d /etc/ssh ]; then
  rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
  for kind in ecdsa ed25519; do
    ssh-keygen -q -t "$kind" -N '' -C "root@$COLLECTIVE_NAME" -f "/etc/ssh/ssh_host_${kind}_key"
  done
  # Read again by the server that listens; open connections cannot be there yet.
  if [ -s /run/sshd.pid ]; then kill -HUP "$(cat /run/sshd.pid)"; fi
fi

# The old addresses' leases, where a client of DHCP can be asked to renew them.
if command -v networkctl >/dev/null && [ -d /run/systemd/netif ]; then
  for link in /sys/class/net/*; do
    if [ -e "$link/device" ]; then networkctl renew "${link##*/}" || true; fi
  done
fi
if command -v pidof >/dev/null; then
  for client in $(pidof udhcpc || true); do kill -USR1 "$client"; done
fi

for part in /etc/collective/fresh-identity.d/*; do
  if [ -x "$part" ]; then "$part"; fi
done
