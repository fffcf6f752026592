# The image holds the popgate binary, the roots of public certificate
# authorities, and nothing of yours: configuration, certificates and keys are
# mounted, or named in the environment (POPGATE_UPSTREAM and so on).
#
#   docker build -t popgate .
#   docker run -p 995:1995 -v /etc/popgate:/etc/popgate:ro \
#       -v popgate-state:/var/lib/popgate popgate \
#       serve --config /etc/popgate/popgate.toml
#
# with pop3s = "[::]:1995" and state = "/var/lib/popgate" in that file: accounts and
# unique ids are in the volume, and outlast the container. What is mounted must be
# readable for user 10001, keys and secrets for nobody else.

FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin popgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/popgate
COPY --from=build /build/target/release/popgate /usr/local/bin/popgate
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/popgate/

# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
WORKDIR /var/lib/popgate

# Ports that need no privilege: publish 110 to 1110 and 995 to 1995. Only what
# the configuration names is listened on, so no HEALTHCHECK can be fixed here;
# docker-compose.yml has one.
EXPOSE 1110 1995

# SIGTERM lets what is under way end (30 seconds by default, so give Docker longer
# than its 10: docker stop -t 40).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/popgate"]
CMD ["serve"]

LABEL org.opencontainers.image.title="popgate" \
      org.opencontainers.image.description="A POP3 server whose mailboxes live on an IMAP or JMAP server" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
