#!/usr/bin/env bash
# Measures llama.cpp on a GGUF file, as `engine-bench --peer engine/peer/llamacpp.sh` asks for it:
#   MODEL=FILE.gguf [THREADS=2] [PROMPTS=128,512] [BATCHES=1,8,25,50] [STEPS=12] engine/peer/llamacpp.sh
# Prints a line per prompt length, and one per batch and prompt length for decoding at that context.
# Linux on x86-64. The libraries come prebuilt from the npm package @node-llama-cpp/linux-x64, which picks the
# best for the CPU at run time, and the headers from the PyPI source package llama-cpp-python; both are kept in
# ${XDG_CACHE_HOME:-$HOME/.cache}/peer-llamacpp. Needs npm, pip and a C compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$(realpath "${MODEL:?MODEL is not set}")
home=${XDG_CACHE_HOME:-$HOME/.cache}/peer-llamacpp
libraries=3.22.1
headers=0.3.36

mkdir -p "$home" && cd "$home"
if [ ! -e lib/libllama.so ]; then
    npm pack --silent "@node-llama-cpp/linux-x64@$libraries" >/dev/null
    tar xzf "node-llama-cpp-linux-x64-$libraries.tgz"
    mkdir -p lib && cp package/bins/linux-x64/*.so lib/
    for name in ggml llama; do
        (cd lib && ln -sf "$(ls "lib$name".v*.so | head -n 1)" "lib$name.so")
    done
fi
include=llama_cpp_python-$headers/vendor/llama.cpp
if [ ! -e "$include/include/llama.h" ]; then
    python3 -m pip download -q --no-deps --no-binary :all: "llama-cpp-python==$headers" -d . >&2
    tar xzf "llama_cpp_python-$headers.tar.gz" --wildcards '*/vendor/llama.cpp/include/*' '*/vendor/llama.cpp/ggml/include/*'
fi
if [ ! driver -nt "$here/llamacpp.c" ]; then
    cc -O2 -Wall -Wextra -I"$include/include" -I"$include/ggml/include" "$here/llamacpp.c" -o driver \
        -Llib -lllama -lggml -lggml-base -Wl,-rpath,"$home/lib" -Wl,-rpath-link,"$home/lib"
fi
exec ./driver "$home/lib" "$model" "${THREADS:-$(nproc)}" "${PROMPTS:-128,512}" "${BATCHES:-1,8,25,50}" "${STEPS:-12}"
