#!/bin/bash
# build.sh [NAME...]   builds the programs of the cluster from Go modules into the state folder's bin/ and skips those that are there.
# NAME: kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet (all needed), kubectl (made if there is none),
#       etcd metrics-server (optional: a failure is told and passed over)
# Settings: K8S=1.36.1 another patch version; STAGING=0.36.2 another version of the staging modules; GO=/path/to/go;
#           GOMOD_EDIT='-replace=k8s.io/kms=k8s.io/kms@v0.36.2' edits of the copied go.mod (flags of `go mod edit`); FORCE=1 builds again.
set -eu
. "$(dirname "$0")/env.sh"
K8S=${K8S:-1.36.3} STAGING=${STAGING:-0.${K8S#1.}}
GO=${GO:-go}; command -v "$GO" >/dev/null || die "go is missing: Go 1.26 is needed"
export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off GOTOOLCHAIN=${GOTOOLCHAIN:-local}
case $("$GO" env GOVERSION) in
go1.26*) ;;
go1.2[0-5]*) die "$("$GO" version) is too old: Go 1.26 is needed" ;;
# kube-openapi takes encoding/json/v2 where it is on and then serves a malformed OpenAPI: `kubectl apply` could not validate
*) echo "$("$GO" version): 1.26 is the version to use; json/v2 is turned off"; export GOEXPERIMENT=${GOEXPERIMENT:+$GOEXPERIMENT,}nojsonv2 ;;
esac

need_kube=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet) optional=(etcd metrics-server)
if [ $# -gt 0 ]; then wanted=("$@"); else
  wanted=("${need_kube[@]}" "${optional[@]}"); command -v kubectl >/dev/null || wanted+=(kubectl)
fi

# module NAME: the folder of tools/ that holds NAME's go.mod; package NAME: what to build; stamp NAME: what is to be in bin/NAME.version
module() { case $1 in etcd | metrics-server) echo "$1" ;; *) echo kubernetes ;; esac; }
package() { case $1 in etcd) echo go.etcd.io/etcd/server/v3 ;; metrics-server) echo sigs.k8s.io/metrics-server/cmd/metrics-server ;; *) echo "k8s.io/kubernetes/cmd/$1" ;; esac; }
kit_mod() { case $1 in kubernetes) echo "$KIT/tools/go.mod" ;; *) echo "$KIT/tools/$1/go.mod" ;; esac; }
version() { case $1 in kubernetes) echo "v$K8S" ;; *) awk '$1 == "require" {print $3}' "$(kit_mod "$1")" ;; esac; }
stamp() { local m; m=$(module "$1"); echo "$1 $(version "$m") $(sha256sum <"$(kit_mod "$m")" | cut -c1-12) $STAGING ${GOMOD_EDIT:-}"; }
built() { [ -z "${FORCE:-}" ] && [ -x "$BIN/$1" ] && [ "$(cat "$BIN/$1.version" 2>/dev/null)" = "$(stamp "$1")" ]; }

# workdir MODULE: the module's folder in the state folder, with a fresh go.mod where the kit's, or a setting, has changed
workdir() {
  local m=$1 d=$STATE/tools/$1; mkdir -p "$d"
  sed "s/ v1\.36\.3$/ v$K8S/; s/ v0\.36\.3$/ v$STAGING/" "$(kit_mod "$m")" >"$d/go.mod.new"
  # shellcheck disable=SC2086  # a list of flags
  if [ "$m" = kubernetes ] && [ -n "${GOMOD_EDIT:-}" ]; then "$GO" mod edit $GOMOD_EDIT "$d/go.mod.new"; fi
  if cmp -s "$d/go.mod.new" "$d/go.mod.from"; then rm "$d/go.mod.new"; else mv "$d/go.mod.new" "$d/go.mod.from"; cp "$d/go.mod.from" "$d/go.mod"; fi
  echo "$d"
}

ldflags() {
  local p v=$1 set="-s -w"
  for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    set="$set -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=$(cut -d. -f2 <<<"$v") -X $p.gitTreeState=archive -X $p.gitCommit=module -X $p.buildDate=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  done
  echo "$set"
}

# fetch MODULE NAME...: completes go.mod and go.sum and downloads what the programs import, before anything is compiled
fetch() {
  local m=$1 d t0=$SECONDS n packages=(); shift
  d=$(workdir "$m"); for n in "$@"; do packages+=("$(package "$n")"); done
  (cd "$d" && "$GO" list -deps "${packages[@]}" >/dev/null) || return 1
  echo "modules of $m are there after $((SECONDS - t0)) s"
}
build() {
  local n=$1 m d t0=$SECONDS flags="-s -w"; m=$(module "$n"); d=$STATE/tools/$m
  if [ "$m" = kubernetes ]; then flags=$(ldflags "v$K8S"); fi
  rm -f "$BIN/$n.version"
  (cd "$d" && nice -n 10 "$GO" build -trimpath -ldflags "$flags" -o "$BIN/$n.new" "$(package "$n")") || return 1
  mv -f "$BIN/$n.new" "$BIN/$n"; stamp "$n" >"$BIN/$n.version"
  echo "$n $(version "$m") built in $((SECONDS - t0)) s"
}
advice() {
  cat >&2 <<END
build.sh: $1
  a module version that is not served: STAGING=0.36.2 build.sh, or for one module GOMOD_EDIT='-replace=k8s.io/X=k8s.io/X@v0.36.2' build.sh
  k8s.io/kubernetes itself not served: K8S=1.36.1 STAGING=0.36.2 build.sh (not 1.37: its kubelet does not take containerd 1.6)
  a full disk: about 8 GB are needed in GOCACHE and GOMODCACHE
END
  exit 1
}

mkdir -p "$BIN"
todo=(); for n in "${wanted[@]}"; do if built "$n"; then echo "$n is there ($(version "$(module "$n")"))"; else todo+=("$n"); fi; done
kube=(); for n in "${todo[@]}"; do if [ "$(module "$n")" = kubernetes ]; then kube+=("$n"); fi; done
if [ ${#kube[@]} -gt 0 ]; then
  fetch kubernetes "${kube[@]}" || advice "the modules of Kubernetes v$K8S could not be had"
  for n in "${kube[@]}"; do build "$n" || advice "$n could not be built"; done
fi
for n in "${todo[@]}"; do
  if [ "$(module "$n")" != kubernetes ]; then
    { fetch "$n" "$n" && build "$n"; } || echo "$n could not be built; the cluster works without it$([ "$n" = etcd ] && echo " (with Debian's etcd)")" >&2
  fi
done
echo "$SECONDS s in all; next: up.sh"
