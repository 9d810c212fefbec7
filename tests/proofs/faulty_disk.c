/* A disk that fails, or that forgets: preloaded into a process, it stands between libc and
 * everything that the process writes below one folder, SQLite's files included.
 *
 * disk_arm(folder, k, error, forever) makes the k-th write, fsync, rename, mkdir, truncation or
 * opening for writing fail with that error, alone or with all after it; error 0 kills the process
 * there instead. disk_log(folder, file)
 * writes down every such call with its bytes, in order. disk_calls() counts them. Other calls, and
 * other folders, pass through untouched. The count is shared with forked children.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name)

struct shared { long calls; char failed[64]; };
static struct shared *shared;
static char folder[PATH_MAX];
static size_t folder_length;
static long fail_at;
static int fail_errno, fail_forever, log_fd = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void watch(const char *where) {
    snprintf(folder, sizeof folder, "%s", where);
    folder_length = strlen(folder);
    shared->calls = 0;
    shared->failed[0] = 0;
}

void disk_arm(const char *where, long k, int error, int forever) {
    watch(where);
    fail_at = k;
    fail_errno = error;
    fail_forever = forever;
}

void disk_log(const char *where, const char *file) {
    watch(where);
    log_fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

long disk_calls(void) { return shared->calls; }
const char *disk_failed(void) { return shared->failed; }

static int watched(const char *path) {
    if (!folder_length || !path || strncmp(path, folder, folder_length)) return 0;
    return path[folder_length] == '/' || path[folder_length] == 0;
}

/* The path behind a descriptor, if it is watched. */
static int named(int fd, char *path) {
    char link[64];
    if (!folder_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return watched(path);
}

static int named_at(int dir, const char *path, char *full) {
    if (!folder_length || !path) return 0;
    if (path[0] == '/' || dir == AT_FDCWD) {
        snprintf(full, PATH_MAX, "%s", path);
        return watched(full);
    }
    char base[PATH_MAX];
    if (!named(dir, base)) return 0;
    size_t n = strlen(base);
    base[n] = '/';
    snprintf(base + n + 1, sizeof base - n - 1, "%s", path);
    snprintf(full, PATH_MAX, "%s", base);
    return 1;
}

/* Whether this call is the one that fails; sets errno. */
static int fails(const char *call, const char *path) {
    long now = __sync_add_and_fetch(&shared->calls, 1);
    if (!fail_at || now < fail_at || (now > fail_at && !fail_forever)) return 0;
    if (now == fail_at) {
        const char *base = strrchr(path, '/');
        snprintf(shared->failed, sizeof shared->failed, "%s %.40s", call, base ? base + 1 : path);
    }
    if (!fail_errno) kill(getpid(), SIGKILL);
    errno = fail_errno;
    return 1;
}

/* One record: kind, offset, bytes, two paths or a path and data. */
static void note(char kind, const char *path, int64_t offset, const void *data, uint64_t size) {
    if (log_fd < 0) return;
    uint32_t length = strlen(path);
    int64_t call = shared->calls;
    struct iovec parts[] = {
        {&kind, 1}, {&length, 4}, {&offset, 8}, {&size, 8}, {&call, 8}, {(void *)path, length},
        {(void *)data, size},
    };
    syscall(SYS_writev, log_fd, parts, 7);
}

void disk_mark(const char *text) {
    pthread_mutex_lock(&order);
    note('A', "", 0, text, strlen(text));
    pthread_mutex_unlock(&order);
}

static int opened(const char *symbol, int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (!writes || !named_at(dir, path, full))
        return syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
    if (fails(symbol, full)) return -1;
    pthread_mutex_lock(&order);
    int there = syscall(SYS_faccessat, dir, path, F_OK) == 0;
    int fd = syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
    int kept = errno;
    if (fd >= 0 && !there) note('C', full, 0, "", 0);
    if (fd >= 0 && there && (flags & O_TRUNC)) note('T', full, 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return fd;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, last); mode = va_arg(a, mode_t); va_end(a); }

int open(const char *path, int flags, ...) { MODE(flags, flags) return opened("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return opened("open", AT_FDCWD, path, flags, mode); }
int openat(int d, const char *path, int flags, ...) { MODE(flags, flags) return opened("open", d, path, flags, mode); }
int openat64(int d, const char *path, int flags, ...) { MODE(flags, flags) return opened("open", d, path, flags, mode); }

static ssize_t written(int fd, const void *data, size_t size, off_t offset, int placed) {
    char path[PATH_MAX];
    if (!named(fd, path))
        return placed ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    if (fails("write", path)) return -1;
    pthread_mutex_lock(&order);
    if (!placed) {
        int flags = fcntl(fd, F_GETFL);
        offset = lseek(fd, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    ssize_t n = placed ? syscall(SYS_pwrite64, fd, data, size, offset) : syscall(SYS_write, fd, data, size);
    int kept = errno;
    if (n > 0) note('W', path, offset, data, n);
    pthread_mutex_unlock(&order);
    errno = kept;
    return n;
}

ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at, 1); }

static int synced(int fd, long number) {
    char path[PATH_MAX];
    if (!named(fd, path)) return syscall(number, fd);
    if (fails("fsync", path)) return -1;
    pthread_mutex_lock(&order);
    int result = syscall(number, fd);
    int kept = errno;
    struct stat found;
    if (result == 0) note(fstat(fd, &found) == 0 && S_ISDIR(found.st_mode) ? 'D' : 'S', path, 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int cut(int fd, off_t size) {
    char path[PATH_MAX];
    if (!named(fd, path)) return syscall(SYS_ftruncate, fd, size);
    if (fails("truncate", path)) return -1;
    pthread_mutex_lock(&order);
    int result = syscall(SYS_ftruncate, fd, size);
    int kept = errno;
    if (result == 0) note('T', path, size, "", 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return result;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

static int moved(int d1, const char *from, int d2, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!named_at(d1, from, a) || !named_at(d2, to, b)) return syscall(SYS_renameat, d1, from, d2, to);
    if (fails("rename", b)) return -1;
    pthread_mutex_lock(&order);
    int result = syscall(SYS_renameat, d1, from, d2, to);
    int kept = errno;
    if (result == 0) note('R', a, 0, b, strlen(b));
    pthread_mutex_unlock(&order);
    errno = kept;
    return result;
}

int rename(const char *from, const char *to) { return moved(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int a, const char *from, int b, const char *to) { return moved(a, from, b, to); }

static int made(int dir, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!named_at(dir, path, full)) return syscall(SYS_mkdirat, dir, path, mode);
    if (fails("mkdir", full)) return -1;
    pthread_mutex_lock(&order);
    int result = syscall(SYS_mkdirat, dir, path, mode);
    int kept = errno;
    if (result == 0) note('M', full, 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return result;
}

int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return made(dir, path, mode); }

/* A removal frees space, so it does not fail; it is only written down. */
static int removed(int dir, const char *path, int flags) {
    char full[PATH_MAX];
    if (!named_at(dir, path, full)) return syscall(SYS_unlinkat, dir, path, flags);
    pthread_mutex_lock(&order);
    int result = syscall(SYS_unlinkat, dir, path, flags);
    int kept = errno;
    if (result == 0) note('U', full, 0, "", 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return result;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return removed(dir, path, flags); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
