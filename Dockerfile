# syntax=docker/dockerfile:1

# The image of Rejoin's one binary. Build: docker build -t rejoin .
# The caches make a second build take seconds; they are not part of the image.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package server --bin rejoin \
    && install -D target/release/rejoin /out/rejoin

FROM debian:bookworm-slim
# For TLS to NATS and Postgres.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/rejoin /usr/local/bin/rejoin

# No home, no shell, and nothing that it owns: the edge keeps no state on disk.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin rejoin
USER 10001:10001

EXPOSE 8080
# SIGTERM drains: not ready, `goaway` to every client, then the end. Give it more time than the drain takes
# (22 s by default) before it is killed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/rejoin"]
CMD ["serve"]
