# The gateway with its demo model. The build context is the repository's root:
#
#   docker build -f docker/gateway.Dockerfile -t llm-gateway .
#   docker run -p 127.0.0.1:8000:8000 llm-gateway
#
# FEATURES names cargo features. `--build-arg FEATURES=cuda` also takes NVIDIA's base images, to be run with
# `--gpus all` and NVIDIA's driver for CUDA 13, 580 or newer; docker/compose.cuda.yaml does both.

ARG FEATURES=""
ARG RUST_IMAGE=rust:1.95-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim
ARG CUDA_BUILD_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04
ARG CUDA_RUN_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${RUST_IMAGE} AS build-cpu

FROM ${CUDA_BUILD_IMAGE} AS build-cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-cpu /usr/local/rustup /usr/local/rustup
COPY --from=build-cpu /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH

FROM build-${FEATURES:-cpu} AS build
ARG FEATURES
WORKDIR /src
COPY . .
# Registry and target live in caches, so that a changed source file rebuilds only what it must;
# a cache is not part of the image, hence the copy at the end.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=gateway-target-${FEATURES} \
    cargo build --release --locked -p gateway --features "${FEATURES}" \
    && cp target/release/gateway /gateway

FROM ${DEBIAN_IMAGE} AS run-cpu
FROM ${CUDA_RUN_IMAGE} AS run-cuda
# Kernels are in the binary and the driver comes from the host; the one library that is missing multiplies matrices.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libcublas-13-0 \
    && rm -rf /var/lib/apt/lists/*

FROM run-${FEATURES:-cpu}
# Certificates serve `gateway model pull`; the models' directory is made here so that a volume mounted on it
# belongs to the user.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home gateway \
    && install --directory --owner=gateway --group=gateway /var/lib/gateway/models
WORKDIR /opt/gateway
COPY --chown=gateway:gateway models/demo models/demo
COPY --from=build /gateway /usr/local/bin/gateway
ENV GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8000 GATEWAY_MODELS_DIR=/var/lib/gateway/models
USER 10001:10001
EXPOSE 8000
# The image has no HTTP client, and needs none: bash opens the socket.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/$GATEWAY_PORT; printf 'GET /health/ready HTTP/1.0\\r\\n\\r\\n' >&3; read -r _ status _ <&3; [ \"$status\" = 200 ]"]
ENTRYPOINT ["gateway"]
