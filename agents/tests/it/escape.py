# Tries to get out of the sandbox, one attempt a line. WORLD (a dict) comes before this text. Prints, for each attempt,
# its name and whether it was held: "held REASON" or "OUT". Each is made in a process of its own.

import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
AGENT, CALL = WORLD["agent"], WORLD["calls"]
X32 = 0x40000000


def call(name, *arguments, bits=0):
    done = libc.syscall(ctypes.c_long(CALL[name] | bits), *[ctypes.c_long(it) if isinstance(it, int) else it for it in arguments])
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


def status(field):
    with open("/proc/self/status") as lines:
        return next(line for line in lines if line.startswith(field)).split()[1]


# As /proc numbers them, which is not how kill does in a namespace.
SUPERVISOR = int(status("PPid:"))


def read(path):
    with open(path, "rb") as file:
        return file.read(1)


def write(path, how="w", text="x"):
    with open(path, how) as file:
        file.write(text)


def make(path):
    write(path)
    os.unlink(path)


def connect(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(5)
        made.connect(address)


def new_socket(family):
    return lambda: call("socket", family, 1, 0)


def send_from_pair():
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"x", WORLD["datagrams"])


def through_link():
    os.symlink(WORLD["public"], "link")
    try:
        read("link")
    finally:
        os.unlink("link")


def hard_link():
    os.link(WORLD["public"], "hard")
    os.unlink("hard")


def set_user_id():
    said = subprocess.run([WORLD["set_user_id"], "-u"], capture_output=True, text=True)
    if said.returncode or said.stdout.strip() != "0":
        raise OSError(errno.EPERM, said.stdout + said.stderr)


def clone(flags):
    def attempt():
        if call("clone", flags | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)
    return attempt


def clone3(flags):
    def attempt():
        arguments = ctypes.create_string_buffer(struct.pack("<11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0))
        if call("clone3", arguments, 88) == 0:
            os._exit(0)
    return attempt


def machine_code(code):
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


# push rbx; mov eax, 359 (i386's socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
INT_80 = bytes.fromhex("53 b867010000 bb02000000 b901000000 31d2 cd80 5b c3")


def by_another_architecture():
    if WORLD["arch"] != "x86_64":
        raise OSError(errno.ENOSYS, "not on this architecture")
    if machine_code(INT_80) < 0:
        raise OSError(errno.EPERM, "refused")


def process_memory(pid):
    def attempt():
        buffer = ctypes.create_string_buffer(8)
        here = ctypes.create_string_buffer(struct.pack("<QQ", ctypes.addressof(buffer), 8))
        there = ctypes.create_string_buffer(struct.pack("<QQ", 0x10000, 8))
        try:
            call("process_vm_readv", pid, here, 1, there, 1, 0)
        except OSError as error:
            # Nothing at that address, but access to it.
            if error.errno != errno.EFAULT:
                raise
    return attempt


def descriptors_of(pid):
    return lambda: call("pidfd_getfd", call("pidfd_open", pid, 0), 0, 0)


def type_into_terminal():
    _, terminal = os.openpty()
    fcntl.ioctl(terminal, 0x5412, b"x")


def inherited():
    # Python has its program open.
    targets = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if int(number) > 2 and int(number) not in WORLD["pipes"] and "/fd" not in target:
            targets.append(target)
    if all(target.startswith(os.getcwd()) for target in targets):
        raise OSError(errno.EBADF, "none")
    raise RuntimeError(targets)


def raise_limit(name):
    def attempt():
        _, most = resource.getrlimit(name)
        if most == resource.RLIM_INFINITY:
            raise OSError(errno.EINVAL, "has none")
        try:
            resource.setrlimit(name, (most + 1, most + 1))
        except ValueError as error:
            raise OSError(errno.EPERM, str(error)) from error
    return attempt


def cgroup_files():
    reasons = []
    for line in open("/proc/self/cgroup").read().splitlines():
        _, controllers, path = line.split(":", 2)
        top = "/sys/fs/cgroup/" + controllers
        for folder in (top + path, "/sys/fs/cgroup/unified" + path, os.path.dirname(top + path), top):
            for name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cgroup.procs"):
                try:
                    with open(f"{folder}/{name}", "w"):
                        return
                except OSError as error:
                    reasons.append(error.errno)
    raise OSError(reasons[0], "none can be opened")


def keep_memory_in_a_file():
    made = call("memfd_create", ctypes.c_char_p(b"x"), 0)
    os.write(made, b"x")


def bpf_map():
    call("bpf", 0, ctypes.create_string_buffer(struct.pack("<IIII", 2, 4, 4, 1) + bytes(100)), 72)


def perf():
    attribute = struct.pack("<IIQ", 1, 128, 0) + bytes(112)
    call("perf_event_open", ctypes.create_string_buffer(attribute), 0, -1, -1, 0)


def handle():
    buffer = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, ctypes.c_char_p(b"/"), buffer, ctypes.byref(mount), 0)


def race():
    # One swaps a folder for a link, the other goes through it.
    os.makedirs("race/sub", exist_ok=True)
    write("race/sub/token")
    other = os.fork()
    if other == 0:
        while True:
            os.rename("race/sub", "race/old")
            os.symlink(os.path.dirname(WORLD["public"]), "race/sub")
            os.unlink("race/sub")
            os.rename("race/old", "race/sub")
    try:
        for _ in range(5000):
            try:
                if open("race/sub/" + os.path.basename(WORLD["public"])).read():
                    return
            except OSError:
                pass
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    raise OSError(errno.ENOENT, "never")


ATTEMPTS = {
    # The agent and the supervisor.
    "environment of the agent": lambda: read(f"/proc/{AGENT}/environ"),
    "memory of the agent": lambda: read(f"/proc/{AGENT}/mem"),
    "maps of the agent": lambda: read(f"/proc/{AGENT}/maps"),
    "descriptors of the agent": lambda: os.listdir(f"/proc/{AGENT}/fd"),
    "what a descriptor of the agent is": lambda: os.readlink(f"/proc/{AGENT}/fd/1"),
    "root of the agent": lambda: os.listdir(f"/proc/{AGENT}/root/"),
    "working folder of the agent": lambda: os.listdir(f"/proc/{AGENT}/cwd/"),
    "memory of the supervisor": lambda: write(f"/proc/{SUPERVISOR}/mem", "r+"),
    "root of the supervisor": lambda: os.listdir(f"/proc/{SUPERVISOR}/root/"),
    "ptrace of the agent": lambda: call("ptrace", 16, AGENT, 0, 0),
    "ptrace of itself": lambda: call("ptrace", 0, 0, 0, 0),
    "process_vm_readv of the agent": process_memory(AGENT),
    "process_vm_readv of the supervisor": process_memory(SUPERVISOR),
    "pidfd_getfd of the agent": descriptors_of(AGENT),
    "pidfd_getfd of the supervisor": descriptors_of(SUPERVISOR),
    "signal to the agent": lambda: os.kill(AGENT, 0),
    "signal to the agent by descriptor": lambda: call("pidfd_send_signal", call("pidfd_open", AGENT, 0), 0, 0, 0),
    "limits of the agent": lambda: resource.prlimit(AGENT, resource.RLIMIT_NOFILE),
    "CPUs of the agent": lambda: os.sched_setaffinity(AGENT, os.sched_getaffinity(0)),
    "priority of the agent": lambda: os.setpriority(os.PRIO_PROCESS, AGENT, 19),
    "inherited descriptors": inherited,
    # Files.
    "reading a public file outside": lambda: read(WORLD["public"]),
    "reading the agent's private file": lambda: read(WORLD["private"]),
    "reading it by /proc/self/root": lambda: read("/proc/self/root" + WORLD["public"]),
    "reading it through a link": through_link,
    "reading it by a second name": hard_link,
    "reading it in a race": race,
    "reading /etc/shadow": lambda: read("/etc/shadow"),
    "reading raw memory": lambda: read("/dev/mem"),
    "reading the kernel's log": lambda: read("/dev/kmsg"),
    "listing /": lambda: os.listdir("/"),
    "listing /tmp": lambda: os.listdir("/tmp"),
    "listing /var": lambda: os.listdir("/var"),
    "listing /run": lambda: os.listdir("/run"),
    "listing /home": lambda: os.listdir("/home"),
    "listing the other workspaces": lambda: os.listdir(".."),
    "listing /etc": lambda: os.listdir("/etc"),
    "reading /sys": lambda: os.listdir("/sys"),
    "writing a file outside": lambda: write(WORLD["public"]),
    "making a file outside": lambda: make(WORLD["open"] + "/new"),
    "making a folder outside": lambda: os.rmdir(os.mkdir(WORLD["open"] + "/folder") or WORLD["open"] + "/folder"),
    "shortening a file outside": lambda: os.truncate(WORLD["public"], 0),
    "removing a file outside": lambda: os.unlink(WORLD["public"]),
    "moving a file outside": lambda: os.rename(WORLD["public"], WORLD["public"] + "-moved"),
    "permissions of the agent's file": lambda: os.chmod(WORLD["private"], 0o777),
    "making a file in /dev/shm": lambda: make("/dev/shm/switchyard-escape"),
    "making a file in /tmp": lambda: make("/tmp/switchyard-escape"),
    "writing /etc/hosts": lambda: write("/etc/hosts", "a", ""),
    "writing /usr": lambda: make("/usr/switchyard-escape"),
    "writing /proc/sys": lambda: write("/proc/sys/kernel/hostname", "w", ""),
    "writing /proc/sysrq-trigger": lambda: write("/proc/sysrq-trigger", "w", ""),
    "its own place in the order of kills": lambda: write("/proc/self/oom_score_adj", "w", "0"),
    "cgroup files": cgroup_files,
    # Sockets.
    **{f"socket of family {name}": new_socket(number) for name, number in [
        ("UNIX", 1), ("INET", 2), ("INET6", 10), ("NETLINK", 16), ("PACKET", 17), ("KEY", 15), ("ALG", 38), ("VSOCK", 40),
        ("BLUETOOTH", 31), ("TIPC", 30), ("XDP", 44),
    ]},
    "the agent's port": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", WORLD["port"])),
    "a local socket by path": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, WORLD["socket"]),
    "a local socket by abstract name": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + WORLD["abstract"]),
    "a datagram from a pair": send_from_pair,
    "io_uring": lambda: call("io_uring_setup", 4, ctypes.create_string_buffer(120)),
    "socket by int 0x80": by_another_architecture,
    "socket by x32": lambda: call("socket", 2, 1, 0, bits=X32),
    "unshare by x32": lambda: call("unshare", 0x10000000, bits=X32),
    # Privileges, namespaces, the kernel's own.
    "a set-user-ID program": set_user_id,
    "becoming root": lambda: os.setuid(0),
    "unshare of users": lambda: call("unshare", 0x10000000),
    "unshare of mounts": lambda: call("unshare", 0x00020000),
    "unshare of the network": lambda: call("unshare", 0x40000000),
    "clone with users": clone(0x10000000),
    "clone with everything": clone(0x7e020000),
    "clone3 with users": clone3(0x10000000),
    "setns to the agent": lambda: call("setns", os.open(f"/proc/{AGENT}/ns/net", os.O_RDONLY), 0),
    "setns to the supervisor": lambda: call("setns", os.open(f"/proc/{SUPERVISOR}/ns/net", os.O_RDONLY), 0),
    "mount": lambda: call("mount", ctypes.c_char_p(b"none"), ctypes.c_char_p(b"."), ctypes.c_char_p(b"tmpfs"), 0, 0),
    "umount": lambda: call("umount2", ctypes.c_char_p(b"/proc"), 2),
    "fsopen": lambda: call("fsopen", ctypes.c_char_p(b"tmpfs"), 0),
    "open_tree": lambda: call("open_tree", -100, ctypes.c_char_p(b"/"), 1),
    "pivot_root": lambda: call("pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b".")),
    "chroot": lambda: os.chroot("."),
    "file by handle": handle,
    "add_key": lambda: call("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"x"), 1, -3),
    "keyctl": lambda: call("keyctl", 0, -3, 1),
    "bpf": bpf_map,
    "perf_event_open": perf,
    "userfaultfd": lambda: call("userfaultfd", 1),
    "typing into a terminal": type_into_terminal,
    "device node": lambda: os.mknod("node", 0o600 | 0o060000, os.makedev(1, 1)),
    "message queue": lambda: call("mq_open", ctypes.c_char_p(b"switchyard-escape"), os.O_CREAT | os.O_RDWR, 0o600, 0),
    "memory that outlives it": lambda: call("shmget", 0, 4096, 0o1600),
    "memory in a file of no process": keep_memory_in_a_file,
    # Bounds.
    "more processes": raise_limit(resource.RLIMIT_NPROC),
    "more descriptors": raise_limit(resource.RLIMIT_NOFILE),
    "larger files": raise_limit(resource.RLIMIT_FSIZE),
    "more CPU time": raise_limit(resource.RLIMIT_CPU),
    "a better priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 0),
}


def attempt(name, act):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        WORLD["pipes"] = [reader, writer]
        try:
            act()
            said = "OUT"
        except OSError as error:
            said = "held " + errno.errorcode.get(error.errno, str(error))
        except BaseException as error:
            said = f"BROKEN {error!r}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 1000).decode()
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        said = f"held signal {os.WTERMSIG(status)}"
    print(f"{name}: {said}", flush=True)


for name, act in ATTEMPTS.items():
    attempt(name, act)
print("done")
