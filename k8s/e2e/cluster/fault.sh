#!/bin/bash
# What goes wrong in a cluster, for the proofs that need it.
#
#   fault.sh kill NAMESPACE POD   kills the processes of a pod's containers (SIGKILL); the kubelet starts them again
#   fault.sh api-stop             stops the API server
#   fault.sh api-start            starts it again
set -eu
. "$(dirname "$0")/env.sh"
root_only
usage() { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }

kill_pod() {
  local labels="labels.\"io.kubernetes.pod.namespace\"==$1,labels.\"io.kubernetes.pod.name\"==$2" ids id
  ids=$(in_ctr containers ls -q "$labels,labels.\"io.cri-containerd.kind\"==container")
  [ -n "$ids" ] || die "no container of pod $2 in namespace $1 is on the real node"
  for id in $ids; do in_ctr tasks kill -s KILL "$id" 2>/dev/null || true; done   # an earlier one of the pod has no process
}

case ${1:-} in
kill) [ $# = 3 ] || usage; kill_pod "$2" "$3" ;;
api-stop) lock; stop apiserver ;;
api-start) exec "$KIT/up.sh" all ;;
*) usage ;;
esac
