#!/bin/bash
# images.sh base               makes and imports the image of pods' sandboxes (up.sh does it)
# images.sh load ARCHIVE...    imports archives, such as those of k8s/images/build; there is no registry
# images.sh ls
set -eu
. "$(dirname "$0")/env.sh"
root_only
usage() { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
[ $# -gt 0 ] || usage
in_ctr version >/dev/null 2>&1 || die "containerd is not running: run up.sh (all or real)"

base() {
  local name=switchyard.local/pause:1 program=$IMAGES/pause
  mkdir -p "$IMAGES"
  if [ -x "$program" ] && [ ! "$KIT/pause.c" -nt "$program" ] && in_ctr images ls -q | grep -qx "$name"; then return; fi
  "${CC:-cc}" -Os -static -o "$program" "$KIT/pause.c" || die "pause.c does not compile: run install.sh"
  python3 "$KIT/mkimage.py" "$IMAGES/pause.tar" "$name" "$program"
  in_ctr images import "$IMAGES/pause.tar" >/dev/null
}

case $1 in
base) base ;;
load) [ $# -ge 2 ] || usage; shift; for archive in "$@"; do in_ctr images import "$archive"; done ;;
ls) in_ctr images ls ;;
*) usage ;;
esac
