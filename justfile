# Short names for what the scripts do: `just` lists them.

[private]
default:
    @just --list

# All that must pass before a change goes in
test:
    ./test

# What CI runs
ci:
    .ci/run

# Format, and lint
lint:
    cargo fmt
    cargo clippy --all-targets --locked -- -D warnings

# Show popgate at work in front of a real Dovecot and a real Cyrus
demo *ARGS:
    ./demo {{ARGS}}

# How fast popgate is, beside others (some minutes)
bench *ARGS:
    ./bench {{ARGS}}

# Unpack the mail servers and clients that tests use into target/servers
servers:
    scripts/fetch-servers

# Start a Dovecot of one's own in DIR (and `scripts/stop-dovecot DIR`)
dovecot DIR:
    scripts/start-dovecot {{DIR}}
    cat {{DIR}}/ports.env

# Licences, sources and banned crates
deny:
    cargo deny check bans licenses sources
