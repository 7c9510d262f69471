#!/bin/sh
# shellcheck disable=SC2154 # the client sets them
# What the guest's DHCP client does with a lease: address, route, name server.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}" up
for gateway in $router; do route add default gw "$gateway" dev "$interface"; done
: >/etc/resolv.conf
for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
