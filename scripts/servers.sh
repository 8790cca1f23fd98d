#!/bin/sh
# Makes sure of what the tests start and pip cannot bring: bubblewrap, which `make setup` installs, and
# PostgreSQL. As root it installs Debian's package, without its usual cluster. Does nothing when there
# is one already.
set -eu
cd "$(dirname "$0")/.."

# Read by pg_createcluster; ours for as long as the installation takes.
no_cluster=/etc/postgresql-common/createcluster.d/warmline.conf

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# The tests look in the same places (tests/postgres.py).
found() {
    for binary in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres || :)"; do
        if [ -x "$binary" ] && [ -x "$(dirname "$(readlink -f "$binary")")/initdb" ]; then
            return 0
        fi
    done
    return 1
}

clean_up() {
    rm -f "$no_cluster" "$log"
    rmdir "$(dirname "$no_cluster")" 2>/dev/null || :
}

command -v bwrap >/dev/null ||
    fail "The tests need bubblewrap." "Run: sudo apt-get install bubblewrap"
if found; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "The tests need PostgreSQL's server, of which they start one of their own." \
        "Run: sudo apt-get install postgresql"
fi
say "installing the Debian package postgresql; no cluster is made and none is started"
log=$(mktemp)
trap clean_up EXIT
mkdir -p "$(dirname "$no_cluster")"
echo 'create_main_cluster = false' >"$no_cluster"
if ! { apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "postgresql could not be installed; its last words are above."
fi
found || fail "postgresql is installed, and still its binaries are not found."
