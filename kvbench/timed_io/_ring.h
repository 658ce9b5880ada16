/* A ring of the kernel (io_uring): set up, filled, waited for. It knows no file and no row; _ring_batch.h does.
 *
 * One thread uses a ring, the one that opened it. Spoken to the kernel directly: what is needed of it is little, and the
 * system calls are those that a library would make. Included by _stopwatch.c only.
 */
#ifndef KVBENCH_RING_H
#define KVBENCH_RING_H

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "_ring_workers.h"

/* Newer than some headers; the kernel is asked whether it knows them. */
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8)
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

enum {
    MOST_DEPTH = 4096,
    RING_FILES = 4,           /* of a ring that are registered */
    FIXED_SHIFT = 30,         /* the kernel takes no registered buffer of more than 1 GiB */
    MOST_FIXED = 1024,        /* buffers: 1 TiB */
    LOOK_AGAIN_NS = 100000000 /* how often a thread that waits looks whether it is to stop */
};

typedef struct {
    int fd;
    unsigned entries, to_submit;
    unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    void *rings;
    size_t rings_bytes, sqes_bytes;
    char *fixed; /* registered memory, NULL where there is none */
    int64_t fixed_bytes;
    int files[RING_FILES], file_count, has_file_table;
    workers_t workers;
} ring_t;

static int ring_register(const ring_t *ring, unsigned what, const void *argument, unsigned count)
{
    return syscall(SYS_io_uring_register, ring->fd, what, argument, count) < 0 ? errno : 0;
}

/* Ways to set a ring up, the best first: completions are worked on when the thread that owns it asks for them, and not
 * whenever it is interrupted. */
static const unsigned SETUPS[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_COOP_TASKRUN,
                                  0};

static int ring_setup(ring_t *ring, unsigned entries, struct io_uring_params *params)
{
    for (size_t i = 0; i < sizeof SETUPS / sizeof *SETUPS; i++) {
        memset(params, 0, sizeof *params);
        params->flags = SETUPS[i];
        ring->fd = (int)syscall(SYS_io_uring_setup, entries, params);
        if (ring->fd >= 0 || errno != EINVAL)
            break;
    }
    if (ring->fd < 0)
        return errno;
    /* Linux 5.11: what waits may have a time limit. The others are older. */
    unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    return (params->features & needed) == needed ? 0 : ENOSYS;
}

static int ring_map(ring_t *ring, const struct io_uring_params *params)
{
    size_t sq_bytes = params->sq_off.array + params->sq_entries * sizeof(unsigned);
    size_t cq_bytes = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    ring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    ring->rings = mmap(NULL, ring->rings_bytes, protection, flags, ring->fd, IORING_OFF_SQ_RING);
    if (ring->rings == MAP_FAILED)
        return errno;
    ring->sqes_bytes = params->sq_entries * sizeof(struct io_uring_sqe);
    ring->sqes = mmap(NULL, ring->sqes_bytes, protection, flags, ring->fd, IORING_OFF_SQES);
    if (ring->sqes == MAP_FAILED)
        return errno;
    char *at = ring->rings;
    ring->entries = params->sq_entries;
    ring->sq_head = (unsigned *)(at + params->sq_off.head);
    ring->sq_tail = (unsigned *)(at + params->sq_off.tail);
    ring->sq_mask = *(unsigned *)(at + params->sq_off.ring_mask);
    ring->cq_head = (unsigned *)(at + params->cq_off.head);
    ring->cq_tail = (unsigned *)(at + params->cq_off.tail);
    ring->cq_mask = *(unsigned *)(at + params->cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(at + params->cq_off.cqes);
    unsigned *array = (unsigned *)(at + params->sq_off.array);
    for (unsigned i = 0; i < params->sq_entries; i++)
        array[i] = i;
    return 0;
}

/* The kernel takes a ring down at its leisure, and until then holds the files that are registered with it: a network
 * filesystem would keep one that is removed under another name. So they are given back first, by the ring's thread. */
static void ring_close(ring_t *ring)
{
    if (ring->has_file_table)
        ring_register(ring, IORING_UNREGISTER_FILES, NULL, 0);
    if (ring->sqes && ring->sqes != MAP_FAILED)
        munmap(ring->sqes, ring->sqes_bytes);
    if (ring->rings && ring->rings != MAP_FAILED)
        munmap(ring->rings, ring->rings_bytes);
    if (ring->fd >= 0)
        close(ring->fd);
    forget_workers(&ring->workers);
    memset(ring, 0, sizeof *ring);
    ring->fd = -1;
}

/* The next free entry, zeroed; the caller has seen to it that no more than `entries` are in flight. */
static struct io_uring_sqe *ring_entry(ring_t *ring, int op, int fd, uint64_t user_data)
{
    struct io_uring_sqe *entry = &ring->sqes[(*ring->sq_tail + ring->to_submit) & ring->sq_mask];
    memset(entry, 0, sizeof *entry);
    entry->opcode = (uint8_t)op;
    entry->fd = fd;
    entry->user_data = user_data;
    ring->to_submit++;
    return entry;
}

/* Hands the kernel what was put in, and waits for `wanted` completions or LOOK_AGAIN_NS. What the kernel did not take yet
 * it is handed with the next call. Returns an errno. */
static int ring_enter(ring_t *ring, unsigned wanted)
{
    struct __kernel_timespec limit = {0, LOOK_AGAIN_NS};
    struct io_uring_getevents_arg argument = {.ts = (uint64_t)(uintptr_t)&limit};
    unsigned tail = *ring->sq_tail + ring->to_submit;
    __atomic_store_n(ring->sq_tail, tail, __ATOMIC_RELEASE);
    ring->to_submit = 0;
    unsigned count = tail - __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
    if (syscall(SYS_io_uring_enter, ring->fd, count, wanted, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument,
                sizeof argument) >= 0)
        return 0;
    if (errno == EAGAIN || errno == EBUSY) {
        struct timespec moment = {0, 100000}; /* the kernel is short of memory: not at once again */
        nanosleep(&moment, NULL);
        return 0;
    }
    return errno == EINTR || errno == ETIME ? 0 : errno;
}

/* The next completion, NULL where there is none; `ring_seen` gives its place back. */
static const struct io_uring_cqe *ring_completion(const ring_t *ring)
{
    unsigned head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
        return NULL;
    return &ring->cqes[head & ring->cq_mask];
}

static void ring_seen(ring_t *ring)
{
    __atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE);
}

/* Pins `memory`, so that the kernel does not look its pages up for each operation. Returns an errno: the bytes are then
 * moved all the same. */
static int ring_fix_memory(ring_t *ring, char *memory, int64_t nbytes)
{
    struct iovec pieces[MOST_FIXED];
    unsigned count = 0;
    for (int64_t done = 0; done < nbytes; done += (int64_t)1 << FIXED_SHIFT) {
        int64_t left = nbytes - done, most = (int64_t)1 << FIXED_SHIFT;
        if (count == MOST_FIXED)
            return EOVERFLOW;
        pieces[count++] = (struct iovec){memory + done, (size_t)(left < most ? left : most)};
    }
    int error = ring_register(ring, IORING_REGISTER_BUFFERS, pieces, count);
    if (!error) {
        ring->fixed = memory;
        ring->fixed_bytes = nbytes;
    }
    return error;
}

/* Which registered buffer holds all of `nbytes` at `at`; -1: none. */
static int fixed_index(const ring_t *ring, const char *at, int64_t nbytes)
{
    int64_t first = at - ring->fixed, last = first + nbytes - 1;
    if (!ring->fixed || nbytes <= 0 || first < 0 || last >= ring->fixed_bytes ||
        first >> FIXED_SHIFT != last >> FIXED_SHIFT)
        return -1;
    return (int)(first >> FIXED_SHIFT);
}

/* The place of an open file among those that are registered, which it becomes if there is room; -1: it is not. */
static int fixed_file(ring_t *ring, int fd)
{
    for (int i = 0; i < ring->file_count; i++)
        if (ring->files[i] == fd)
            return i;
    if (ring->file_count == RING_FILES)
        return -1;
    if (!ring->has_file_table) {
        int none[RING_FILES] = {-1, -1, -1, -1};
        if (ring_register(ring, IORING_REGISTER_FILES, none, RING_FILES))
            return -1;
        ring->has_file_table = 1;
    }
    struct io_uring_files_update update = {.offset = (uint32_t)ring->file_count, .fds = (uint64_t)(uintptr_t)&fd};
    if (syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_FILES_UPDATE, &update, 1) != 1)
        return -1;
    ring->files[ring->file_count] = fd;
    return ring->file_count++;
}

/* One operation that does nothing, by a worker of the kernel, so that there is one to be known by its name. */
static int ring_wake_worker(ring_t *ring)
{
    ring_entry(ring, IORING_OP_NOP, -1, 0)->flags = IOSQE_ASYNC;
    const struct io_uring_cqe *completion;
    while (!(completion = ring_completion(ring))) {
        int error = ring_enter(ring, 1);
        if (error)
            return error;
    }
    ring_seen(ring);
    return 0;
}

/* `fixed_error` tells why `memory` is not registered. Returns an errno; the ring is then closed. */
static int ring_open(ring_t *ring, unsigned entries, char *memory, int64_t nbytes, int *fixed_error)
{
    struct io_uring_params params;
    memset(ring, 0, sizeof *ring);
    int error = ring_setup(ring, entries, &params);
    if (!error)
        error = ring_map(ring, &params);
    if (!error) {
        pthread_mutex_lock(&workers_lock);
        note_strangers();
        error = ring_wake_worker(ring);
        know_own_worker(&ring->workers);
        workers_since(&ring->workers);
        pthread_mutex_unlock(&workers_lock);
    }
    *fixed_error = error || !nbytes ? 0 : ring_fix_memory(ring, memory, nbytes);
    if (error)
        ring_close(ring);
    return error;
}

#endif
