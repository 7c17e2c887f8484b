#!/bin/sh
# Runs outside the chroot but inside mmdebstrap's user namespace, where the files of the guest have their owners.
# usage: customize.sh ROOT IMAGE SIZE_MIB UUID DEBS   (IMAGE is made here, sparse; DEBS holds package files of the operator)
set -eu
root=$1 image=$2 size_mib=$3 uuid=$4 debs=$5

in_guest() { chroot "$root" "$@"; }

if ls "$debs"/*.deb >/dev/null 2>&1; then
    mkdir "$root/tmp/debs"
    cp "$debs"/*.deb "$root/tmp/debs/"
    in_guest sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends /tmp/debs/*.deb'
    rm -r "$root/tmp/debs"
fi

# Units a server that lives in a minute-old image has no use for; each costs start-up time.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-pstore.service getty@tty1.service cloud-init.service cloud-config.service \
    cloud-final.service cloud-init-hotplugd.socket systemd-networkd-wait-online.service keyboard-setup.service \
    console-setup.service systemd-network-generator.service systemd-timesyncd.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
    rm -f "$root"/etc/systemd/system/*.wants/"$unit"
done
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/etc/systemd/system/ssh.service.wants"
ln -sf /etc/systemd/system/cloud-init-local.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf /etc/systemd/system/blockhost-grow-root.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf /etc/systemd/system/blockhost-ssh-host-key.service "$root/etc/systemd/system/ssh.service.wants/"
in_guest systemctl enable --quiet systemd-networkd.service qemu-guest-agent.service
# Names are resolved when there is a network: before that the resolver only delays everything that waits for sysinit.
sed -e 's/^Before=sysinit.target /Before=/' -e 's/^\(After=.*\)$/\1 cloud-init-local.service/' \
    -e 's/^WantedBy=.*/WantedBy=multi-user.target/' \
    "$root/lib/systemd/system/systemd-resolved.service" > "$root/etc/systemd/system/systemd-resolved.service"
rm -f "$root"/etc/systemd/system/sysinit.target.wants/systemd-resolved.service
in_guest systemctl enable --quiet systemd-resolved.service
in_guest systemctl set-default --quiet multi-user.target
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

printf 'UUID=%s / ext4 defaults,noatime,errors=remount-ro 0 1\n' "$uuid" > "$root/etc/fstab"
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
touch "$root/etc/.updated" "$root/var/.updated"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/log/*.log \
    "$root"/var/log/apt "$root"/tmp/* "$root"/usr/share/locale/*/LC_MESSAGES

mkdir -p "$root/boot/grub"
cat > "$root/boot/grub/grub.cfg" <<CFG
# Read by the GRUB in front of the partition. /vmlinuz and /initrd.img are kept by Debian's linux-base.
set timeout=0
# linux16: the 32-bit loader first moves 54 MiB byte by byte, two seconds of an emulated boot.
linux16 /vmlinuz root=UUID=$uuid ro edd=off net.ifnames=0 8250.nr_uarts=1 console=tty0 console=ttyS0,115200 quiet loglevel=3 audit=0
initrd16 /initrd.img
boot
CFG

# mmdebstrap has /proc, /sys and /dev mounted in the tree. A plain bind mount, in a mount namespace of our own, shows
# the tree without them.
echo "blockhost: make the file system"
export root image size_mib uuid
unshare --mount --propagation private sh -eu -c '
    mount --bind "$root" "$root/mnt"
    mke2fs -q -t ext4 -F -d "$root/mnt" -U "$uuid" -L root -m 1 \
        -E "offset=1048576,assume_storage_prezeroed=1" -O "^metadata_csum_seed" \
        "$image" "$((size_mib - 1))M"
'
# Whoever started the build reads it from outside the namespace.
chmod 644 "$image"
