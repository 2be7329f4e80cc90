# The load generator. The build context is the repository's root:
#
#   docker build -f docker/loadgen.Dockerfile -t llm-loadgen .
#   docker run --network host llm-loadgen --host http://127.0.0.1:8000 --users 10

ARG RUST_IMAGE=rust:1.95-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=loadgen-target \
    cargo build --release --locked -p loadgen \
    && cp target/release/loadgen /loadgen

FROM ${DEBIAN_IMAGE}
# Certificates serve https:// hosts; reports are written where a volume can be mounted.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home loadgen \
    && install --directory --owner=loadgen --group=loadgen /var/lib/loadgen
COPY --from=build /loadgen /usr/local/bin/loadgen
WORKDIR /var/lib/loadgen
USER 10001:10001
ENTRYPOINT ["loadgen"]
