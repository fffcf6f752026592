#!/bin/sh
# Makes Dovecot a certificate and its users some mail, where there is none yet,
# and becomes Dovecot.
set -eu

# The authority's certificate goes to the volume that popgate reads; its key
# does not outlive this script.
if ! [ -s /srv/tls/upstream.crt ] || ! [ -s /srv/ca/ca.pem ]; then
    work=$(mktemp -d)
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=popgate sample authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj "/CN=dovecot" \
        -keyout "$work/upstream.key" -out "$work/upstream.csr" 2>/dev/null
    printf '%s\n' "subjectAltName=DNS:dovecot,DNS:localhost" "basicConstraints=critical,CA:FALSE" \
        "extendedKeyUsage=serverAuth" >"$work/extensions"
    openssl x509 -req -in "$work/upstream.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" \
        -CAcreateserial -days 3650 -extfile "$work/extensions" -out "$work/upstream.crt" 2>/dev/null
    install -m 0600 "$work/upstream.key" /srv/tls/upstream.key
    install -m 0644 "$work/upstream.crt" /srv/tls/upstream.crt
    install -m 0644 "$work/ca.pem" /srv/ca/ca.pem
    rm -rf "$work"
fi

for user in alice bob; do
    home=/srv/mail/$user
    if ! [ -d "$home" ]; then
        install -d -o vmail -g vmail -m 0700 "$home" "$home/Maildir" \
            "$home/Maildir/cur" "$home/Maildir/new" "$home/Maildir/tmp"
        for mail in /usr/share/sample-mail/*.eml; do
            name=$(basename "$mail" .eml)
            install -o vmail -g vmail -m 0600 "$mail" "$home/Maildir/new/1760000000.$name.sample"
        done
    fi
done

exec dovecot -F
