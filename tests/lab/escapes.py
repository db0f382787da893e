"""A program for inside a container: tries the ways out that were published, and prints as JSON how each was answered.

Run as `python -I -S escapes.py [NAME…]`. An answer is the name of an errno, or `done: …` where the kernel did it. It never
does what would hurt the machine if it were let: it asks for harmless forms, or for a change that is none. Standard library
only, and little of that: it runs with the interpreter of the host bound into the container.
"""

# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH110, PTH112, PTH115, PTH123, PTH208

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

# x86_64's numbers, and aarch64's where the probe may run there too.
X86 = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "clone": 56, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "keyctl": 250, "add_key": 248, "request_key": 249,
    "open_by_handle_at": 304, "kexec_load": 246, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "reboot": 169, "swapon": 167, "swapoff": 168, "settimeofday": 164, "clock_settime": 227, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "quotactl": 179, "acct": 163, "syslog": 103, "kcmp": 312,
    "fsopen": 430, "fspick": 433, "open_tree": 428, "move_mount": 429, "mount_setattr": 442, "pidfd_getfd": 438,
    "personality": 135, "ptrace": 101, "fanotify_init": 300, "lookup_dcookie": 212, "move_pages": 279, "vhangup": 153,
    "nfsservctl": 180, "process_madvise": 440, "quotactl_fd": 443,
}  # fmt: skip
ARM = {
    "mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "setns": 268, "clone": 220, "bpf": 280,
    "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "keyctl": 219, "add_key": 217, "request_key": 218,
    "open_by_handle_at": 265, "kexec_load": 104, "init_module": 105, "finit_module": 273, "delete_module": 106,
    "reboot": 142, "swapon": 224, "swapoff": 225, "settimeofday": 170, "clock_settime": 112, "sethostname": 161,
    "setdomainname": 162, "quotactl": 60, "acct": 89, "syslog": 116, "kcmp": 272, "fsopen": 430, "fspick": 433,
    "open_tree": 428, "move_mount": 429, "mount_setattr": 442, "pidfd_getfd": 438, "personality": 92, "ptrace": 117,
    "fanotify_init": 262, "lookup_dcookie": 18, "move_pages": 239, "vhangup": 58, "nfsservctl": 42,
    "process_madvise": 440, "quotactl_fd": 443,
}  # fmt: skip
NUMBERS = X86 if os.uname().machine == "x86_64" else ARM

BIND, REMOUNT, REC, RDONLY = 4096, 32, 16384, 1
NEWNS, NEWUSER, NEWNET, NEWPID, NEWCGROUP = 0x20000, 0x10000000, 0x40000000, 0x20000000, 0x2000000


def call(name: str, *arguments: object) -> str:
    """A system call by its number, past whatever the C library makes of it."""
    if name not in NUMBERS:
        return "no such call on this machine"
    words = [argument if isinstance(argument, bytes) else ctypes.c_long(int(str(argument))) for argument in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBERS[name]), *words)
    return f"done: {result}" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(work: Callable[[], object]) -> str:
    """What Python's own calls answer."""
    try:
        return f"done: {work()}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def write(path: str, data: bytes) -> str:
    """Open for writing and write; what stands there already is what most are given."""
    return tried(lambda: _write(path, data))


def _write(path: str, data: bytes) -> int:
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def same(path: str) -> str:
    """Write back what a file of the kernel says."""
    try:
        with open(path, "rb") as file:
            return write(path, file.read(4096))
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def read(path: str) -> str:
    """`empty`, `N bytes`, or why not."""
    try:
        with open(path, "rb") as file:
            size = len(file.read(64))
        return f"done: {size} bytes" if size else "empty"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def listed(path: str) -> str:
    """`empty`, what is in a folder, or why not."""
    try:
        found = sorted(os.listdir(path))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return f"done: {found[:5]}" if found else "empty"


def device(kind: int, major: int, minor: int, folder: str = "/dev") -> str:
    """Make a device's node and open it: in /dev, where nothing but the devices' own rule is in the way."""
    path = f"{folder}/device-{os.geteuid()}-{kind}-{major}-{minor}"
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    answer = tried(lambda: os.open(path, os.O_RDONLY))
    os.unlink(path)
    return answer


def in_child(work: Callable[[], str]) -> str:
    """Try it in a child, for it changes who tries."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, work().encode())
        os._exit(0)
    os.close(write_end)
    said = os.read(read_end, 4096).decode()
    os.close(read_end)
    os.waitpid(child, 0)
    return said


def join(kind: str, flag: int) -> str:
    """Join the namespace that /proc shows for the first process: our own, which must be refused all the same."""
    try:
        fd = os.open(f"/proc/{'1' if os.geteuid() == 0 else 'self'}/ns/{kind}", os.O_RDONLY)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return call("setns", fd, flag)


def leave_by_chroot() -> str:
    """chroot(2)'s old way out: a folder kept open above the new root."""
    os.makedirs("/tmp/jail", exist_ok=True)
    top = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/jail")
    os.fchdir(top)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return " ".join(sorted(os.listdir("/")))


def packet_socket() -> str:
    return tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno())


def raw_socket(family: int) -> str:
    return tried(lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP).fileno())


def add_link() -> str:
    """Ask the kernel for a bridge: RTM_NEWLINK with the kind `bridge`."""
    kind = (4 + 7).to_bytes(2, "little") + (1).to_bytes(2, "little") + b"bridge\0" + b"\0"
    info = (4 + len(kind)).to_bytes(2, "little") + (18).to_bytes(2, "little") + kind
    body = bytes(16) + info
    head = (16 + len(body)).to_bytes(4, "little") + (16).to_bytes(2, "little") + (0x605).to_bytes(2, "little") + bytes(8)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.send(head + body)
        answer = link.recv(4096)
    code = int.from_bytes(answer[16:20], "little", signed=True)
    return errno.errorcode[-code] if code else "done: a bridge"


def set_flags(name: str) -> str:
    """Take a link down."""
    request = name.encode().ljust(16, b"\0") + (0).to_bytes(2, "little") + bytes(22)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return tried(lambda: fcntl.ioctl(any_socket, 0x8914, request))


BLOCK, CHARACTER = 0o060000, 0o020000
TMPFS = (b"tmpfs\0", b"/tmp\0", b"tmpfs\0", 0, 0)

ATTEMPTS: dict[str, Callable[[], str]] = {
    # mounts and namespaces
    "mount tmpfs": lambda: call("mount", *TMPFS),
    "mount proc": lambda: call("mount", b"proc\0", b"/tmp\0", b"proc\0", 0, 0),
    "mount cgroup with a release_agent": lambda: call("mount", b"cgroup\0", b"/tmp\0", b"cgroup\0", 0, b"pids\0"),
    "mount cgroup2": lambda: call("mount", b"cgroup2\0", b"/tmp\0", b"cgroup2\0", 0, 0),
    "mount the disk": lambda: call("mount", b"/dev/vda\0", b"/tmp\0", b"ext4\0", 0, 0),
    "bind": lambda: call("mount", b"/\0", b"/tmp\0", b"none\0", BIND, 0),
    "remount /proc/sys writable": lambda: call("mount", b"none\0", b"/proc/sys\0", b"none\0", REMOUNT | BIND, 0),
    "remount /sys writable": lambda: call("mount", b"none\0", b"/sys\0", b"none\0", REMOUNT, 0),
    "unmask /proc/kcore": lambda: call("umount2", b"/proc/kcore\0", 2),
    "unmask /sys/firmware": lambda: call("umount2", b"/sys/firmware\0", 2),
    "fsopen": lambda: call("fsopen", b"tmpfs\0", 0),
    "fspick": lambda: call("fspick", -100, b"/proc\0", 0),
    "open_tree": lambda: call("open_tree", -100, b"/\0", 1),
    "move_mount": lambda: call("move_mount", -100, b"/proc/sys\0", -100, b"/tmp\0", 0),
    "mount_setattr": lambda: call("mount_setattr", -100, b"/proc/sys\0", 0, bytes(32), 32),
    "pivot_root": lambda: call("pivot_root", b"/\0", b"/tmp\0"),
    "unshare a mount namespace": lambda: call("unshare", NEWNS),
    "unshare a user namespace": lambda: call("unshare", NEWUSER),
    "unshare a network": lambda: call("unshare", NEWNET),
    "unshare a cgroup namespace": lambda: call("unshare", NEWCGROUP),
    "clone a user namespace": lambda: call("clone", NEWUSER | 17, 0, 0, 0, 0),
    "clone a mount namespace": lambda: call("clone", NEWNS | 17, 0, 0, 0, 0),
    "setns mnt": lambda: join("mnt", NEWNS),
    "setns net": lambda: join("net", NEWNET),
    "setns pid": lambda: join("pid", NEWPID),
    "setns user": lambda: join("user", NEWUSER),
    "setns cgroup": lambda: join("cgroup", NEWCGROUP),
    # the kernel's other doors
    "bpf": lambda: call("bpf", 0, bytes(128), 128),
    "perf_event_open": lambda: call("perf_event_open", bytes(128), 0, -1, -1, 0),
    "userfaultfd": lambda: call("userfaultfd", 0),
    "io_uring_setup": lambda: call("io_uring_setup", 4, bytes(120)),
    "keyctl": lambda: call("keyctl", 0, -3, 0),
    "add_key": lambda: call("add_key", b"user\0", b"a\0", b"b", 1, -3),
    "request_key": lambda: call("request_key", b"user\0", b"a\0", 0, 0),
    "open_by_handle_at": lambda: call("open_by_handle_at", -100, (8).to_bytes(4, "little") + bytes(20), 0),
    "kexec_load": lambda: call("kexec_load", 0, 0, 0, 0),
    "init_module": lambda: call("init_module", b"", 0, b"\0"),
    "finit_module": lambda: call("finit_module", -1, b"\0", 0),
    "delete_module": lambda: call("delete_module", b"no-such-module\0", 0),
    "reboot": lambda: call("reboot", 0, 0, 0, 0),
    "swapon": lambda: call("swapon", b"/tmp/no\0", 0),
    "swapoff": lambda: call("swapoff", b"/tmp/no\0"),
    "settimeofday": lambda: call("settimeofday", 0, bytes(8)),
    "clock_settime": lambda: call("clock_settime", 0, (-1).to_bytes(8, "little", signed=True) + bytes(8)),
    "sethostname": lambda: call("sethostname", b"x", 1),
    "setdomainname": lambda: call("setdomainname", b"x", 1),
    "iopl": lambda: call("iopl", 3),
    "ioperm": lambda: call("ioperm", 0x80, 1, 1),
    "quotactl": lambda: call("quotactl", 0x80000700, b"/dev/vda\0", 0, bytes(256)),
    "acct": lambda: call("acct", 0),
    "syslog": lambda: call("syslog", 3, bytes(16), 16),
    "kcmp": lambda: call("kcmp", os.getpid(), os.getpid(), 0, 0, 0),
    "pidfd_getfd": lambda: call("pidfd_getfd", os.pidfd_open(1), 0, 0),
    "fanotify_init": lambda: call("fanotify_init", 0, 0),
    "lookup_dcookie": lambda: call("lookup_dcookie", 0, bytes(16), 16),
    "move_pages of another": lambda: call("move_pages", 1, 0, 0, 0, 0, 0),
    "personality without ASLR": lambda: call("personality", 0x0040000),
    # devices
    "the disk 254:0": lambda: device(BLOCK, 254, 0),
    "a null device on the root's file system": lambda: device(CHARACTER, 1, 3, "/tmp"),
    "the disk 8:0": lambda: device(BLOCK, 8, 0),
    "a loop device": lambda: device(BLOCK, 7, 0),
    "memory 1:1": lambda: device(CHARACTER, 1, 1),
    "ports 1:4": lambda: device(CHARACTER, 1, 4),
    "the kernel's log 1:11": lambda: device(CHARACTER, 1, 11),
    "fuse 10:229": lambda: device(CHARACTER, 10, 229),
    "loop-control 10:237": lambda: device(CHARACTER, 10, 237),
    "kvm 10:232": lambda: device(CHARACTER, 10, 232),
    # what /proc and /sys would let root do
    "core_pattern": lambda: same("/proc/sys/kernel/core_pattern"),
    "modprobe": lambda: same("/proc/sys/kernel/modprobe"),
    "overcommit": lambda: same("/proc/sys/vm/overcommit_memory"),
    "ip_forward": lambda: same("/proc/sys/net/ipv4/ip_forward"),
    "binfmt_misc": lambda: write("/proc/sys/fs/binfmt_misc/register", b":"),
    "sysrq-trigger": lambda: write("/proc/sysrq-trigger", b"\0"),
    "irq": lambda: same("/proc/irq/default_smp_affinity"),
    "uevent_helper": lambda: write("/sys/kernel/uevent_helper", b""),
    "sys/power": lambda: write("/sys/power/state", b""),
    "thp": lambda: write("/sys/kernel/mm/transparent_hugepage/enabled", b"madvise"),
    "mtu by sysfs": lambda: write("/sys/class/net/lo/mtu", b"1500"),
    "cgroup.procs": lambda: write(_cgroup("cgroup.procs"), b"0"),
    "release_agent": lambda: write(_cgroup("release_agent"), b"/x"),
    "a new cgroup": lambda: tried(lambda: os.mkdir(_cgroup("escaped"))),
    "own pids.max": lambda: write(_cgroup("pids.max"), b"max"),
    "devices.allow": lambda: write(_cgroup("devices.allow", "devices"), b"a"),
    "oom_score_adj lower": lambda: write("/proc/self/oom_score_adj", b"-1000"),
    "uid_map": lambda: write("/proc/self/uid_map", b"0 0 1"),
    "kcore": lambda: read("/proc/kcore"),
    "keys": lambda: read("/proc/keys"),
    "timer_list": lambda: read("/proc/timer_list"),
    "sched_debug": lambda: read("/proc/sched_debug"),
    "latency_stats": lambda: read("/proc/latency_stats"),
    "firmware": lambda: listed("/sys/firmware"),
    "powercap": lambda: listed("/sys/devices/virtual/powercap"),
    "acpi": lambda: listed("/proc/acpi"),
    "scsi": lambda: listed("/proc/scsi"),
    "debugfs": lambda: listed("/sys/kernel/debug"),
    "tracefs": lambda: listed("/sys/kernel/tracing"),
    "/dev/mem": lambda: read("/dev/mem"),
    "/dev/kmsg": lambda: read("/dev/kmsg"),
    "/dev/vda": lambda: read("/dev/vda"),
    # the network
    "packet socket": packet_socket,
    "raw socket": lambda: raw_socket(socket.AF_INET),
    "raw socket 6": lambda: raw_socket(socket.AF_INET6),
    "vsock": lambda: tried(lambda: socket.socket(40, socket.SOCK_STREAM).fileno()),
    "a new link": add_link,
    "a link taken down": lambda: set_flags("eth0"),
    # others' processes
    "nice of all": lambda: tried(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
    "real time": lambda: tried(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
}


def _cgroup(name: str, controller: str = "pids") -> str:
    v1 = f"/sys/fs/cgroup/{controller}"
    return f"{v1}/{name}" if os.path.isdir(v1) else f"/sys/fs/cgroup/{name}"


def facts() -> dict[str, object]:
    """What a process in here has, and what it sees."""
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs", "Uid", "Groups")
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":", 1) for line in file)
    descriptors = {}
    for name in sorted(os.listdir("/proc/self/fd")):
        try:
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # The one that the folder was listed with.
            continue
    return {
        **{name: lines[name].strip() for name in wanted if name in lines},
        "fds": descriptors,
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "dev": sorted(os.listdir("/dev")),
        "links": sorted(os.listdir("/sys/class/net")),
        "oom": open("/proc/self/oom_score_adj").read().strip(),
        "cgroup": open("/proc/self/cgroup").read(),
        "mountinfo": open("/proc/self/mountinfo").read(),
        "root": sorted(os.listdir("/proc/1/root" if os.geteuid() == 0 else "/")),
        "after chroot": in_child(leave_by_chroot) if os.geteuid() == 0 else "",
    }


def overwrite_runtime() -> None:
    """CVE-2019-5736: whenever a process shows up that is not ours, try to write to the program that it runs, until
    /tmp/stop is there. Writes what is there already. Prints whom it saw, and what it could write to."""
    own = {os.readlink("/proc/self/exe"), os.readlink("/proc/1/exe")}
    seen: set[str] = set()
    written: set[str] = set()
    while not os.path.exists("/tmp/stop"):
        for name in os.listdir("/proc"):
            try:
                program = os.readlink(f"/proc/{name}/exe") if name.isdigit() else ""
                if not program or program in own or program.startswith("/bin/"):
                    continue
                seen.add(program)
                held = os.open(f"/proc/{name}/exe", os.O_RDONLY)
                try:
                    start = os.read(held, 16)
                    # Kernel: ETXTBSY as long as it runs, so ask again after it has ended.
                    for _ in range(2000):
                        answer = write(f"/proc/self/fd/{held}", start)
                        if answer != "ETXTBSY":
                            break
                    if answer.startswith("done"):
                        written.add(program)
                finally:
                    os.close(held)
            except OSError as error:
                seen.add(errno.errorcode[error.errno or 0])
    print(json.dumps({"seen": sorted(seen), "written": sorted(written)}))


def flip(folder: str, link: str, *made: str) -> None:
    """Exchange a folder and a link by name, over and over, until /tmp/stop is there; what others make in the folder, of
    the names `made`, is taken out again, so that it is always missing."""
    exchange, turns = 2, 0
    while turns % 64 or not os.path.exists("/tmp/stop"):
        for _ in range(2):
            assert LIBC.renameat2(-100, folder.encode(), -100, link.encode(), exchange) == 0
        for name in made:
            try:
                os.rmdir(f"{folder}/{name}")
            except OSError:
                continue
        turns += 1
    print(turns)


def main() -> None:
    if sys.argv[1:2] == ["overwrite"]:
        return overwrite_runtime()
    if sys.argv[1:2] == ["flip"]:
        return flip(*sys.argv[2:])
    answers = {name: in_child(attempt) for name, attempt in ATTEMPTS.items() if not sys.argv[1:] or name in sys.argv[1:]}
    return print(json.dumps({"answers": answers, "facts": facts()}))


if __name__ == "__main__":
    main()
