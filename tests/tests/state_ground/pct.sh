#!/bin/sh
# A container manager in miniature: configurations in files, host's ends of interfaces as real devices, the words and
# exit codes of the real ones. `hold-<verb>` in its directory makes it wait there until somebody removes that file.
d="$BLOCKHOST_ROOT/var/lib/blockhost/ct"
[ -d "$d" ] || mkdir "$d"
PATH=/usr/sbin:/usr/bin:/sbin:/bin
verb=$1
shift
id=${1:-}
conf="$d/$id.conf"

hold() {
    [ -e "$d/hold-$verb" ] || return 0
    : >"$d/held-$verb"
    while [ -e "$d/hold-$verb" ]; do sleep 0.05; done
}

put() { # put KEY VALUE: replaces the line of a key
    case $1 in
    rootfs) set -- "$1" "${2%%:*}:$id/disk.raw,size=${2##*:}G" ;;
    net*)
        case $2 in *hwaddr=*) ;; *) set -- "$1" "$2,hwaddr=02:00:00:00:0${1#net}:$(printf %02X $((id % 256)))" ;; esac
        set -- "$1" "$2,type=veth"
        ;;
    esac
    [ -e "$conf" ] && grep -v "^$1: " "$conf" >"$conf.new"
    printf '%s: %s\n' "$1" "$2" >>"$conf.new"
    mv "$conf.new" "$conf"
}

links() { sed -n 's/^net\([0-9]*\): .*/\1/p' "$conf"; }
name() { [ "$1" = 0 ] && echo "vi$id" || echo "vi${id}_$1"; }

case $verb in
list) ;;
create) [ -e "$conf" ] && { echo "CT $id already exists on node 'here'" >&2; exit 255; } ;;
*) [ -e "$conf" ] || { echo "Configuration file 'nodes/here/lxc/$id.conf' does not exist" >&2; exit 2; } ;;
esac

case $verb in
list)
    printf '%-10s %-10s %-12s %-20s\n' VMID Status Lock Name
    for conf in "$d"/*.conf; do
        [ -e "$conf" ] || continue
        id=${conf##*/}
        id=${id%.conf}
        status=stopped
        [ -e "$d/$id.run" ] && status=running
        printf '%-10s %-10s %-12s %-20s\n' "$id" "$status" '' "$(sed -n 's/^hostname: //p' "$conf")"
    done
    ;;
create)
    hold
    shift 2
    while [ $# -ge 2 ]; do
        put "${1#--}" "$2"
        shift 2
    done
    ;;
set)
    shift
    while [ $# -ge 2 ]; do
        put "${1#--}" "$2"
        shift 2
    done
    ;;
config) cat "$conf" ;;
status) [ -e "$d/$id.run" ] && echo 'status: running' || echo 'status: stopped' ;;
start)
    hold
    for n in $(links); do
        ip link add "$(name "$n")" type veth peer name "in${id}_$n" || exit 1
        ip link set "$(name "$n")" up
        ip link set "in${id}_$n" up
    done
    # It runs once it has its interfaces, as with the real ones.
    : >"$d/$id.run"
    ;;
stop | shutdown)
    rm -f "$d/$id.run"
    for n in $(links); do ip link del "$(name "$n")" 2>&-; done
    ;;
destroy)
    [ -e "$d/$id.run" ] && { echo "unable to destroy CT $id - container is running" >&2; exit 255; }
    rm -f "$conf"
    ;;
esac
exit 0
