#!/bin/sh
# The first program: loads drivers, mounts the root disk, hands over to the system on it.
# Understands init=PROGRAM and ro on the kernel's command line.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
/usr/sbin/load-modules
init=/sbin/init
options=rw,noatime,discard
for word in $(cat /proc/cmdline); do
    case $word in
        init=*) init=${word#init=} ;;
        ro) options=ro,noatime ;;
    esac
done
tries=0
until [ -b @ROOT@ ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || break
    sleep 0.1
done
mkdir -p /mnt
if ! mount -t ext4 -o $options @ROOT@ /mnt; then
    echo "initrd: cannot mount the root disk @ROOT@; here is a shell" >/dev/console
    exec sh </dev/console >/dev/console 2>&1
fi
mount --move /dev /mnt/dev
mount --move /proc /mnt/proc
mount --move /sys /mnt/sys
exec switch_root /mnt $init
