#!/bin/sh
# Runs the kernels' tests as aarch64 code under qemu, on Debian 12 amd64 and as root: NEON against f64 without
# such a machine. Debian's rustc-web is used since it comes with a standard library for arm64.
set -eu
cd "$(dirname "$0")/../.."
tools=${TOOLS:-/tmp/aarch64-rust}
if [ ! -x "$tools/rustc" ]; then
    dpkg --add-architecture arm64
    apt-get update -q
    apt-get install -y -q --no-install-recommends qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    mkdir -p "$tools"
    version=$(apt-cache depends libstd-rust-web-dev | sed -n 's/.*Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p')
    llvm=$(apt-cache depends "$version" | sed -n 's/.*Depends: \(libllvm[0-9]*\)$/\1/p')
    (cd "$tools" && apt-get download rustc-web "$version" "$llvm" libstd-rust-web-dev libstd-rust-web-dev:arm64)
    for package in "$tools"/*.deb; do dpkg -x "$package" "$tools/root"; done
    cat > "$tools/rustc" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$tools/root/usr/lib/x86_64-linux-gnu
exec $tools/root/usr/bin/rustc --sysroot $tools/root/usr "\$@"
END
    chmod +x "$tools/rustc"
fi
export RUSTC="$tools/rustc" CARGO_TARGET_DIR="$tools/target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
cargo test --package engine --lib --target aarch64-unknown-linux-gnu -- "${@:-kernels}"
