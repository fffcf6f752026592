# The upstream of docker-compose.yml: Dovecot 2.3 as Debian 12 packages it,
# with two users and sample mail. For trying popgate out, not for real mail.

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends dovecot-imapd openssl \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 5000 vmail \
    && useradd --uid 5000 --gid 5000 --home-dir /srv/mail --no-create-home --shell /usr/sbin/nologin vmail \
    && install -d -o vmail -g vmail -m 0700 /srv/mail \
    && install -d -m 0755 /srv/ca \
    && install -d -m 0700 /srv/tls
COPY dovecot.conf users /etc/dovecot/
COPY mail /usr/share/sample-mail
COPY start-dovecot.sh /usr/local/bin/start-dovecot

EXPOSE 143 993
ENTRYPOINT ["/bin/sh", "/usr/local/bin/start-dovecot"]
