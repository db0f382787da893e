/* A preload that fails the n-th call of a kind in one Python process, whichever thread makes it; see nth.py.
 *
 *   NTH_FROM  a path: nothing counts before something at or below it is touched (until then Python is starting)
 *   NTH_SKIP  paths, colon-separated, below which nothing counts: code that is imported
 *   NTH_FAIL  KIND ERRNO N [on]: what fails, with which number; "on": every later one fails too
 *   NTH_LOG   a file that gets a line for each call that counts, "KIND PATH", and "FAILED KIND PATH"
 *
 * What libc calls inside of itself is not seen, and neither are children: the programs that we start stay whole.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pid_t owner;
static const char *from, *skipped;
static char wanted[32];
static int number, on, log_fd = -1;
static long nth;
static atomic_long seen;
static atomic_int begun;

__attribute__((constructor)) static void prepare(void) {
    const char *fail = getenv("NTH_FAIL"), *file = getenv("NTH_LOG");
    char rest[8] = "";
    from = getenv("NTH_FROM");
    skipped = getenv("NTH_SKIP");
    if (!from || !skipped || strncmp(program_invocation_short_name, "python", 6)) return;
    if (fail && sscanf(fail, "%31s %d %ld %7s", wanted, &number, &nth, rest) < 3) abort();
    on = rest[0] != 0;
    if (file) log_fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    owner = getpid();
}

static int below(const char *path, const char *folder, size_t size) {
    return !strncmp(path, folder, size) && (path[size] == 0 || path[size] == '/');
}

static int is_skipped(const char *path) {
    if (!strcmp(path, "/dev/null")) return 1;
    for (const char *one = skipped; *one;) {
        size_t size = strcspn(one, ":");
        if (size && below(path, one, size)) return 1;
        one += size + (one[size] == ':');
    }
    return 0;
}

static void say(const char *word, const char *kind, const char *path) {
    char line[4400];
    int size = snprintf(line, sizeof line, "%s%s %s\n", word, kind, path);
    if (log_fd >= 0) syscall(SYS_write, log_fd, line, size < (int)sizeof line ? size : (int)sizeof line - 1);
}

/* Whether this call is the one; errno is set then. An empty path is a call that has none. */
static int fails(const char *kind, const char *path) {
    int before = errno, hit = 0;
    if (!owner || getpid() != owner) return 0;
    if (!begun && (!*path || !below(path, from, strlen(from)))) return 0;
    begun = 1;
    if (!is_skipped(path)) {
        if (!nth) say("", kind, path);
        if (nth && !strcmp(kind, wanted)) {
            long count = atomic_fetch_add(&seen, 1) + 1;
            hit = count == nth || (on && count > nth);
        }
    }
    errno = before;
    if (!hit) return 0;
    say("FAILED ", kind, path);
    errno = number;
    return 1;
}

static const char *of_fd(int fd, char *into) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = fd > 2 ? readlink(link, into, 4095) : -1;
    if (size < 0) return "/dev/null"; /* our own input and output are another matter */
    into[size] = 0;
    return into;
}

static const char *at(int folder, const char *path, char *into) {
    char start[4096];
    if (!path) return folder >= 0 ? of_fd(folder, into) : "";
    if (*path == '/' || folder == AT_FDCWD) return path;
    snprintf(into, 4096, "%.2000s/%.2000s", of_fd(folder, start), path);
    return into;
}

#define NEXT(type, name, params) \
    static type(*next) params; \
    if (!next) next = (type(*) params)dlsym(RTLD_NEXT, #name)
#define WRAP(kind, type, bad, name, params, args, path) \
    type name params { \
        char held[4096]; \
        (void)held; \
        NEXT(type, name, params); \
        if (fails(kind, path)) return bad; \
        return next args; \
    }
#define ON_FD of_fd(fd, held)

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        NEXT(int, name, (const char *, int, mode_t)); \
        return fails("open", path) ? -1 : next(path, flags, mode); \
    }
#define OPENS_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        char held[4096]; \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        NEXT(int, name, (int, const char *, int, mode_t)); \
        return fails("open", at(folder, path, held)) ? -1 : next(folder, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

WRAP("read", ssize_t, -1, read, (int fd, void *to, size_t size), (fd, to, size), ON_FD)
WRAP("read", ssize_t, -1, pread, (int fd, void *to, size_t size, off_t place), (fd, to, size, place), ON_FD)
WRAP("read", ssize_t, -1, pread64, (int fd, void *to, size_t size, off64_t place), (fd, to, size, place), ON_FD)
WRAP("write", ssize_t, -1, write, (int fd, const void *of, size_t size), (fd, of, size), ON_FD)
WRAP("write", ssize_t, -1, writev, (int fd, const struct iovec *of, int count), (fd, of, count), ON_FD)
WRAP("write", ssize_t, -1, pwrite, (int fd, const void *of, size_t size, off_t place), (fd, of, size, place), ON_FD)
WRAP("write", ssize_t, -1, pwrite64, (int fd, const void *of, size_t size, off64_t place), (fd, of, size, place), ON_FD)
WRAP("sync", int, -1, fsync, (int fd), (fd), ON_FD)
WRAP("sync", int, -1, fdatasync, (int fd), (fd), ON_FD)
WRAP("size", int, -1, ftruncate, (int fd, off_t size), (fd, size), ON_FD)
WRAP("size", int, -1, ftruncate64, (int fd, off64_t size), (fd, size), ON_FD)
WRAP("size", int, errno, posix_fallocate, (int fd, off_t place, off_t size), (fd, place, size), ON_FD)
WRAP("size", int, errno, posix_fallocate64, (int fd, off64_t place, off64_t size), (fd, place, size), ON_FD)
WRAP("rename", int, -1, rename, (const char *path, const char *to), (path, to), path)
WRAP("rename", int, -1, renameat, (int a, const char *path, int b, const char *to), (a, path, b, to), at(a, path, held))
WRAP("unlink", int, -1, unlink, (const char *path), (path), path)
WRAP("unlink", int, -1, rmdir, (const char *path), (path), path)
WRAP("unlink", int, -1, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), at(folder, path, held))
WRAP("mkdir", int, -1, mkdir, (const char *path, mode_t mode), (path, mode), path)
WRAP("mkdir", int, -1, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode), at(folder, path, held))
WRAP("link", int, -1, link, (const char *path, const char *to), (path, to), to)
WRAP("link", int, -1, linkat, (int a, const char *path, int b, const char *to, int flags), (a, path, b, to, flags), at(b, to, held))
WRAP("link", int, -1, symlink, (const char *text, const char *path), (text, path), path)
WRAP("link", int, -1, symlinkat, (const char *text, int folder, const char *path), (text, folder, path), at(folder, path, held))
WRAP("attributes", int, -1, chmod, (const char *path, mode_t mode), (path, mode), path)
WRAP("attributes", int, -1, fchmod, (int fd, mode_t mode), (fd, mode), ON_FD)
WRAP("attributes", int, -1, chown, (const char *path, uid_t user, gid_t group), (path, user, group), path)
WRAP("attributes", int, -1, lchown, (const char *path, uid_t user, gid_t group), (path, user, group), path)
WRAP("attributes", int, -1, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), ON_FD)
WRAP("attributes", int, -1, utimensat, (int folder, const char *path, const struct timespec times[2], int flags), (folder, path, times, flags), at(folder, path, held))
WRAP("look", int, -1, stat, (const char *path, struct stat *to), (path, to), path)
WRAP("look", int, -1, stat64, (const char *path, struct stat64 *to), (path, to), path)
WRAP("look", int, -1, lstat, (const char *path, struct stat *to), (path, to), path)
WRAP("look", int, -1, lstat64, (const char *path, struct stat64 *to), (path, to), path)
WRAP("look", int, -1, fstat, (int fd, struct stat *to), (fd, to), ON_FD)
WRAP("look", int, -1, fstat64, (int fd, struct stat64 *to), (fd, to), ON_FD)
WRAP("look", int, -1, fstatat, (int folder, const char *path, struct stat *to, int flags), (folder, path, to, flags), at(folder, path, held))
WRAP("look", int, -1, fstatat64, (int folder, const char *path, struct stat64 *to, int flags), (folder, path, to, flags), at(folder, path, held))
WRAP("list", DIR *, NULL, opendir, (const char *path), (path), path)
WRAP("list", DIR *, NULL, fdopendir, (int fd), (fd), ON_FD)
WRAP("descriptor", int, -1, dup, (int fd), (fd), "")
WRAP("descriptor", int, -1, pipe2, (int ends[2], int flags), (ends, flags), "")
WRAP("descriptor", int, -1, socket, (int family, int type, int protocol), (family, type, protocol), "")
WRAP("descriptor", int, -1, memfd_create, (const char *name, unsigned flags), (name, flags), "")
WRAP("lock", int, -1, flock, (int fd, int operation), (fd, operation), ON_FD)
WRAP("mount", int, -1, mount, (const char *source, const char *path, const char *type, unsigned long flags, const void *data), (source, path, type, flags, data), path)
WRAP("mount", int, -1, umount2, (const char *path, int flags), (path, flags), path)
WRAP("mount", int, -1, setns, (int fd, int kind), (fd, kind), "")
WRAP("mount", int, -1, unshare, (int flags), (flags), "")
WRAP("send", ssize_t, -1, send, (int fd, const void *of, size_t size, int flags), (fd, of, size, flags), "")
WRAP("send", ssize_t, -1, sendto, (int fd, const void *of, size_t size, int flags, const struct sockaddr *to, socklen_t length), (fd, of, size, flags, to, length), "")
WRAP("send", ssize_t, -1, sendmsg, (int fd, const struct msghdr *of, int flags), (fd, of, flags), "")
WRAP("receive", ssize_t, -1, recv, (int fd, void *to, size_t size, int flags), (fd, to, size, flags), "")
WRAP("receive", ssize_t, -1, recvfrom, (int fd, void *to, size_t size, int flags, struct sockaddr *of, socklen_t *length), (fd, to, size, flags, of, length), "")
WRAP("receive", ssize_t, -1, recvmsg, (int fd, struct msghdr *to, int flags), (fd, to, flags), "")
WRAP("wait", int, -1, poll, (struct pollfd *of, nfds_t count, int ms), (of, count, ms), "")
WRAP("wait", pid_t, -1, waitpid, (pid_t pid, int *status, int options), (pid, status, options), "")
WRAP("memory", void *, MAP_FAILED, mmap, (void *place, size_t size, int access, int flags, int fd, off_t from_), (place, size, access, flags, fd, from_), "")
WRAP("memory", void *, MAP_FAILED, mmap64, (void *place, size_t size, int access, int flags, int fd, off64_t from_), (place, size, access, flags, fd, from_), "")
WRAP("spawn", int, errno, posix_spawn, (pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *how, char *const *words, char *const *env), (pid, path, actions, how, words, env), path)
WRAP("spawn", pid_t, -1, fork, (void), (), "")
WRAP("thread", int, errno, pthread_create, (pthread_t *to, const pthread_attr_t *how, void *(*what)(void *), void *with), (to, how, what, with), "")
WRAP("copy", ssize_t, -1, copy_file_range, (int a, off64_t *b, int fd, off64_t *c, size_t size, unsigned flags), (a, b, fd, c, size, flags), ON_FD)
WRAP("copy", ssize_t, -1, sendfile, (int fd, int a, off_t *b, size_t size), (fd, a, b, size), ON_FD)
WRAP("copy", ssize_t, -1, sendfile64, (int fd, int a, off64_t *b, size_t size), (fd, a, b, size), ON_FD)

/* The child of a vfork returns on this very stack: no frame of ours may lie between, so it is a jump, which -O2 makes. */
static pid_t (*real_vfork)(void);
pid_t vfork(void) {
    if (!real_vfork) real_vfork = (pid_t(*)(void))dlsym(RTLD_NEXT, "vfork");
    if (fails("spawn", "")) return -1;
    return real_vfork();
}

int fcntl_of(const char *symbol, int fd, int command, void *argument) {
    char held[4096];
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, symbol);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
        if (fails("descriptor", "")) return -1;
    } else if (command == F_SETLK || command == F_SETLKW) {
        if (fails("lock", ON_FD)) return -1;
    }
    return next(fd, command, argument);
}
#define FCNTL(name) \
    int name(int fd, int command, ...) { \
        va_list more; \
        va_start(more, command); \
        void *argument = va_arg(more, void *); \
        va_end(more); \
        return fcntl_of(#name, fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

long syscall(long call, ...) {
    static long (*next)(long, ...);
    long a[6];
    va_list more;
    va_start(more, call);
    for (int i = 0; i < 6; i++) a[i] = va_arg(more, long);
    va_end(more);
    if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (call == SYS_openat2 && fails("open", (const char *)a[1])) return -1;
    /* open_tree, move_mount, fsopen, fsconfig, fsmount, mount_setattr */
    if (((call >= 428 && call <= 432) || call == 442) && fails("mount", "")) return -1;
    if (call == SYS_pidfd_open && fails("descriptor", "")) return -1;
    return next(call, a[0], a[1], a[2], a[3], a[4], a[5]);
}
