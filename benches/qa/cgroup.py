"""A memory limit on one process, by version 2 or 1 of the kernel's cgroups."""

import os
import pathlib
import time


class Group:
    """One cgroup with a limit. `why` says why there is none."""

    def __init__(self, limit):
        self.folder, self.why, self.two = None, "no memory cgroup is mounted", False
        for folder, two in places():
            new = folder / f"switchyard-bench-{os.getpid()}"
            try:
                new.mkdir()
                self.folder, self.two = new, two
                names = ("memory.max", "memory.swap.max", "0") if two else (
                    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", str(limit))
                (new / names[0]).write_text(str(limit))
                # Not there where swap isn't counted.
                if (new / names[1]).exists():
                    (new / names[1]).write_text(names[2])
                return
            except OSError as error:
                self.why = f"{new}: {error.strerror}"
                self.remove()

    def version(self):
        return "cgroup v2" if self.two else "cgroup v1"

    def command(self, command):
        """The command, run within the limit."""
        if not self.folder:
            return command
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def peak(self):
        return self.number("memory.peak" if self.two else "memory.max_usage_in_bytes")

    def anonymous(self):
        """Of what is in use, what can't be had back."""
        return self.field("memory.stat", "anon" if self.two else "total_rss")

    def limit_was_hit(self):
        """How often the kernel had to look for memory to take back."""
        return self.field("memory.events", "max") if self.two else self.number("memory.failcnt")

    def kills(self):
        return self.field("memory.events" if self.two else "memory.oom_control", "oom_kill")

    def number(self, name):
        return int((self.folder / name).read_text()) if self.folder else 0

    def field(self, name, key):
        if not self.folder:
            return 0
        lines = (line.split() for line in (self.folder / name).read_text().splitlines())
        return next((int(value) for word, value in lines if word == key), 0)

    def remove(self):
        for _ in range(100):
            try:
                if self.folder:
                    self.folder.rmdir()
                self.folder = None
                return
            except OSError:
                time.sleep(0.05)


def places():
    """Folders in which a group may be made, and whether they are version 2."""
    mounts = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for mount in mounts:
            kind = mount[mount.index("-") + 1]
            folder = pathlib.Path(mount[4] + path)
            if controllers == "" and kind == "cgroup2":
                if "memory" in read(folder / "cgroup.subtree_control"):
                    yield folder, True
                elif "memory" in read(folder.parent / "cgroup.subtree_control"):
                    yield folder.parent, True
            if "memory" in controllers.split(",") and kind == "cgroup" and "memory" in mount[-1].split(","):
                yield folder, False


def read(path):
    try:
        return path.read_text().split()
    except OSError:
        return []
