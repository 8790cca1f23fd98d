#!/bin/sh
# Makes .venv: the service, its command line and the development tools, at the versions in
# constraints.txt. Does nothing when that is done already.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
python=$venv/bin/python
stamp=$venv/.bootstrapped
# Read from here too: what the lint of the contract needs besides our own files.
third_party=third_party/proto/google/rpc

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# What the service puts CLI processes into. It is no reason to fail: one can do without.
want_bubblewrap() {
    command -v bwrap >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "bubblewrap is missing, without which the service starts with --sandbox none alone" \
            "(Debian: sudo apt-get install bubblewrap)"
        return
    fi
    say "installing the Debian package bubblewrap"
    log=$(mktemp)
    if ! { apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bubblewrap; } \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "bubblewrap could not be installed; its last words are above"
    fi
    rm -f "$log"
}

wanted() { cat pyproject.toml constraints.txt scripts/bootstrap.sh | cksum; }

# The first interpreter that is new enough; $PYTHON overrides.
find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and was not found." \
        "Install it (Debian: apt-get install python3 python3-venv), or set PYTHON to its path."
}

# Debian keeps what `venv` needs in a package of its own.
need_ensurepip() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$1 cannot make virtual environments." "Run: sudo apt-get install python3-venv"
    fi
    say "installing the Debian package python3-venv"
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv; } \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "python3-venv could not be installed; its last words are above."
    fi
    rm -f "$log"
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "python3-venv is installed, and still $1 cannot make virtual environments."
}

make_venv() {
    base=$(find_python)
    need_ensurepip "$base"
    say "making $venv with $base ($("$base" -c 'import platform; print(platform.python_version())'))"
    "$base" -m venv --clear "$venv"
}

pip() { "$python" -m pip --disable-pip-version-check "$@"; }

install_with_uv() {
    pip install --quiet --constraint constraints.txt uv &&
        "$python" -m uv pip install --quiet --python "$python" --constraint constraints.txt \
            --build-constraint constraints.txt --group dev --editable '.[cli,http,postgres,s3]'
}

# An old pip knows no dependency groups, so they are read for it.
install_with_pip() {
    groups=$(mktemp)
    "$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["dependency-groups"]["dev"]))
' >"$groups"
    status=0
    pip install --quiet --constraint constraints.txt --requirement "$groups" \
        --editable '.[cli,http,postgres,s3]' || status=$?
    rm -f "$groups"
    return "$status"
}

install_packages() {
    say "installing $(grep -c == constraints.txt) packages into $venv (a minute or two at first)"
    install_with_uv && return
    say "uv did not do it, trying pip"
    install_with_pip || fail "the packages could not be installed; the reason is above."
}

unpack_protos() {
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$third_party"
    cp "$site/google/rpc/status.proto" "$third_party/"
}

want_bubblewrap
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && [ -f "$third_party/status.proto" ] &&
    "$python" -c '' 2>/dev/null; then
    exit 0
fi
started=$(date +%s)
"$python" -c '' 2>/dev/null || make_venv
install_packages
unpack_protos
wanted >"$stamp"
say "done in $(($(date +%s) - started)) s"
