/* The operations: move the bytes of one piece, as far as no error and no stop gets in the way.
 *
 * Everything here runs without the GIL, on arguments that were checked before; nothing here takes the operation's time
 * (that is _meter.h) or touches a Python object. Errors are errno values. Included by _stopwatch.c only.
 */
#ifndef KVBENCH_OPERATIONS_H
#define KVBENCH_OPERATIONS_H

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "_meter.h"

enum { FIRST = 1, LAST = 2, DIRECT = 4, NO_SYNC = 8, RENAME = 16, FOLDERS = 32, IN_PLACE = 64, ASK_FIRST = 512 };

enum {
    STOP_CHECK_PAGES = 256,       /* pages touched between two looks at `stop` */
    MOST_NAME_BYTES = 256,        /* of an object whose file is renamed or whose folders are made, with its ending */
    MMAP_CHUNK_BYTES = 1 << 20,   /* bytes copied out of a mapping between two looks at `stop` */
    MINCORE_CHUNK_PAGES = 1 << 14 /* pages that one mincore call reports on; the answer stands on the stack */
};

/* ---- regions of memory ------------------------------------------------------------------------------------------- */

/* Pieces of a buffer, as (offset, length), in the order in which an object lies in them. */
typedef struct {
    char *base;
    const int64_t (*extents)[2];
    int64_t count;
    int64_t nbytes;
} region_t;

typedef struct {
    const region_t *region;
    int64_t index;
    int64_t done; /* bytes of extent `index` that are behind us */
} cursor_t;

/* The next run of contiguous bytes, at most `limit` long; 0 at the end of the region. */
static int64_t next_run(cursor_t *cursor, int64_t limit, char **at)
{
    while (cursor->index < cursor->region->count) {
        const int64_t *extent = cursor->region->extents[cursor->index];
        int64_t left = extent[1] - cursor->done;
        if (left > 0) {
            *at = cursor->region->base + extent[0] + cursor->done;
            return left < limit ? left : limit;
        }
        cursor->index++;
        cursor->done = 0;
    }
    return 0;
}

static int is_stopped(const int32_t *stop)
{
    return __atomic_load_n(stop, __ATOMIC_RELAXED) != 0;
}

/* ---- the operations ---------------------------------------------------------------------------------------------- */

typedef struct {
    int dirfd;
    const char *name;
    int fd, flags;
    int64_t offset, io_bytes;
    region_t region;
    const int32_t *stop;
} file_op_t;

static int open_object(int dirfd, const char *name, int flags, int *fd)
{
    do
        *fd = openat(dirfd, name, flags | O_CLOEXEC, 0600);
    while (*fd < 0 && errno == EINTR);
    return *fd < 0 ? errno : 0;
}

static const char TEMPORARY[] = ".tmp"; /* what the name of a file ends in until it is renamed */

/* Makes the folders that `name` lies in. The caller has seen to it that it is no longer than MOST_NAME_BYTES. */
static int make_folders(int dirfd, const char *name)
{
    char path[MOST_NAME_BYTES];
    strcpy(path, name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdirat(dirfd, path, 0700) < 0 && errno != EEXIST)
            return errno;
        *slash = '/';
    }
    return 0;
}

/* The file of an object that is written, made or emptied. */
static int create_object(file_op_t *op)
{
    char temporary[MOST_NAME_BYTES + sizeof TEMPORARY];
    const char *name = op->name;
    int flags = O_WRONLY | O_CREAT | O_TRUNC | (op->flags & DIRECT ? O_DIRECT : 0);
    struct stat status;
    if (op->flags & ASK_FIRST && fstatat(op->dirfd, name, &status, 0) < 0 && errno != ENOENT)
        return errno;
    if (op->flags & RENAME) {
        strcat(strcpy(temporary, name), TEMPORARY);
        name = temporary;
    }
    int error = open_object(op->dirfd, name, flags, &op->fd);
    if (error != ENOENT || !(op->flags & FOLDERS))
        return error;
    error = make_folders(op->dirfd, name);
    return error ? error : open_object(op->dirfd, name, flags, &op->fd);
}

static int rename_object(const file_op_t *op)
{
    char temporary[MOST_NAME_BYTES + sizeof TEMPORARY];
    strcat(strcpy(temporary, op->name), TEMPORARY);
    return renameat(op->dirfd, temporary, op->dirfd, op->name) < 0 ? errno : 0;
}

/* Linux has closed the descriptor even where close says EINTR; other errors may be a late failure of a write. */
static int close_object(int *fd)
{
    int failed = close(*fd) < 0 && errno != EINTR;
    *fd = -1;
    return failed ? errno : 0;
}

static int move_bytes(file_op_t *op, int writing, int64_t *moved)
{
    cursor_t cursor = {&op->region, 0, 0};
    int64_t length;
    char *at;
    while ((length = next_run(&cursor, op->io_bytes, &at)) > 0) {
        if (is_stopped(op->stop))
            return ECANCELED;
        off_t position = (off_t)(op->offset + *moved);
        ssize_t n = writing ? pwrite(op->fd, at, (size_t)length, position)
                            : pread(op->fd, at, (size_t)length, position);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO; /* the file ends early */
        cursor.done += n;
        *moved += n;
    }
    return 0;
}

static int sync_object(file_op_t *op, int64_t *span_ns)
{
    int failed;
    if (is_stopped(op->stop))
        return ECANCELED;
    int64_t start_ns = clock_ns(CLOCK_MONOTONIC);
    do
        failed = fdatasync(op->fd) < 0;
    while (failed && errno == EINTR);
    int error = failed ? errno : 0;
    *span_ns = clock_ns(CLOCK_MONOTONIC) - start_ns;
    return error;
}

/* Opens, moves, syncs, closes: as far as the flags ask and no error stops it. */
static void run_file_op(file_op_t *op, int writing, outcome_t *outcome)
{
    int error = outcome->error;
    outcome->span_ns = writing ? 0 : SAME;
    if (!error && op->flags & FIRST && !(op->flags & IN_PLACE)) {
        if (is_stopped(op->stop))
            error = ECANCELED;
        else if (writing)
            error = create_object(op);
        else
            error = open_object(op->dirfd, op->name, O_RDONLY | (op->flags & DIRECT ? O_DIRECT : 0), &op->fd);
    }
    if (!error)
        error = move_bytes(op, writing, &outcome->nbytes);
    if (!error && writing && op->flags & LAST && !(op->flags & NO_SYNC))
        error = sync_object(op, &outcome->span_ns);
    if (op->fd >= 0 && !(op->flags & IN_PLACE) && (error || op->flags & LAST)) {
        int closing = close_object(&op->fd);
        error = error ? error : closing;
        if (!error && writing && op->flags & RENAME)
            error = rename_object(op);
    }
    outcome->error = error;
}

static int remove_object(int dirfd, const char *name)
{
    return unlinkat(dirfd, name, 0) < 0 ? errno : 0;
}

static int look_for_object(int dirfd, const char *name)
{
    struct stat status;
    return fstatat(dirfd, name, &status, 0) < 0 ? errno : 0;
}

static long page_bytes; /* set once, while the module is made */

/* Reads one byte of each page that holds some of data[0..nbytes). */
static int touch_pages(const char *data, int64_t nbytes, const int32_t *stop, int64_t *moved)
{
    int64_t into_page = (int64_t)((uintptr_t)data & (uintptr_t)(page_bytes - 1));
    const volatile char *page = data - into_page;
    int64_t left = nbytes + into_page;
    for (int64_t touched = 0; left > 0; touched++, page += page_bytes, left -= page_bytes) {
        if (touched % STOP_CHECK_PAGES == 0 && is_stopped(stop))
            return ECANCELED;
        (void)*page;
        int64_t behind = (touched + 1) * page_bytes - into_page;
        *moved = behind < nbytes ? behind : nbytes;
    }
    return 0;
}

static int copy_chunks(const region_t *to, const region_t *from, int64_t chunk, const int32_t *stop, int64_t *moved)
{
    cursor_t target = {to, 0, 0}, source = {from, 0, 0};
    int64_t length;
    char *dst = NULL, *src = NULL;
    while ((length = next_run(&target, chunk, &dst)) > 0) {
        if (is_stopped(stop))
            return ECANCELED;
        length = next_run(&source, length, &src);
        memmove(dst, src, (size_t)length);
        target.done += length;
        source.done += length;
        *moved += length;
    }
    return 0;
}

static int copy_mapping(const char *data, file_op_t *op, outcome_t *outcome)
{
    int64_t whole[1][2] = {{0, op->region.nbytes}};
    region_t mapping = {(char *)data, (const int64_t(*)[2])whole, 1, op->region.nbytes};
    int64_t start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int error = copy_chunks(&op->region, &mapping, MMAP_CHUNK_BYTES, op->stop, &outcome->nbytes);
    outcome->copy_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns;
    return error;
}

/* ---- pages that cannot be read ------------------------------------------------------------------------------------ */

/* The kernel tells of an I/O error on a page of a mapping with SIGBUS. While a thread uses a mapping, it has a place to
 * come back to; a SIGBUS of any other code goes where it went before. */
static _Thread_local sigjmp_buf *volatile on_bad_page;
static struct sigaction bus_before;

static void catch_bus(int number, siginfo_t *info, void *context)
{
    if (on_bad_page)
        siglongjmp(*on_bad_page, 1);
    if (bus_before.sa_flags & SA_SIGINFO)
        bus_before.sa_sigaction(number, info, context);
    else if (bus_before.sa_handler == SIG_DFL || bus_before.sa_handler == SIG_IGN)
        sigaction(SIGBUS, &bus_before, NULL); /* the access is repeated, and ends the process */
    else
        bus_before.sa_handler(number);
}

/* Before each use, as MPI and others put a handler of their own in place. SA_NODEFER: who comes back by a jump would
 * leave the signal blocked. */
static void watch_for_bad_pages(void)
{
    struct sigaction now, wanted = {0};
    wanted.sa_sigaction = catch_bus;
    wanted.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    if (sigaction(SIGBUS, NULL, &now) < 0 || (now.sa_flags & SA_SIGINFO && now.sa_sigaction == catch_bus))
        return;
    bus_before = now;
    sigaction(SIGBUS, &wanted, NULL);
}

static int use_pages(const char *data, file_op_t *op, outcome_t *outcome)
{
    sigjmp_buf back;
    if (sigsetjmp(back, 0)) {
        on_bad_page = NULL;
        return EIO;
    }
    on_bad_page = &back;
    int error = op->region.base ? copy_mapping(data, op, outcome)
                                : touch_pages(data, op->region.nbytes, op->stop, &outcome->nbytes);
    on_bad_page = NULL;
    return error;
}

/* A page beyond the end of the file would be a SIGBUS too: the look at the size finds it before anything is moved. */
static int use_mapping(file_op_t *op, outcome_t *outcome)
{
    struct stat status;
    int64_t nbytes = op->region.nbytes;
    if (fstat(op->fd, &status) < 0)
        return errno;
    /* A block device has no size of this kind, and ends with EIO by itself. */
    if (!S_ISBLK(status.st_mode) && (status.st_size < op->offset || status.st_size - op->offset < nbytes))
        return EIO;
    if (nbytes == 0)
        return 0;
    int64_t into_page = op->offset % page_bytes;
    size_t length = (size_t)(nbytes + into_page);
    char *map = mmap(NULL, length, PROT_READ, MAP_SHARED, op->fd, (off_t)(op->offset - into_page));
    if (map == MAP_FAILED)
        return errno;
    int error = use_pages(map + into_page, op, outcome);
    munmap(map, length);
    return error;
}

static void run_mmap_op(file_op_t *op, outcome_t *outcome)
{
    int error = outcome->error;
    outcome->span_ns = SAME;
    if (!error)
        error = is_stopped(op->stop) ? ECANCELED : open_object(op->dirfd, op->name, O_RDONLY, &op->fd);
    if (!error)
        error = use_mapping(op, outcome);
    if (op->fd >= 0) {
        int closing = close_object(&op->fd);
        error = error ? error : closing;
    }
    outcome->error = error;
}

/* Counts the pages of a mapping that are in the page cache; asked in chunks, so that memory stays bounded. */
static int count_resident(char *map, int64_t pages, int64_t *resident)
{
    unsigned char in_core[MINCORE_CHUNK_PAGES];
    for (int64_t first = 0; first < pages; first += MINCORE_CHUNK_PAGES) {
        int64_t count = pages - first < MINCORE_CHUNK_PAGES ? pages - first : MINCORE_CHUNK_PAGES;
        while (mincore(map + first * page_bytes, (size_t)(count * page_bytes), in_core) < 0)
            if (errno != EAGAIN)
                return errno;
        for (int64_t i = 0; i < count; i++)
            *resident += in_core[i] & 1;
    }
    return 0;
}

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/* Linux 6.5: the same answer without a mapping. An error where the kernel has no such call, or does not tell. */
static int ask_cachestat(int fd, int64_t offset, int64_t nbytes, int64_t *resident)
{
    static int missing; /* once found out, not asked again; who races finds it out twice */
    struct {
        uint64_t offset, nbytes;
    } whole = {(uint64_t)offset, (uint64_t)nbytes};
    struct {
        uint64_t cached, dirty, written_back, evicted, recently_evicted;
    } found;
    if (__atomic_load_n(&missing, __ATOMIC_RELAXED))
        return ENOSYS;
    if (syscall(SYS_cachestat, fd, &whole, &found, 0) < 0) {
        if (errno == ENOSYS)
            __atomic_store_n(&missing, 1, __ATOMIC_RELAXED);
        return errno;
    }
    *resident = (int64_t)found.cached;
    return 0;
}

static int map_and_count(int fd, int64_t offset, int64_t nbytes, int64_t pages, int64_t *resident)
{
    char *map = mmap(NULL, (size_t)nbytes, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    if (map == MAP_FAILED)
        return errno;
    int error = count_resident(map, pages, resident);
    munmap(map, (size_t)nbytes);
    return error;
}

/* Of `nbytes` from `offset` on, a multiple of the page; 0: of all from there to the end. */
static int measure_residency(int fd, int drop, int64_t offset, int64_t nbytes, int *percent)
{
    struct stat status;
    int error = drop ? posix_fadvise(fd, (off_t)offset, (off_t)nbytes, POSIX_FADV_DONTNEED) : 0;
    if (error)
        return error;
    if (fstat(fd, &status) < 0)
        return errno;
    *percent = 0;
    int64_t there = status.st_size - offset;
    if (nbytes > 0 && (nbytes < there || S_ISBLK(status.st_mode)))
        there = nbytes;
    if (there <= 0)
        return 0;
    int64_t pages = (there + page_bytes - 1) / page_bytes, resident = 0;
    if (ask_cachestat(fd, offset, there, &resident))
        error = map_and_count(fd, offset, there, pages, &resident);
    resident = resident < pages ? resident : pages; /* a large folio may reach beyond the end */
    *percent = (int)((100 * resident + pages - 1) / pages);
    return error;
}

#endif
