#!/bin/sh
# Stands in for grpcurl, which no package of Debian, PyPI or npm holds: the flags that the documentation uses, as
# `buf curl` spells them. grpcurl ends with 64 + the gRPC status, buf curl with 8 times that status.
set -eu
data='{}' header='' address='' target=''
while [ $# -gt 0 ]; do
    case "$1" in
        -plaintext) ;;
        -d) shift; data=$1 ;;
        -H) shift; header=$1 ;;
        -*) echo "grpcurl stand-in: the flag $1 isn't known here" >&2; exit 2 ;;
        *) if [ -z "$address" ]; then address=$1; else target=$1; fi ;;
    esac
    shift
done
set -- --protocol grpc --http2-prior-knowledge
[ -z "$header" ] || set -- "$@" -H "$header"
status=0
case "$target" in
    list) buf curl "$@" --list-services "http://$address" || status=$? ;;
    */*) buf curl "$@" -d "$data" "http://$address/$target" || status=$? ;;
    *) echo "grpcurl stand-in: no method: $target" >&2; exit 2 ;;
esac
[ "$status" -lt 8 ] || status=$((64 + status / 8))
exit "$status"
