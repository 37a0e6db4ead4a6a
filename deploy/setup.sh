#!/bin/sh
# Makes users of the broker and the store, with random passwords, below a folder for secrets.
#
#     deploy/setup.sh                   worker, gateway, operator, and metrics (KEDA, exporters)
#     deploy/setup.sh alice bob         and these tenants, now or later
#
# What is there is kept: remove a user's files to give it another password. For compose the names
# of the services are right; elsewhere set BROKER_ADDRESS and STORE_ADDRESS (host:port), and
# BROKER_SCHEME=amqps, STORE_SCHEME=rediss for TLS.
#
# SECRETS (default: the folder "secrets" beside this file) then has
#     definitions.d/   for RabbitMQ: definitions.json and one file for each user
#     users.acl        for Redis
#     urls/            USER.broker-url and USER.store-url, to hand to the user
# No password but in urls/: RabbitMQ and Redis get digests.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
secrets=${SECRETS:-$here/secrets}
broker=${BROKER_SCHEME:-amqp}://%s:%s@${BROKER_ADDRESS:-broker:5672}/%%2f
store=${STORE_SCHEME:-redis}://%s:%s@${STORE_ADDRESS:-store:6379}/0

# This folder keeps others out. The files in it can be read by everybody, since compose mounts them
# with their modes, and the users inside the containers are not the owner.
umask 022
mkdir -p "$secrets"
chmod 700 "$secrets"
mkdir -p "$secrets/definitions.d" "$secrets/urls" "$secrets/acl.d"

random() {  # BYTES, in hexadecimal digits
    od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

binary() {  # turns hexadecimal digits into bytes
    fold -w 2 | while read -r digits || [ -n "$digits" ]; do
        # shellcheck disable=SC2059 # The format is the byte.
        printf "\\$(printf %03o "0x$digits")"
    done
}

sha256() {  # of the input, in hexadecimal digits
    sha256sum | cut -d ' ' -f 1
}

# RabbitMQ's form: four bytes of salt, the digest of salt and password, both in base64.
broker_hash() {
    salt=$(random 4)
    digest=$({ printf %s "$salt" | binary; printf %s "$1"; } | sha256)
    printf %s "$salt$digest" | binary | base64 -w 0
}

write() {  # FILE, whole or not at all
    cat > "$1.new"
    mv "$1.new" "$1"
}

add_user() {  # ROLE USER
    role=$1 user=$2
    [ -e "$secrets/urls/$user.store-url" ] && return
    broker_password=$(random 16) store_password=$(random 16)
    hash=$(broker_hash "$broker_password")
    sed "s|@USER@|$user|g; s|@HASH@|$hash|g" "$here/rabbitmq/roles/$role.json" |
        write "$secrets/definitions.d/20-$user.json"
    hash=$(printf %s "$store_password" | sha256)
    rules=$(grep -v '^#' "$here/redis/roles/$role.acl" | sed "s|@USER@|$user|g" | tr '\n' ' ')
    echo "user $user on resetpass #$hash resetkeys resetchannels $rules" |
        write "$secrets/acl.d/$user.acl"
    # shellcheck disable=SC2059 # The formats are ours.
    printf "$broker\n" "$user" "$broker_password" | write "$secrets/urls/$user.broker-url"
    # shellcheck disable=SC2059
    printf "$store\n" "$user" "$store_password" | write "$secrets/urls/$user.store-url"
    echo "$role $user"
}

for tenant; do
    # As the programs want it; and no role's name.
    case $tenant in
        '' | *[!a-z0-9-]* | worker | operator | metrics | gateway | health | default)
            echo "a tenant is named by 1 to 64 of a-z, 0-9 and -, and not as a role is" >&2
            exit 2 ;;
    esac
    [ ${#tenant} -le 64 ] || { echo "$tenant: longer than 64 characters" >&2; exit 2; }
done
write "$secrets/definitions.d/10-cipherscore.json" < "$here/rabbitmq/definitions.json"
add_user worker worker
add_user operator operator
add_user metrics metrics
add_user gateway gateway
for tenant; do add_user tenant "$tenant"; done
{
    echo "user default off resetpass resetkeys resetchannels -@all"
    # For compose to ask whether Redis answers.
    echo "user health on nopass resetkeys resetchannels -@all +ping"
    cat "$secrets"/acl.d/*.acl
} | write "$secrets/users.acl"
