#!/usr/bin/env bash
# units-and-scripts.sh PACKAGE TREE: puts a package's presets and maintainer scripts into its tree, which has its units already.
# build-deb.sh calls it, and so do the tests that install packages.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
package=$1 tree=$2 name=${1#blockhost-}

# Instances are the operator's to enable.
units=$(cd "$tree/usr/lib/systemd/system" && grep -l '^\[Install\]' -- * | grep -v @ | tr '\n' ' ' || true)
if [ -f "$here/presets/$name.preset" ]; then
  install -D -m 0644 "$here/presets/$name.preset" "$tree/usr/lib/systemd/system-preset/50-$package.preset"
fi
install -d "$tree/DEBIAN"
for kind in preinst postinst prerm postrm; do
  script=$here/debian/$name.$kind
  [ -f "$script" ] || script=$here/debian/$kind
  sed -e "/^#UNITS#\$/ { r $here/debian/units.sh" -e 'd }' "$script" | sed "s/@UNITS@/${units% }/" >"$tree/DEBIAN/$kind"
  chmod 0755 "$tree/DEBIAN/$kind"
done
