#!/usr/bin/env bash
# Builds the Debian packages into target/deb from optimised binaries, generated man pages and completions, and the
# files in packaging/; then checks each package. Needs dpkg-dev (dpkg-shlibdeps) and gzip; no root.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
out=$target/deb
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Every commit has a version of its own, that sorts behind those before it: apt installs nothing over what it takes for the same.
if commit=$(TZ=UTC git log -1 --format=%cd.g%h --date=format-local:%Y%m%d.%H%M%S --abbrev=10 2>/dev/null); then
  version=$version+$commit
  [ -z "$(git status --porcelain --untracked-files=no)" ] || version=$version.changed$(date -u +%s)
fi
arch=$(dpkg --print-architecture)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH=$epoch

say() { printf '== %s\n' "$*"; }

say "building $version (profile dist)"
export BLOCKHOST_VERSION=$version
cargo build --profile dist --workspace --bins --exclude blockhost-tests
# Places where tests stop a process belong in tests.
if grep -l "blockhost fail point" "$target"/dist/blockhost-*; then
  echo "the programs above were built with the feature fail-points; build without it" >&2
  exit 1
fi
say "generating man pages and completions"
rm -rf "$out" && mkdir -p "$out"
"$target/dist/blockhost-docs" --out "$target/docs"

# stage NAME FILE... : copies programs with their man pages and completions into the package's tree.
stage() {
  local tree=$out/$1 dir=$2; shift 2
  install -d "$tree/$dir" "$tree/usr/share/man/man1" "$tree/usr/share/man/man8"
  install -d "$tree/usr/share/bash-completion/completions" "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/fish/vendor_completions.d"
  local program page
  for program in "$@"; do
    install -m 0755 "$target/dist/$program" "$tree/$dir/$program"
    for page in "$target/docs/man/$program".[18] "$target/docs/man/$program"-*.[18]; do
      [ -f "$page" ] || continue
      install -d "$tree/usr/share/man/man${page##*.}"
      gzip -9n <"$page" >"$tree/usr/share/man/man${page##*.}/$(basename "$page").gz"
    done
    install -m 0644 "$target/docs/completions/$program.bash" "$tree/usr/share/bash-completion/completions/$program"
    install -m 0644 "$target/docs/completions/_$program" "$tree/usr/share/zsh/vendor-completions/_$program"
    install -m 0644 "$target/docs/completions/$program.fish" "$tree/usr/share/fish/vendor_completions.d/$program.fish"
  done
  find "$tree" -type d -empty -delete
}

# control NAME DEPENDS RECOMMENDS SUMMARY DESCRIPTION [ARCHITECTURE]
control() {
  local tree=$out/$1 shlibs=
  install -d "$tree/DEBIAN" "$tree/usr/share/doc/$1"
  install -m 0644 LICENSE "$tree/usr/share/doc/$1/copyright"
  mkdir -p "$out/shlibs/debian" && : >"$out/shlibs/debian/control"
  local programs
  # Scripts have no libraries.
  mapfile -t programs < <(find "$(realpath "$tree")/usr" -type f -perm -0100 -exec sh -c 'head -c 4 "$1" | grep -qa ELF' sh {} \; -print)
  [ ${#programs[@]} -eq 0 ] || shlibs=$(cd "$out/shlibs" && dpkg-shlibdeps -O --ignore-missing-info "${programs[@]}" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$1" "$version" "${6:-$arch}"
    printf 'Maintainer: BlockHost <blockhost@localhost>\nSection: admin\nPriority: optional\n'
    printf 'Installed-Size: %s\n' "$(du -sk "$tree/usr" | cut -f1)"
    printf 'Depends: %s\n' "${shlibs:+$shlibs, }$2"
    [ -z "$3" ] || printf 'Recommends: %s\n' "$3"
    # Both have a /usr/bin/ab.
    [ "$1" != blockhost ] || printf 'Conflicts: apache2-utils\n'
    # What speaks to each other is of one version.
    case $1 in
      blockhost-root-agent) printf 'Breaks: blockhost-hypervisor (<< %s)\n' "$version" ;;
      blockhost-hypervisor) printf 'Breaks: blockhost-root-agent (<< %s)\n' "$version" ;;
    esac
    printf 'Description: %s\n %s\n' "$4" "$5"
  } >"$tree/DEBIAN/control"
  (cd "$tree" && find usr -type f -printf '%P\0' | sort -z | (cd usr && xargs -0 md5sum) | sed 's|  |  usr/|') >"$tree/DEBIAN/md5sums"
}

say "staging"
agent=blockhost-root-agent
stage $agent usr/sbin blockhost-root-agent
install -d "$out/$agent/usr/lib/systemd/system" "$out/$agent/usr/lib/sysusers.d" "$out/$agent/usr/lib/tmpfiles.d"
install -m 0644 packaging/systemd/blockhost-root-agent.{socket,service} packaging/systemd/blockhost-wireguard@.service "$out/$agent/usr/lib/systemd/system/"
install -m 0644 packaging/sysusers.d/blockhost.conf "$out/$agent/usr/lib/sysusers.d/"
install -d "$out/$agent/usr/share/doc/$agent"
install -m 0644 packaging/systemd/drop-ins/*.conf "$out/$agent/usr/share/doc/$agent/"
install -m 0644 packaging/tmpfiles.d/blockhost.conf "$out/$agent/usr/lib/tmpfiles.d/"
packaging/units-and-scripts.sh $agent "$out/$agent"
control $agent "systemd, iptables, uidmap" "blockhost-hypervisor | proxmox-ve, libguestfs-tools, wireguard-go" \
  "BlockHost root agent" "The one privileged process of BlockHost: a catalog of validated actions behind a Unix socket, recorded in a provable ledger."

hypervisor=blockhost-hypervisor
stage $hypervisor usr/lib/blockhost blockhost-qm blockhost-pct blockhost-containers
install -d "$out/$hypervisor/usr/sbin" "$out/$hypervisor/usr/lib/systemd/system"
for program in blockhost-qm blockhost-pct; do
  ln -s "../lib/blockhost/$program" "$out/$hypervisor/usr/sbin/$program"
done
install -m 0644 packaging/systemd/blockhost-containers{,-network}.service packaging/systemd/blockhost-machines.service "$out/$hypervisor/usr/lib/systemd/system/"
# Users, directories and subordinate ids come with the agent.
packaging/units-and-scripts.sh $hypervisor "$out/$hypervisor"
control $hypervisor "qemu-system-x86, qemu-utils, genisoimage, iproute2" "blockhost-root-agent, lxc, uidmap, bzip2, xz-utils, zstd" \
  "BlockHost embedded backend" "The qm and pct command lines on any Debian with QEMU and LXC, for hosts that are not Proxmox VE."

mapfile -t programs < <("$target/dist/blockhost-docs" --list | grep -vx -e blockhost-root-agent -e blockhost-qm -e blockhost-pct -e blockhost-containers)
stage blockhost usr/bin "${programs[@]}"
ln -s bhcrypt "$out/blockhost/usr/bin/pam_web3_tool"
install -m 0755 ledger/verifier/blockhost-ledger-verify.py "$out/blockhost/usr/bin/blockhost-ledger-verify"
install -d "$out/blockhost/usr/lib/systemd/system" "$out/blockhost/usr/share/blockhost"
install -m 0644 packaging/systemd/blockhost-{engine,bus,witness,ledger-submit,net-recover,net-restore,onboot,stop-all,containers-watch}.service packaging/systemd/blockhost-{broker,gc}.{service,timer} "$out/blockhost/usr/lib/systemd/system/"
install -m 0644 provisioner/provisioner.json "$out/blockhost/usr/share/blockhost/"
install -d "$out/blockhost/usr/share/doc/blockhost"
install -m 0644 packaging/sysctl.d/blockhost-ipv6.conf docs/alerts/blockhost.rules.yml "$out/blockhost/usr/share/doc/blockhost/"
install -m 0755 packaging/share/knock-login "$out/blockhost/usr/share/blockhost/"
install -d "$out/blockhost/usr/share/dbus-1/system.d" "$out/blockhost/usr/share/dbus-1/system-services" "$out/blockhost/usr/share/polkit-1/actions" "$out/blockhost/usr/share/polkit-1/rules.d"
install -m 0644 packaging/dbus/dev.ovs.PortAgent1.conf "$out/blockhost/usr/share/dbus-1/system.d/"
install -m 0644 packaging/dbus/dev.ovs.PortAgent1.service "$out/blockhost/usr/share/dbus-1/system-services/"
install -m 0644 packaging/polkit/dev.ovs.portagent1.policy "$out/blockhost/usr/share/polkit-1/actions/"
install -m 0644 packaging/polkit/50-blockhost-networkmanager.rules "$out/blockhost/usr/share/polkit-1/rules.d/"
packaging/units-and-scripts.sh blockhost "$out/blockhost"
control blockhost "blockhost-root-agent (= $version)" "dbus, polkitd | policykit-1, python3 (>= 3.9), zstd, mmdebstrap, uidmap, qemu-utils, grub-common, grub-pc-bin, e2fsprogs" \
  "BlockHost engine and provisioner" "Sells machines of this host by subscriptions on an EVM chain: engine, provisioner, garbage collection, operator commands."

python=python3-blockhost-root-agent
install -d "$out/$python/usr/lib/python3/dist-packages/blockhost_root_agent"
install -m 0644 proto/clients/python/src/blockhost_root_agent/{*.py,py.typed} "$out/$python/usr/lib/python3/dist-packages/blockhost_root_agent/"
control $python "python3 (>= 3.9)" "blockhost-root-agent" \
  "BlockHost root agent: Python client" "One function per action of the root agent, blocking and asyncio, typed." all

node=node-blockhost-root-agent
install -d "$out/$node/usr/share/nodejs/@blockhost/root-agent/dist"
install -m 0644 proto/clients/typescript/package.json "$out/$node/usr/share/nodejs/@blockhost/root-agent/"
install -m 0644 proto/clients/typescript/dist/*.{js,d.ts} "$out/$node/usr/share/nodejs/@blockhost/root-agent/dist/"
control $node "nodejs (>= 18)" "blockhost-root-agent" \
  "BlockHost root agent: client for Node.js" "One function per action of the root agent, ES modules with type declarations." all

say "packing"
for tree in "$out"/*/; do
  name=$(basename "$tree")
  [ -d "$tree/DEBIAN" ] || continue
  package_arch=$(sed -n 's/^Architecture: //p' "$tree/DEBIAN/control")
  dpkg-deb --root-owner-group --build "$tree" "$out/${name}_${version}_${package_arch}.deb" >/dev/null
  rm -rf "$tree"
done
rm -rf "$out/shlibs"

say "checking"
for deb in "$out"/*.deb; do
  dpkg-deb --info "$deb" >/dev/null
  # Nothing setuid, nothing writable by others, nothing outside /usr.
  if dpkg-deb --contents "$deb" | awk '$1 !~ /^l/ && ($1 ~ /s/ || substr($1,9,1) == "w") { bad=1; print } END { exit !bad }'; then
    echo "error: $deb carries files with rights that nobody should have" >&2; exit 1
  fi
  if dpkg-deb --contents "$deb" | awk '$6 !~ /^\.\/(usr\/.*)?$/ { bad=1; print } END { exit !bad }'; then
    echo "error: $deb installs outside /usr" >&2; exit 1
  fi
  printf '%s  %s\n' "$(du -h "$deb" | cut -f1)" "$deb"
done
