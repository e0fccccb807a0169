/* A slower disk: preloaded into a process, each flush of a file lasts TQ_BENCH_FLUSH_US microseconds longer.

   The data is flushed first, so that nothing is less durable; then the thread sleeps, as it would on the device. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static struct timespec longer;
static int (*flush_data)(int), (*flush_all)(int);

__attribute__((constructor)) static void set_up(void)
{
    const char *told = getenv("TQ_BENCH_FLUSH_US");
    longer.tv_nsec = (told ? atol(told) : 0) * 1000L;
    *(void **)&flush_data = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&flush_all = dlsym(RTLD_NEXT, "fsync");
    prctl(PR_SET_TIMERSLACK, 1UL); /* else each sleep is 50 us longer; threads inherit it */
}

static int slowly(int result)
{
    int kept = errno;
    nanosleep(&longer, NULL);
    errno = kept;
    return result;
}

int fdatasync(int file) { return slowly(flush_data(file)); }
int fsync(int file) { return slowly(flush_all(file)); }
