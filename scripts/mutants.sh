#!/bin/bash
# Mutation tests of validation and policy: each rule is changed in one place, and some test has to fail. Takes hours, so
# it is no part of 'make test'. What survives is argued in docs/mutants.md.
#   scripts/mutants.sh [proto|agent] [cargo-mutants arguments]      without a part: both
# Results: target/mutants/<part>/mutants.out. '--iterate' tests only what survived the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VERSION=27.1.0
target=${CARGO_TARGET_DIR:-target}
cargo mutants --version >/dev/null 2>&1 || {
    echo "mutants: installing cargo-mutants $VERSION"
    cargo install cargo-mutants --locked --version "$VERSION"
}
parts=(proto agent)
case ${1:-} in proto | agent) parts=("$1"); shift ;; esac

# No debug information: building is most of the time. A lower priority than anything that somebody waits for.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
mutants() { # mutants PART ARGUMENT...
    local part=$1
    shift
    mkdir -p "$target/mutants"
    CARGO_TARGET_DIR="$target/mutants/build" nice -n 19 cargo mutants -j1 --timeout 120 --build-timeout 900 \
        -o "$target/mutants/$part" "$@"
}

# A survivor is a finding, not a failure of the run: the summary names them.
for part in "${parts[@]}"; do
    case $part in
        proto) mutants proto -p blockhost-proto --features test-corpus -f 'proto/src/{json,wire,request,options}.rs' \
            -f 'proto/src/{value,qm,pct,flow,action}/*.rs' "$@" || [ $? = 2 ] ;;
        agent) mutants agent -p blockhost-root-agent -f 'root-agent/src/{policy,allow}/*.rs' \
            -f 'root-agent/src/front/meter.rs' \
            "$@" -- --lib || [ $? = 2 ] ;;
    esac
    echo "mutants: $part: survivors in $target/mutants/$part/mutants.out/missed.txt"
done
