/* Faults of a disk and of a clock, for one process: preloaded into the gateway by faults.py.
 *
 * What it does is said by a file of 64-bit integers that the check maps and changes while the process runs, in the
 * order of `enum place`. Files are told apart by their names: inbox.db with its log, and usage.db with its own.
 *
 * It does not tear writes, reorder them or drop pages after a failed sync, and it does not touch mapped memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum place {
    INBOX_FULL, INBOX_SYNC_FAILS, INBOX_SYNC_MS,
    USAGE_FULL, USAGE_SYNC_FAILS, USAGE_SYNC_MS,
    CLOCK_MS,
    FAULTS_DONE, SYNCS_DONE,
    PLACES
};

static volatile int64_t *places;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RELAIS_FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, PLACES * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) places = mapped;
    close(file);
}

static void count(enum place place) {
    __atomic_fetch_add((int64_t *)&places[place], 1, __ATOMIC_SEQ_CST);
}

/* The first place of the file behind a descriptor, or -1. */
static int first_place(int fd) {
    char link[64], path[512];
    if (!places) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return -1;
    path[length] = 0;
    if (strstr(path, "/inbox.db")) return INBOX_FULL;
    if (strstr(path, "/usage.db")) return USAGE_FULL;
    return -1;
}

static int is_full(int fd) {
    int first = first_place(fd);
    if (first < 0 || !places[first]) return 0;
    count(FAULTS_DONE);
    errno = ENOSPC;
    return 1;
}

static int sync_fails(int fd) {
    int first = first_place(fd);
    if (first < 0) return 0;
    count(SYNCS_DONE);
    int64_t ms = places[first + 2];
    if (ms > 0) {
        struct timespec wait = {ms / 1000, (ms % 1000) * 1000000};
        nanosleep(&wait, NULL);
        count(FAULTS_DONE);
    }
    if (!places[first + 1]) return 0;
    count(FAULTS_DONE);
    errno = EIO;
    return 1;
}

#define REAL(result, name, ...) ((result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return is_full(fd) ? -1 : REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return is_full(fd) ? -1 : REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)(fd, bytes, length, at);
}

int fsync(int fd) {
    return sync_fails(fd) ? -1 : REAL(int, fsync, int)(fd);
}

int fdatasync(int fd) {
    return sync_fails(fd) ? -1 : REAL(int, fdatasync, int)(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(int, clock_gettime, clockid_t, struct timespec *)(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && places && places[CLOCK_MS]) {
        int64_t ms = places[CLOCK_MS];
        now->tv_sec += ms / 1000;
        now->tv_nsec += (ms % 1000) * 1000000;
        if (now->tv_nsec >= 1000000000) { now->tv_nsec -= 1000000000; now->tv_sec += 1; }
        if (now->tv_nsec < 0) { now->tv_nsec += 1000000000; now->tv_sec -= 1; }
    }
    return result;
}
