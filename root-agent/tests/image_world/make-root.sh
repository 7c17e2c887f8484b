#!/bin/sh
# make-root.sh DIRECTORY: a small Debian in a directory, from this machine's own files: busybox, and the real apt and dpkg with a
# package source of their own. Nothing is downloaded.
set -eu
root=$1
mkdir -p "$root/bin" "$root/sbin" "$root/lib" "$root/lib64" "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib/apt" "$root/tmp" \
    "$root/etc/apt/apt.conf.d" "$root/etc/apt/preferences.d" "$root/etc/apt/trusted.gpg.d" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/srv/repo" \
    "$root/root" "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/apt/lists/partial" \
    "$root/var/cache/apt/archives/partial" "$root/var/log/apt"
cp /bin/busybox "$root/bin/busybox"
for name in sh cat chmod chown cp echo grep id ln ls mkdir mv rm sed sleep test touch true uname rmdir env dirname basename; do
    ln -sf busybox "$root/bin/$name"
done
library() {
    ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r file; do
        mkdir -p "$root$(dirname "$file")"
        cp -Lu "$file" "$root$file"
    done
}
for program in /usr/bin/apt-get /usr/bin/dpkg /usr/bin/dpkg-deb /usr/bin/dpkg-query /usr/bin/dpkg-split /usr/bin/tar /usr/bin/apt-config /usr/bin/diff \
    /sbin/ldconfig /sbin/start-stop-daemon /usr/bin/gpgv; do
    cp -L "$program" "$root/usr/bin/"
    library "$program"
done
mv "$root/usr/bin/ldconfig" "$root/usr/bin/start-stop-daemon" "$root/sbin/"
cp -rL /usr/lib/apt/methods "$root/usr/lib/apt/"
mkdir -p "$root/usr/share"
cp -r /usr/share/dpkg "$root/usr/share/"
for method in "$root"/usr/lib/apt/methods/*; do library "$method"; done
: >"$root/var/lib/dpkg/status"
: >"$root/var/lib/dpkg/available"
echo "deb [trusted=yes] file:/srv/repo ./" >"$root/etc/apt/sources.list"
printf 'APT::Sandbox::User "root";\nAcquire::AllowInsecureRepositories "true";\n' >"$root/etc/apt/apt.conf.d/90test"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
echo 12.0 >"$root/etc/debian_version"
printf 'PRETTY_NAME="Debian GNU/Linux 12"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n' >"$root/etc/os-release"
echo "/dev/sda1 / ext4 defaults 0 1" >"$root/etc/fstab"
echo guest >"$root/etc/hostname"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
echo unwanted >"$root/etc/remove-me"

# A package, and a source that offers it.
package=$root/../package
mkdir -p "$package/DEBIAN" "$package/usr/share/bhtest"
printf 'Package: bhtest\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a test\n' >"$package/DEBIAN/control"
echo installed >"$package/usr/share/bhtest/marker"
dpkg-deb --root-owner-group --build "$package" "$root/srv/repo/bhtest_1_all.deb" >/dev/null
(cd "$root/srv/repo" && dpkg-scanpackages . >Packages 2>/dev/null)
