#!/bin/bash
# Prepares a Debian machine to build, test and demonstrate BlockHost: Debian packages, the contracts' npm
# packages, system users. Runs as often as you like, asks nothing, changes only what is missing and says what
# that is. Needs root; needs no systemd. Rust itself is expected to be there (it says what to do otherwise).
#   setup.sh [peers]    with `peers`: also what the benchmark measures us beside (Debian packages, a venv of PyPI's)
set -euo pipefail

cd "$(dirname "$0")/.."

readonly BACKPORTS_FILE=/etc/apt/sources.list.d/blockhost-backports.list
readonly RUST_MINIMUM=1.94.1
readonly NODE_MINIMUM=18

# What the build links with, what the tests and the demo run. QEMU and node have their own sections below.
readonly PACKAGES=(
    gcc g++ libc6-dev make pkg-config ca-certificates   # the build (SQLite from its bundled source; libFuzzer is C++)
    iproute2 iptables util-linux procps             # namespaces, bridge, the agent's firewall, unshare and setpriv
    mmdebstrap uidmap gpgv debian-archive-keyring   # the guest template, built by an ordinary user
    e2fsprogs grub-common grub-pc-bin genisoimage   # its file system, boot loader and the NoCloud seed
    cpio zstd                                       # first roots of the small test guest and of a booted kernel
    openssh-client iputils-ping                     # the demo logs in to the guest, tests reach it
    openvswitch-switch                              # a switch for each test of the agent's that needs one
    ethtool                                         # checksums by the kernel: the userspace switch looks at them
    nftables jq openssl                             # independent views in tests: of the firewall, of the ledger
    conntrack wireguard-tools wireguard-go          # what became of a translation; tunnels where the kernel has none
    dpkg-dev                                        # make deb
    systemd                                         # the units' scores, and a private system that runs them
    strace                                          # faults that a disk has once in years; which calls sync what
    python3                                         # the benchmark's peer, the offline proof checker, the Python client
    age                                             # decrypts a blob of the ledger that the age crate encrypted
    python3-setuptools python3-wheel mypy           # that client's wheel and types
    faketime                                        # tests: a clock that is set back
    lxc uidmap busybox-static                       # containers, their ids, and the small system inside in tests
    podman crun                                     # tests: somebody else's containers, found by their labels; never used here
    bzip2 xz-utils bsdutils                         # packings of their archives; a terminal to call from
    dbus-daemon polkitd                             # tests of the bus service: a system bus of their own, permissions
    libglib2.0-bin python3-dbus                     # gdbus and Python's client, asking it
    graphviz                                        # reads what 'blockhost net show --dot' draws
    postgresql                                      # servers of single tests: the database that several hosts share
    chromium                                        # the signup page, in the browser that its visitors have
    network-manager                                 # a private NetworkManager whose checkpoints tests use; never started here
)

# What `make bench` measures us beside; each is left out of the table where it is missing.
readonly PEER_PACKAGES=(
    sudo                                            # sudo ip
    strace                                          # how often each one asks the disk to sync
    python3-gi                                      # a D-Bus service in Python
    python3-venv                                    # the place for the next ones
)
readonly PEER_PYPI=(
    oslo.privsep==3.12.0                            # OpenStack's way to privileges
    pyroute2==0.9.7                                 # how neutron sets routes with it
)

say()  { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: error: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "this installs packages and creates system users; run it as root: sudo bash scripts/setup.sh"
command -v apt-get >/dev/null || fail "this machine has no apt-get; BlockHost is built and tested on Debian 12"

export DEBIAN_FRONTEND=noninteractive
export LC_ALL=C

installed() { # installed PACKAGE: is it there, configured?
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

version_of() { # version_of PACKAGE: installed version, or nothing
    if installed "$1"; then dpkg-query -W -f '${Version}' "$1"; fi
}

LISTS_FRESH=no
refresh_lists() { # once per run, and only when something has to be installed
    [ "$LISTS_FRESH" = yes ] && return 0
    say "reading the package lists"
    apt-get update -qq
    LISTS_FRESH=yes
}

# Some packages bring a service, and a NetworkManager or a database that begins to run is nothing that somebody expects who
# wanted to see a demonstration: none is started, now or with the machine. Tests start what they need themselves.
readonly POLICY=/usr/sbin/policy-rc.d
start_no_services() {
    if [ -e "$POLICY" ]; then return 0; fi
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 0755 "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
}

enabled_units() {
    [ -d /run/systemd/system ] || return 0
    systemctl list-unit-files --no-legend --state=enabled | awk '{ print $1 }' | sort
}

install() { # install APT-ARGUMENT...
    local before new
    refresh_lists
    say "installing: $*"
    start_no_services
    before=$(enabled_units)
    apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
    new=$(comm -13 <(printf '%s\n' "$before") <(enabled_units))
    if [ -n "$new" ]; then
        say "not started with the machine: $(printf '%s' "$new" | tr '\n' ' ')"
        # shellcheck disable=SC2086 # words
        systemctl disable --quiet $new
    fi
}

# --- Rust ----------------------------------------------------------------------------------------------------
check_rust() {
    local cargo version
    cargo=$(command -v cargo || true)
    [ -n "$cargo" ] || [ ! -x "${HOME:-/root}/.cargo/bin/cargo" ] || cargo="${HOME:-/root}/.cargo/bin/cargo"
    [ -n "$cargo" ] || fail "no cargo found; install Rust $RUST_MINIMUM or newer with rustup (https://rustup.rs) and run this again"
    version=$("$cargo" --version | cut -d' ' -f2)
    if ! printf '%s\n%s\n' "$RUST_MINIMUM" "$version" | sort -V -C; then
        fail "cargo $version is older than $RUST_MINIMUM; run 'rustup update stable' and then this again"
    fi
    say "Rust $version: there"
}

# --- Debian packages -----------------------------------------------------------------------------------------
install_packages() { # install_packages PACKAGE...
    local missing=() package
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "Debian packages: all $# there"
    else
        install "${missing[@]}"
    fi
}

# --- the benchmark's peers ---------------------------------------------------------------------------------------
install_peers() {
    local venv="${CARGO_TARGET_DIR:-target}/peers/venv" want
    install_packages "${PEER_PACKAGES[@]}"
    want="${PEER_PYPI[*]}"
    if [ "$(cat "$venv/.blockhost-peers" 2>/dev/null || true)" = "$want" ]; then
        say "PyPI packages in $venv: there"
        return 0
    fi
    say "installing into $venv: $want"
    rm -rf "$venv"
    mkdir -p "${venv%/*}"
    # Debian's interpreter, whatever else is in PATH: the other peers in Python run on it too.
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "${PEER_PYPI[@]}"
    printf '%s\n' "$want" >"$venv/.blockhost-peers"
}

# --- QEMU ----------------------------------------------------------------------------------------------------
# qemu-system-x86 and qemu-utils come from one source package and must be of one version. Where the machine's
# image brought a backported qemu-utils, the emulator has to come from the same backports suite, and that suite
# may not be among the apt sources: it is added on the mirror the machine uses already.
mirror_of() { # mirror_of CODENAME: the mirror this machine takes that suite from
    apt-get indextargets --format '$(CODENAME) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v want="$1" '$1 == want && $3 == "main" { print $2; exit }'
}

ensure_suite() { # ensure_suite SUITE CODENAME
    local suite=$1 codename=$2 mirror
    if [ -n "$(mirror_of "$suite")" ]; then return 0; fi
    mirror=$(mirror_of "$codename")
    if [ -z "$mirror" ]; then
        refresh_lists # index targets are listed from the sources, but some apt versions want the lists first
        mirror=$(mirror_of "$codename")
    fi
    [ -n "$mirror" ] || fail "no apt source for $codename main found; add one, or add $suite yourself, and run this again"
    say "adding the suite $suite of this machine's own mirror ($BACKPORTS_FILE)"
    printf 'deb %s %s main\n' "$mirror" "$suite" >"$BACKPORTS_FILE"
    LISTS_FRESH=no
}

install_qemu() {
    local utils system codename wanted=()
    utils=$(version_of qemu-utils)
    system=$(version_of qemu-system-x86)
    if [ -n "$utils" ] && [ "$utils" = "$system" ]; then
        say "QEMU $system: there"
        return 0
    fi
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || fail "/etc/os-release names no VERSION_CODENAME; cannot tell which suite QEMU should come from"
    case $utils$system in
        *~bpo*)
            ensure_suite "$codename-backports" "$codename"
            refresh_lists
            if [ -n "$utils" ] && apt-cache madison qemu-system-x86 | awk '{ print $3 }' | grep -qxF "$utils"; then
                # Exactly the version that is there, so that nothing installed has to change; what it needs besides
                # (its firmware) is in the same suite, and apt looks there only when told.
                wanted=(-t "$codename-backports" "qemu-system-x86=$utils" "qemu-system-common=$utils" "qemu-system-data=$utils")
            else
                wanted=(-t "$codename-backports" qemu-system-x86 qemu-utils)
            fi
            ;;
        *) wanted=(qemu-system-x86 qemu-utils) ;;
    esac
    install "${wanted[@]}"
    say "QEMU $(version_of qemu-system-x86): installed"
}

# --- libguestfs ------------------------------------------------------------------------------------------------
# virt-customize works in a small virtual machine that it puts together from this machine's own packages and kernel. After
# QEMU, or it would bring one of another version. A container has no kernel of its own: Debian's smallest one serves.
install_guestfs() {
    local kernel=""
    if ! installed libguestfs-tools; then install libguestfs-tools; fi
    for kernel in /boot/vmlinuz-*; do
        if [ -r "$kernel" ] && [ -d "/lib/modules/${kernel#/boot/vmlinuz-}" ]; then
            say "libguestfs $(version_of libguestfs-tools): there, with ${kernel#/boot/}"
            return 0
        fi
    done
    install "linux-image-cloud-$(dpkg --print-architecture)"
    say "libguestfs $(version_of libguestfs-tools): there, with a kernel installed for it"
}

# --- node and the contracts' packages --------------------------------------------------------------------------
node_is_good() {
    local version
    command -v npm >/dev/null && version=$(node --version 2>/dev/null) || return 1
    version=${version#v}
    [ "${version%%.*}" -ge "$NODE_MINIMUM" ]
}

install_node() {
    if node_is_good; then
        say "node $(node --version): there"
        return 0
    fi
    install nodejs npm
    node_is_good || fail "node $(node --version 2>&1 || true) is older than $NODE_MINIMUM; install a newer one and run this again"
    say "node $(node --version): installed"
}

install_npm_packages() { # install_npm_packages DIR: exactly what its lock file says
    local dir=$1 have want
    [ -f "$dir/package-lock.json" ] || { say "npm packages: $dir/package-lock.json is not there, nothing to install"; return 0; }
    want=$(sha256sum <"$dir/package-lock.json")
    have=$(cat "$dir/node_modules/.blockhost-lock" 2>/dev/null || true)
    if [ "$have" = "$want" ]; then
        say "npm packages in $dir: there"
        return 0
    fi
    say "installing the npm packages of $dir (no install scripts are run)"
    (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    printf '%s\n' "$want" >"$dir/node_modules/.blockhost-lock"
}

# --- system users ----------------------------------------------------------------------------------------------
ensure_user() { # ensure_user NAME
    if getent passwd "$1" >/dev/null; then
        say "user $1: there"
        return 0
    fi
    say "creating the system user $1"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$1"
}

# The template is built by 'blockhost' in a user namespace, which needs 65536 ids of its own; each container needs as many.
ensure_subids() { # ensure_subids NAME COUNT
    local file flag next
    # Behind what either file gives away: the ids of a container are the same in both.
    next=$(cat /etc/subuid /etc/subgid 2>/dev/null | awk -F: 'BEGIN { n = 100000 } NF == 3 && $2 + $3 > n { n = $2 + $3 } END { print n }')
    for file in /etc/subuid /etc/subgid; do
        if grep -q "^$1:" "$file" 2>/dev/null; then continue; fi
        flag=--add-subuids
        [ "$file" = /etc/subuid ] || flag=--add-subgids
        say "giving $1 the subordinate ids $next-$((next + $2 - 1)) in $file"
        usermod "$flag" "$next-$((next + $2 - 1))" "$1"
    done
}

# The services read the images that blockhost-image has customised.
ensure_member() { # ensure_member NAME GROUP
    case " $(id -nG "$1") " in
        *" $2 "*) ;;
        *) say "adding $1 to the group $2"; usermod -aG "$2" "$1" ;;
    esac
}

case ${1:-} in
    '' | peers) ;;
    *) fail "there is no part '$1'; say 'peers', or nothing" ;;
esac
check_rust
install_packages "${PACKAGES[@]}"
install_qemu
install_guestfs
ensure_user blockhost-agent
ensure_user blockhost
ensure_user blockhost-vm
ensure_user blockhost-image
ensure_user blockhost-ct
ensure_member blockhost blockhost-image
ensure_subids blockhost 65536
ensure_subids blockhost-ct $((64 * 65536)) # room for 64 containers in tests
install_node
install_npm_packages engine/contracts         # anvil (the local chain), solc and OpenZeppelin
install_npm_packages proto/clients/typescript # the compiler that checks the client's types
install_npm_packages engine/signup            # what the signup page is bundled from and with, and what drives its browser
if [ "${1:-}" = peers ]; then install_peers; fi
say "done"
