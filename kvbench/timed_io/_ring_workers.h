/* The kernel's workers of a ring (io-wq): threads of this process that carry out what cannot be begun without waiting.
 *
 * Their processor time is no other thread's. They are called iou-wrk-N, where N is the number of the thread that they
 * work for, as the kernel itself counts: in a container that is not the number which the thread sees. So each thread that
 * opens a ring has a worker started, under a lock, and takes the name that was not there before for its own.
 */
#ifndef KVBENCH_RING_WORKERS_H
#define KVBENCH_RING_WORKERS_H

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "_meter.h"

enum { NAME_OF_THREAD = 16, MOST_WORKERS = 1024 };

static const char WORKER_NAME[] = "iou-wrk-";
static const char TASKS[] = "/proc/self/task";

typedef struct {
    int tid, fd; /* of its schedstat */
    int64_t cpu_ns;
} known_worker_t;

typedef struct {
    char name[NAME_OF_THREAD]; /* "": not known */
    nlink_t threads;           /* of the process, when they were looked for */
    known_worker_t *known;
    int count, room;
} workers_t;

static pthread_mutex_t workers_lock = PTHREAD_MUTEX_INITIALIZER;
static char (*strangers)[NAME_OF_THREAD]; /* under the lock: names of workers that are there already */
static int stranger_count;
static _Thread_local char own_name[NAME_OF_THREAD];

static int read_name(int tid, char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%d/comm", TASKS, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, name, NAME_OF_THREAD - 1);
    close(fd);
    if (length <= 0)
        return 0;
    name[length] = 0;
    name[strcspn(name, "\n")] = 0;
    return strncmp(name, WORKER_NAME, sizeof WORKER_NAME - 1) == 0;
}

/* Calls `with` for each worker of any ring of the process. */
static void for_each_worker(void (*with)(void *context, int tid, const char *name), void *context)
{
    DIR *folder = opendir(TASKS);
    char name[NAME_OF_THREAD];
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        int tid = atoi(entry->d_name);
        if (tid > 0 && read_name(tid, name))
            with(context, tid, name);
    }
    if (folder)
        closedir(folder);
}

static void add_stranger(void *context, int tid, const char *name)
{
    (void)context, (void)tid;
    if (strangers && stranger_count < MOST_WORKERS)
        strcpy(strangers[stranger_count++], name);
}

static void note_strangers(void)
{
    if (!strangers)
        strangers = calloc(MOST_WORKERS, sizeof *strangers);
    stranger_count = 0;
    for_each_worker(add_stranger, NULL);
}

static void keep_if_new(void *context, int tid, const char *name)
{
    (void)context, (void)tid;
    for (int i = 0; i < stranger_count; i++)
        if (strcmp(strangers[i], name) == 0)
            return;
    strcpy(own_name, name);
}

/* After a worker was started: a second ring of a thread has those of the first. */
static void know_own_worker(workers_t *workers)
{
    if (!own_name[0] && strangers)
        for_each_worker(keep_if_new, NULL);
    strcpy(workers->name, own_name);
}

static void forget_workers(workers_t *workers)
{
    for (int i = 0; i < workers->count; i++)
        close(workers->known[i].fd);
    free(workers->known);
    memset(workers, 0, sizeof *workers);
}

static void add_worker(void *context, int tid, const char *name)
{
    workers_t *workers = context;
    char path[64];
    if (strcmp(name, workers->name))
        return;
    for (int i = 0; i < workers->count; i++)
        if (workers->known[i].tid == tid)
            return;
    if (workers->count == workers->room) {
        int room = workers->room ? 2 * workers->room : 16;
        known_worker_t *more = realloc(workers->known, (size_t)room * sizeof *more);
        if (!more)
            return;
        workers->known = more;
        workers->room = room;
    }
    snprintf(path, sizeof path, "%s/%d/schedstat", TASKS, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        workers->known[workers->count++] = (known_worker_t){tid, fd, 0};
}

/* What the workers have done since this was asked last, in ns; 0 where their names or their times are not known. One that
 * ended in between had waited for seconds before it did. Between two batches they have nothing to do, so a batch asks
 * once, at its end. */
static int64_t workers_since(workers_t *workers)
{
    struct stat status;
    int64_t since_ns = 0;
    if (!workers->name[0] || !schedstat_works || stat(TASKS, &status) < 0)
        return 0;
    if (status.st_nlink != workers->threads) {
        for_each_worker(add_worker, workers);
        workers->threads = status.st_nlink;
    }
    for (int i = 0; i < workers->count; i++) {
        known_worker_t *worker = &workers->known[i];
        int64_t cpu_ns = 0, runq_ns;
        if (read_schedstat(worker->fd, &cpu_ns, &runq_ns)) {
            close(worker->fd);
            *worker = workers->known[--workers->count];
            workers->threads = 0; /* another may have come for it */
            i--;
            continue;
        }
        since_ns += cpu_ns - worker->cpu_ns;
        worker->cpu_ns = cpu_ns;
    }
    return since_ns;
}

#endif
