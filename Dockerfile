# Both programs in one image: `docker build -t gatehouse .`; compose.yaml runs three of each.
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /gatehouse
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/gatehouse/target \
    cargo build --release --locked -p edge -p origin --bins \
    && cp target/release/edge target/release/origin /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* && useradd --system --create-home --home-dir /gatehouse gatehouse
COPY --from=build /usr/local/bin/edge /usr/local/bin/origin /usr/local/bin/
COPY config /gatehouse/config
WORKDIR /gatehouse
# The local authority of the edges is made here, and shared by a volume.
RUN mkdir certs && chown gatehouse certs
USER gatehouse
