#!/bin/sh
# Makes sure of what the tests start and pip cannot bring: PostgreSQL, Redis, nginx and a browser, Chromium. As
# root it installs Debian's packages, without PostgreSQL's usual cluster and without starting nginx, now or
# with the machine; the Redis is in redis-tools, which starts none. Does nothing when they are there already.
# bubblewrap comes by `make setup`.
set -eu
cd "$(dirname "$0")/.."

# Read by pg_createcluster; ours for as long as the installation takes.
no_cluster=/etc/postgresql-common/createcluster.d/warmline.conf
# Asked by every package that would start a service.
policy=/usr/sbin/policy-rc.d
own_policy=

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# The tests look in the same places (tests/postgres.py, redis_server.py, nginx.py, http/test_chat_page.py).
has_postgresql() {
    for binary in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres || :)"; do
        if [ -x "$binary" ] && [ -x "$(dirname "$(readlink -f "$binary")")/initdb" ]; then
            return 0
        fi
    done
    return 1
}

has_redis() {
    [ -x /usr/bin/redis-check-rdb ]
}

has_nginx() {
    [ -x /usr/sbin/nginx ]
}

has_chromium() {
    command -v chromium >/dev/null
}

missing() {
    has_postgresql || printf ' postgresql'
    has_redis || printf ' redis-tools'
    has_nginx || printf ' nginx-light'
    has_chromium || printf ' chromium'
}

clean_up() {
    rm -f "$no_cluster" "$log"
    [ -z "$own_policy" ] || rm -f "$policy"
    rmdir "$(dirname "$no_cluster")" 2>/dev/null || :
}

command -v bwrap >/dev/null ||
    fail "The tests need bubblewrap." "Run: sudo apt-get install bubblewrap"
packages=$(missing)
if [ -z "$packages" ]; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "The tests start servers and a browser of their own, which are not installed here." \
        "Run: sudo apt-get install$packages"
fi
say "installing Debian packages:$packages; no cluster is made and no server is started"
log=$(mktemp)
trap clean_up EXIT
mkdir -p "$(dirname "$no_cluster")"
echo 'create_main_cluster = false' >"$no_cluster"
if [ ! -e "$policy" ]; then
    own_policy=1
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
had_nginx=$(has_nginx && echo 1 || :)
# shellcheck disable=SC2086  # one word for each package
if ! { apt-get update &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "$packages could not be installed; the last words are above."
fi
if [ -z "$had_nginx" ] && [ -d /run/systemd/system ]; then
    systemctl disable --quiet nginx.service
fi
left=$(missing)
[ -z "$left" ] || fail "$left: installed, and still not found."
