#!/bin/sh
# Make the secrets that compose.yaml needs: keys, certificates and passwords, readable for you alone.
#
#     sh scripts/compose_secrets.sh     then docker compose up --build
#
# They go into secrets/ and .env, which git does not take. What is there already stays.
# The certificates are signed by an authority of their own, secrets/ca.pem, for trying out on one
# machine: in production put the certificate that browsers know into secrets/server.pem and .key.
set -eu
umask 077
cd "$(dirname "$0")/.."
mkdir -p secrets

[ -e secrets/ca.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -days 3650 -subj "/CN=fhir-server compose" -keyout secrets/ca.key -out secrets/ca.pem 2>/dev/null

certificate() { # name, names
    [ -e "secrets/$1.pem" ] && return
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
        -keyout "secrets/$1.key" -out "secrets/$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\n' "$2" > "secrets/$1.ext"
    openssl x509 -req -in "secrets/$1.csr" -CA secrets/ca.pem -CAkey secrets/ca.key -days 825 \
        -CAcreateserial -extfile "secrets/$1.ext" -out "secrets/$1.pem" 2>/dev/null
    rm "secrets/$1.csr" "secrets/$1.ext"
}
for member in mongo1 mongo2 mongo3; do
    certificate "$member" "DNS:$member,DNS:localhost"
    # mongod wants both in one file.
    [ -e "secrets/$member.both.pem" ] ||
        cat "secrets/$member.key" "secrets/$member.pem" > "secrets/$member.both.pem"
done
certificate server "DNS:localhost,IP:127.0.0.1"

random() { openssl rand -hex 32; }
[ -e secrets/master.key ] || random > secrets/master.key
[ -e secrets/mongo.key ] || openssl rand -base64 756 > secrets/mongo.key
[ -e secrets/root_password ] || random > secrets/root_password
touch .env
grep -q '^FHIR_MONGODB_PASSWORD=' .env || printf 'FHIR_MONGODB_PASSWORD=%s\n' "$(random)" >> .env
grep -q '^FHIR_USER=' .env || printf 'FHIR_USER=%s:%s\n' "$(id -u)" "$(id -g)" >> .env
echo "secrets/ and .env are there."
