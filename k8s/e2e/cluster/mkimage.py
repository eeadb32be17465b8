#!/usr/bin/env python3
"""mkimage.py OUT.tar NAME:TAG PROGRAM: an OCI image of one static program, for `ctr images import`."""
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

out, name, program = sys.argv[1:]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OCI = "application/vnd.oci.image"
blobs = {}


def archive(files):
    """A tar file of {path: (bytes, mode)}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, (content, mode) in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def described(kind, content):
    """The descriptor of a blob, which is kept for the archive."""
    digest = hashlib.sha256(content).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = (content, 0o644)
    return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def document(value):
    return json.dumps(value).encode()


entry = os.path.basename(program)
with open(program, "rb") as file:
    layer = described("layer.v1.tar", archive({entry: (file.read(), 0o755)}))
config = document({
    "architecture": ARCHITECTURE, "os": "linux", "config": {"Entrypoint": [f"/{entry}"]},
    "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
})
manifest = described("manifest.v1+json", document({
    "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json",
    "config": described("config.v1+json", config), "layers": [layer],
}))
index = document({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [
    {**manifest, "annotations": {"io.containerd.image.name": name}},
]})
with open(out, "wb") as file:
    file.write(archive({"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644), "index.json": (index, 0o644), **blobs}))
