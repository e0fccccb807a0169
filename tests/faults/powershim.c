/* A preloaded library that remembers, in every file itself, what a power cut would leave of it.
 *
 * At the end of each successful fsync or fdatasync the file gets two extended attributes: its length when the call
 * began, and, if it is small, its contents then (a file that is written in place, like a watermark, has no tell-tale
 * length). They stick to the file, so renames and new files need no bookkeeping: a file without the attribute was never
 * synced. tests/support/power.py kills the process and cuts every file to what its attributes say. Names in directories
 * are taken for durable.
 *
 * TQ_SHIM_FAIL_SYNC=N   the Nth sync of the process, and no other, fails with EIO and syncs nothing.
 * TQ_SHIM_FAIL_WRITE=N  the Nth write to a file NUMBER.log, and no other, fails with EIO and writes nothing.
 * TQ_SHIM_ARM=PATH      syncs and writes are counted only once this file exists.
 * TQ_SHIM_SYNC_US=N     every sync takes so many microseconds longer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LENGTH "user.tq.synced_length"
#define CONTENTS "user.tq.synced_contents"
#define CONTENTS_MAX 512

typedef int (*sync_call)(int);
typedef ssize_t (*write_call)(int, const void *, size_t);

static sync_call real_fsync, real_fdatasync;
static write_call real_write;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long fail_at, fail_write_at, delay_us, count, writes;
static const char *arm;

__attribute__((constructor)) static void begin(void) {
    const char *text;
    real_fsync = (sync_call)dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (sync_call)dlsym(RTLD_NEXT, "fdatasync");
    real_write = (write_call)dlsym(RTLD_NEXT, "write");
    arm = getenv("TQ_SHIM_ARM");
    fail_write_at = (text = getenv("TQ_SHIM_FAIL_WRITE")) ? atol(text) : 0;
    fail_at = (text = getenv("TQ_SHIM_FAIL_SYNC")) ? atol(text) : 0;
    delay_us = (text = getenv("TQ_SHIM_SYNC_US")) ? atol(text) : 0;
}

/* Whether this call is the one that fails. */
static int fails(long *calls, long at) {
    return at && (!arm || access(arm, F_OK) == 0) && __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST) == at;
}

static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path);
    return size > 5 && memcmp(path + size - 4, ".log", 4) == 0 && path[size - 5] >= '0' && path[size - 5] <= '9';
}

/* The descriptor may be open for writing only. */
static ssize_t read_contents(int fd, char *into) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0)
        return -1;
    ssize_t size = pread(again, into, CONTENTS_MAX, 0);
    close(again);
    return size;
}

/* Two threads may sync one file: what the earlier call covered must not hide what the later one did. */
static void remember(int fd, int64_t length, const char *contents, ssize_t size) {
    int64_t before = -1;
    struct stat now;
    pthread_mutex_lock(&mutex);
    if (fgetxattr(fd, LENGTH, &before, sizeof before) != sizeof before)
        before = -1;
    if (length >= before || (fstat(fd, &now) == 0 && now.st_size < before)) {
        int failed = fsetxattr(fd, LENGTH, &length, sizeof length, 0);
        if (!failed && size >= 0)
            failed = fsetxattr(fd, CONTENTS, contents, size, 0);
        else if (!failed)
            fremovexattr(fd, CONTENTS);
        if (failed) {
            /* A file that lies about what is durable would make the test pass: stop at once. */
            perror("powershim: extended attributes");
            abort();
        }
    }
    pthread_mutex_unlock(&mutex);
}

static int sync_and_remember(int fd, sync_call call) {
    struct stat found;
    char contents[CONTENTS_MAX];
    ssize_t size = -1;
    int is_file = fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
    if (is_file && found.st_size <= CONTENTS_MAX)
        size = read_contents(fd, contents);
    if (delay_us)
        usleep(delay_us);
    if (fails(&count, fail_at)) {
        errno = EIO;
        return -1;
    }
    int result = call(fd);
    if (result == 0 && is_file) {
        int kept = errno;
        remember(fd, found.st_size, contents, size);
        errno = kept;
    }
    return result;
}

int fsync(int fd) { return sync_and_remember(fd, real_fsync); }

int fdatasync(int fd) { return sync_and_remember(fd, real_fdatasync); }

ssize_t write(int fd, const void *from, size_t size) {
    if (fail_write_at && is_log(fd) && fails(&writes, fail_write_at)) {
        errno = EIO;
        return -1;
    }
    return real_write(fd, from, size);
}
