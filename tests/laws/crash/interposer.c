/* Records what a program does to the files under one directory, in the order in which it does it.
 *
 * Preloaded (LD_PRELOAD), it stands between the program and libc:
 *   CRASH_ROOT    the directory, an absolute path without symbolic links
 *   CRASH_LOG     the log to append to; without it nothing is recorded
 *   CRASH_NOSYNC  if set, every sync does nothing and is not recorded
 *   CRASH_BOOT    a file that stands for the one in which the kernel tells this boot from others
 *
 * Calls that change something are recorded when they are done and before they return, one at a time. A sync is
 * recorded when it begins and when it has ended: what was recorded before it began is on disk when it has ended.
 *
 * An event: u8 kind, u32 thread, u64 CLOCK_MONOTONIC ns, u64 device, u64 inode, i64 a, i64 b, and three lengths (u32)
 * of what follows: path, second path, data. See trace.py for the kinds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&name))real(#name))
#define MOST_FILES 65536
#define LOG_HANDLE 700

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int log_handle = -1;
static int without_sync;
static struct { uint64_t device, inode; } known[MOST_FILES]; /* open addressing; inode 0 is free */

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "interposer: libc has no %s\n", name);
        abort();
    }
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("CRASH_LOG");
    without_sync = getenv("CRASH_NOSYNC") != NULL;
    root = getenv("CRASH_ROOT");
    if (!root || !log)
        return;
    root_length = strlen(root);
    int handle = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (handle < 0 || (log_handle = fcntl(handle, F_DUPFD_CLOEXEC, LOG_HANDLE)) < 0) {
        perror("interposer: CRASH_LOG");
        abort();
    }
    syscall(SYS_close, handle);
}

/* -- the log ---------------------------------------------------------------------------------------------------- */

struct __attribute__((packed)) event {
    uint8_t kind;
    uint32_t thread;
    uint64_t time, device, inode;
    int64_t a, b;
    uint32_t first, second, data;
};

static uint64_t moment; /* at which the lock was taken: the call that is recorded had not begun, or had ended, then */

static void take_turn(void)
{
    struct timespec now;
    pthread_mutex_lock(&lock);
    clock_gettime(CLOCK_MONOTONIC, &now);
    moment = now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* With the lock held. */
static void note(char kind, uint64_t device, uint64_t inode, int64_t a, int64_t b, const char *first,
                 const char *second, const void *data, size_t size)
{
    struct event event = {
        .kind = kind, .thread = syscall(SYS_gettid), .time = moment,
        .device = device, .inode = inode, .a = a, .b = b,
        .first = first ? strlen(first) : 0, .second = second ? strlen(second) : 0, .data = size,
    };
    struct iovec parts[] = {{&event, sizeof event}, {(void *)first, event.first}, {(void *)second, event.second},
                            {(void *)data, size}};
    ssize_t total = sizeof event + event.first + event.second + size;
    int before = errno;
    if (syscall(SYS_writev, log_handle, parts, 4) != total) {
        perror("interposer: the log is not whole");
        abort();
    }
    errno = before;
}

/* -- which files ------------------------------------------------------------------------------------------------ */

static size_t place_of(uint64_t device, uint64_t inode)
{
    size_t at = (inode * 2654435761u ^ device) % MOST_FILES;
    while (known[at].inode && (known[at].inode != inode || known[at].device != device))
        at = (at + 1) % MOST_FILES;
    return at;
}

static void remember(const struct stat *status)
{
    size_t at = place_of(status->st_dev, status->st_ino);
    known[at].device = status->st_dev;
    known[at].inode = status->st_ino;
}

/* Whether a file is ours; its status if so. With the lock held. */
static int is_ours(int handle, struct stat *status)
{
    return log_handle >= 0 && fstat(handle, status) == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) &&
           known[place_of(status->st_dev, status->st_ino)].inode;
}

/* The absolute path, if it lies under the root. */
static const char *path_of(int directory, const char *path, char whole[PATH_MAX])
{
    char folder[PATH_MAX] = "";
    if (log_handle < 0)
        return NULL;
    if (path[0] != '/') {
        if (directory == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder))
                return NULL;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length < 0)
                return NULL;
            folder[length] = 0;
        }
    }
    if (snprintf(whole, PATH_MAX, "%s%s%s", folder, folder[0] ? "/" : "", path) >= PATH_MAX)
        return NULL;
    if (strncmp(whole, root, root_length) || (whole[root_length] && whole[root_length] != '/'))
        return NULL;
    return whole;
}

static void unmodelled(const char *what, int handle)
{
    struct stat status;
    take_turn();
    if (is_ours(handle, &status))
        note('?', status.st_dev, status.st_ino, 0, 0, what, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
}

/* -- names ------------------------------------------------------------------------------------------------------ */

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    struct stat status;
    __typeof__(&openat) call = REAL(openat);
    const char *boot = getenv("CRASH_BOOT");
    if (boot && !strcmp(path, "/proc/sys/kernel/random/boot_id"))
        path = boot;
    if (!path_of(directory, path, whole))
        return call(directory, path, flags, mode);
    take_turn();
    int existed = fstatat(directory, path, &status, 0) == 0;
    off_t size = existed ? status.st_size : 0;
    int handle = call(directory, path, flags, mode);
    if (handle >= 0 && fstat(handle, &status) == 0) {
        remember(&status);
        if (flags & O_CREAT && !existed)
            note('C', status.st_dev, status.st_ino, 0, 0, whole, NULL, NULL, 0);
        else if (flags & O_TRUNC && size)
            note('T', status.st_dev, status.st_ino, 0, 0, NULL, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return handle;
}

#define MODE_OF(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, last); \
        mode = va_arg(rest, int); \
        va_end(rest); \
    }

EXPORTED int open(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
EXPORTED int open64(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
EXPORTED int openat(int d, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_at(d, path, flags, mode); }
EXPORTED int openat64(int d, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_at(d, path, flags, mode); }
EXPORTED int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
EXPORTED int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
EXPORTED int __openat_2(int d, const char *path, int flags) { return open_at(d, path, flags, 0); }
EXPORTED int __openat64_2(int d, const char *path, int flags) { return open_at(d, path, flags, 0); }
EXPORTED int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORTED int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

EXPORTED int mkdirat(int directory, const char *path, mode_t mode)
{
    char whole[PATH_MAX];
    struct stat status;
    __typeof__(&mkdirat) call = REAL(mkdirat);
    if (!path_of(directory, path, whole))
        return call(directory, path, mode);
    take_turn();
    int result = call(directory, path, mode);
    if (result == 0 && fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        remember(&status);
        note('M', status.st_dev, status.st_ino, 0, 0, whole, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
EXPORTED int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORTED int unlinkat(int directory, const char *path, int flags)
{
    char whole[PATH_MAX];
    __typeof__(&unlinkat) call = REAL(unlinkat);
    if (!path_of(directory, path, whole))
        return call(directory, path, flags);
    take_turn();
    int result = call(directory, path, flags);
    if (result == 0)
        note('U', 0, 0, 0, 0, whole, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
EXPORTED int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORTED int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORTED int remove(const char *path)
{
    struct stat status;
    int is_folder = fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    return unlinkat(AT_FDCWD, path, is_folder ? AT_REMOVEDIR : 0);
}

EXPORTED int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    char first[PATH_MAX], second[PATH_MAX];
    const char *left = path_of(from, old, first), *right = path_of(to, new, second);
    if (!left && !right)
        return syscall(SYS_renameat2, from, old, to, new, flags);
    take_turn();
    int result = syscall(SYS_renameat2, from, old, to, new, flags);
    if (result == 0)
        note(left && right && !(flags & ~1u) ? 'R' : '?', 0, 0, 0, 0, left ? left : "rename", right, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
EXPORTED int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
EXPORTED int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORTED int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char first[PATH_MAX], second[PATH_MAX];
    __typeof__(&linkat) call = REAL(linkat);
    const char *left = path_of(from, old, first), *right = path_of(to, new, second);
    if (!left && !right)
        return call(from, old, to, new, flags);
    take_turn();
    int result = call(from, old, to, new, flags);
    if (result == 0)
        note(left && right ? 'L' : '?', 0, 0, 0, 0, left ? left : "link", right, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
EXPORTED int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORTED int symlinkat(const char *target, int directory, const char *path)
{
    char whole[PATH_MAX];
    int result = REAL(symlinkat)(target, directory, path);
    if (result == 0 && path_of(directory, path, whole)) {
        take_turn();
        note('?', 0, 0, 0, 0, "symlink", whole, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}
EXPORTED int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* -- contents --------------------------------------------------------------------------------------------------- */

/* After a write of `done` bytes, with the lock held: where they went. */
static int64_t place_written(int handle, int64_t offset, ssize_t done)
{
    struct stat status;
    if (fcntl(handle, F_GETFL) & O_APPEND && fstat(handle, &status) == 0)
        return status.st_size - done;
    return offset >= 0 ? offset : lseek64(handle, 0, SEEK_CUR) - done;
}

static void written(int handle, const struct stat *status, int64_t offset, const struct iovec *parts, int count,
                    ssize_t done)
{
    int64_t at = place_written(handle, offset, done);
    for (int part = 0; part < count && done > 0; part++) {
        ssize_t size = (ssize_t)parts[part].iov_len < done ? (ssize_t)parts[part].iov_len : done;
        if (size)
            note('W', status->st_dev, status->st_ino, at, 0, NULL, NULL, parts[part].iov_base, size);
        at += size;
        done -= size;
    }
}

#define WRITING(call, offset, parts, count) \
    struct stat status; \
    if (log_handle < 0) \
        return call; \
    take_turn(); \
    int ours = is_ours(handle, &status); \
    if (!ours) { /* a pipe may block, and others must not wait for it */ \
        pthread_mutex_unlock(&lock); \
        return call; \
    } \
    ssize_t done = call; \
    if (done > 0) \
        written(handle, &status, offset, parts, count, done); \
    pthread_mutex_unlock(&lock); \
    return done;

EXPORTED ssize_t write(int handle, const void *data, size_t size)
{
    struct iovec part = {(void *)data, size};
    WRITING(REAL(write)(handle, data, size), -1, &part, 1)
}
EXPORTED ssize_t pwrite(int handle, const void *data, size_t size, off_t offset)
{
    struct iovec part = {(void *)data, size};
    WRITING(REAL(pwrite)(handle, data, size, offset), offset, &part, 1)
}
EXPORTED ssize_t pwrite64(int handle, const void *data, size_t size, off64_t offset)
{
    struct iovec part = {(void *)data, size};
    WRITING(REAL(pwrite64)(handle, data, size, offset), offset, &part, 1)
}
EXPORTED ssize_t writev(int handle, const struct iovec *parts, int count)
{
    WRITING(REAL(writev)(handle, parts, count), -1, parts, count)
}
EXPORTED ssize_t pwritev(int handle, const struct iovec *parts, int count, off_t offset)
{
    WRITING(REAL(pwritev)(handle, parts, count, offset), offset, parts, count)
}
EXPORTED ssize_t pwritev64(int handle, const struct iovec *parts, int count, off64_t offset)
{
    WRITING(REAL(pwritev64)(handle, parts, count, offset), offset, parts, count)
}

static int resized(int handle, char kind, int64_t a, int64_t b, int result)
{
    struct stat status;
    if (result == 0 && is_ours(handle, &status))
        note(kind, status.st_dev, status.st_ino, a, b, NULL, NULL, NULL, 0);
    return result;
}

#define RESIZING(handle, kind, a, b, call) \
    take_turn(); \
    int result = resized(handle, kind, a, b, call); \
    pthread_mutex_unlock(&lock); \
    return result;

EXPORTED int ftruncate(int handle, off_t size) { RESIZING(handle, 'T', size, 0, REAL(ftruncate)(handle, size)) }
EXPORTED int ftruncate64(int handle, off64_t size) { RESIZING(handle, 'T', size, 0, REAL(ftruncate64)(handle, size)) }
EXPORTED int truncate(const char *path, off_t size)
{
    int handle = open(path, O_WRONLY | O_CLOEXEC);
    if (handle < 0)
        return -1;
    int result = ftruncate(handle, size);
    close(handle);
    return result;
}
EXPORTED int truncate64(const char *path, off64_t size)
{
    int handle = open(path, O_WRONLY | O_CLOEXEC);
    if (handle < 0)
        return -1;
    int result = ftruncate64(handle, size);
    close(handle);
    return result;
}
/* Only the plain mode makes a file longer; holes and shifts are not modelled. */
#define KIND_OF(mode) ((mode) == 0 ? 'A' : (mode) == FALLOC_FL_KEEP_SIZE ? ' ' : '?')
EXPORTED int fallocate(int handle, int mode, off_t offset, off_t size)
{
    RESIZING(handle, KIND_OF(mode), offset, size, REAL(fallocate)(handle, mode, offset, size))
}
EXPORTED int fallocate64(int handle, int mode, off64_t offset, off64_t size)
{
    RESIZING(handle, KIND_OF(mode), offset, size, REAL(fallocate64)(handle, mode, offset, size))
}
EXPORTED int posix_fallocate(int handle, off_t offset, off_t size)
{
    RESIZING(handle, 'A', offset, size, REAL(posix_fallocate)(handle, offset, size))
}
EXPORTED int posix_fallocate64(int handle, off64_t offset, off64_t size)
{
    RESIZING(handle, 'A', offset, size, REAL(posix_fallocate64)(handle, offset, size))
}

EXPORTED ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    unmodelled("copy_file_range", out);
    return REAL(copy_file_range)(in, from, out, to, size, flags);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size);
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size);
EXPORTED ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    unmodelled("sendfile", out);
    return REAL(sendfile)(out, in, offset, size);
}
EXPORTED ssize_t sendfile64(int out, int in, off64_t *offset, size_t size)
{
    unmodelled("sendfile", out);
    return REAL(sendfile64)(out, in, offset, size);
}

/* Stores through a mapping are not seen: which files have one is. */
#define MAPPING(call) \
    if (handle >= 0 && protection & PROT_WRITE && flags & MAP_SHARED) { \
        struct stat status; \
        take_turn(); \
        if (is_ours(handle, &status)) \
            note('m', status.st_dev, status.st_ino, 0, 0, NULL, NULL, NULL, 0); \
        pthread_mutex_unlock(&lock); \
    } \
    return call;

/* Not through dlsym, which may map memory itself. */
#ifdef SYS_mmap2
#define MAP(at, size, protection, flags, handle, offset) \
    (void *)syscall(SYS_mmap2, at, size, protection, flags, handle, (offset) >> 12)
#else
#define MAP(...) (void *)syscall(SYS_mmap, __VA_ARGS__)
#endif

EXPORTED void *mmap(void *at, size_t size, int protection, int flags, int handle, off_t offset)
{
    MAPPING(MAP(at, size, protection, flags, handle, offset))
}
EXPORTED void *mmap64(void *at, size_t size, int protection, int flags, int handle, off64_t offset)
{
    MAPPING(MAP(at, size, protection, flags, handle, offset))
}

/* -- syncs ------------------------------------------------------------------------------------------------------ */

#define SYNCING(handle, call) \
    struct stat status; \
    if (without_sync) \
        return 0; \
    take_turn(); \
    int ours = is_ours(handle, &status); \
    if (ours) \
        note('s', status.st_dev, status.st_ino, 0, 0, NULL, NULL, NULL, 0); \
    pthread_mutex_unlock(&lock); \
    int result = call; \
    if (ours && result == 0) { \
        take_turn(); \
        note('e', status.st_dev, status.st_ino, 0, 0, NULL, NULL, NULL, 0); \
        pthread_mutex_unlock(&lock); \
    } \
    return result;

EXPORTED int fsync(int handle) { SYNCING(handle, REAL(fsync)(handle)) }
EXPORTED int fdatasync(int handle) { SYNCING(handle, REAL(fdatasync)(handle)) }
/* These promise nothing about sizes and caches, so nothing is made of them. */
EXPORTED int sync_file_range(int handle, off64_t offset, off64_t size, unsigned flags)
{
    return without_sync ? 0 : REAL(sync_file_range)(handle, offset, size, flags);
}
EXPORTED int msync(void *at, size_t size, int flags) { return without_sync ? 0 : REAL(msync)(at, size, flags); }
EXPORTED void sync(void)
{
    if (!without_sync)
        REAL(sync)();
}
EXPORTED int syncfs(int handle) { return without_sync ? 0 : REAL(syncfs)(handle); }
