# Which units start with the host. One that comes, at an installation or with an upgrade, does as the presets say; what the
# operator says from then on stays, and a unit that is on gets what its new version is wanted by. deb-systemd-helper has the record.
# Put into every script when a package is built, with the names of those of its units that can be enabled.
units="@UNITS@"
came=" "

# Takes down what is there, on or off as it is: nothing of it has come just now.
note_units() {
    for unit in $units; do
        [ -e "$DPKG_ROOT/usr/lib/systemd/system/$unit" ] || continue
        deb-systemd-helper debian-installed "$unit" || deb-systemd-helper update-state "$unit"
    done
}

# A unit that is masked is no reason to fail.
enable_units() {
    for unit in $units; do
        deb-systemd-helper debian-installed "$unit" || came="$came$unit "
        if deb-systemd-helper --quiet was-enabled "$unit"; then
            deb-systemd-helper enable "$unit" || true
        else
            deb-systemd-helper update-state "$unit" || true
        fi
    done
}

# Whether a unit has come with this installation or upgrade, and is on.
has_come() { # has_come UNIT
    case $came in
        *" $1 "*) deb-systemd-helper --quiet is-enabled "$1" ;;
        *) return 1 ;;
    esac
}

# At a removal: what is on goes off, and comes again with the next installation. What is off stays off.
forget_units() {
    on=
    # All are looked at first: one may be on by another's Also=.
    for unit in $units; do
        if deb-systemd-helper --quiet was-enabled "$unit"; then on="$on $unit"; fi
    done
    # shellcheck disable=SC2086 # words
    [ -z "$on" ] || deb-systemd-helper purge $on
}
