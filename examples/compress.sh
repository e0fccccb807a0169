#!/bin/sh
# One task of an array: compress the file on line TQ_MEMBER of a list into ./compressed.
#
#   tq submit --array 1-"$(wc -l <list)" -- compress.sh list
set -eu
file=$(sed -n "${TQ_MEMBER}p" "$1")
name=${file##*/}
gzip -9 -c "$file" >"compressed/$name.gz"
echo "$name: $(wc -c <"$file") bytes, compressed $(wc -c <"compressed/$name.gz")"
