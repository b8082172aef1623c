#!/bin/sh
# Loads the initrd's kernel modules in the order in which they need each other.
folder=/usr/lib/initrd-modules
[ -f $folder/order ] || exit 0
while read -r module; do
    insmod $folder/$module || echo "initrd: cannot load $module" >&2
done < $folder/order
