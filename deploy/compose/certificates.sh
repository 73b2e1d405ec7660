#!/bin/sh
# The authority of ../compose.yaml and its certificates, each holder's in a volume of its own that
# nobody else has: /tls/HOLDER. Does nothing where all is there and good for long; issues what is
# missing, and again what ends soon:
#
#   docker compose -f deploy/compose.yaml run --rm certificates   # daily, for one
#
# Parts and etcd read their files again by themselves.
set -eu

authority=/tls/authority
[ -e "$authority/ca.pem" ] || gtm ca init --dir "$authority" --force

# issue HOLDER KIND...: /tls/HOLDER has ca.pem, KIND.pem and KIND.key of this authority afterwards.
issue() {
    folder=/tls/$1
    file=$folder/$2
    shift
    if [ -e "$file.pem" ] && cmp -s "$authority/ca.pem" "$folder/ca.pem"; then
        gtm ca renew --dir "$authority" "$file.pem"
        return
    fi
    gtm ca issue "$@" --dir "$authority" --out "$file" --force
    # The holder runs as another user than we do; nobody but the holder has this volume.
    chmod 644 "$file.key"
    cp "$authority/ca.pem" "$folder/ca.pem"
}

issue etcd etcd --host etcd-1 --host etcd-2 --host etcd-3 --host localhost --host 127.0.0.1
issue coordinator coordinator --host coordinator
issue agent-cn agent --region cn
issue agent-eu agent --region eu
issue agent-us agent --region us
issue resolver-1 resolver --name resolver-1
issue resolver-2 resolver --name resolver-2
issue operator operator --name operator --role admin
issue root operator --name root --role read --etcd-user root
