/* The meter: samples a thread's clocks around a piece of work and adds the piece to the row of its operation.
 *
 * It knows the stopwatch part of a row and how wall time splits into host, run-queue and device time; it moves no bytes
 * and touches no Python object. Included by _stopwatch.c only, so that all of it can be static and inlined.
 */
#ifndef KVBENCH_METER_H
#define KVBENCH_METER_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the columns of a record are little-endian: on this machine kvbench uses the Python stand-in"
#endif

enum { ROW_BYTES = 120, STOPWATCH_BYTES = 84 };

/* ---- the row ---------------------------------------------------------------------------------------------------- */

/* The first STOPWATCH_BYTES of kvbench.records.schema.RECORD_DTYPE. */
typedef struct {
    int64_t t_start_ns, wall_ns, host_ns, runq_ns, device_ns, copy_ns, span_ns, nbytes, queue_ns;
    int32_t error;
    uint32_t minor_faults, major_faults;
} row_t;

_Static_assert(offsetof(row_t, queue_ns) == 64 && offsetof(row_t, error) == 72, "the layout of a record");
_Static_assert(offsetof(row_t, major_faults) + sizeof(uint32_t) == STOPWATCH_BYTES, "the layout of a record");

/* Rows are copied in and out, never cast: the caller's buffer may be aligned to one byte. */
static row_t load_row(const char *at)
{
    row_t row;
    memset(&row, 0, sizeof row);
    memcpy(&row, at, STOPWATCH_BYTES);
    return row;
}

static void store_row(char *at, const row_t *row)
{
    memcpy(at, row, STOPWATCH_BYTES);
}

/* A new operation: until now the queue_ns slot held the intended start. */
static void start_row(row_t *row, int64_t start_ns)
{
    int64_t intended_ns = row->queue_ns;
    memset(row, 0, sizeof *row);
    row->t_start_ns = start_ns;
    row->queue_ns = start_ns - intended_ns;
}

/* ---- the clocks -------------------------------------------------------------------------------------------------- */

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static const char SCHEDSTAT_PATH[] = "/proc/thread-self/schedstat";

/* Set once, while the module is made. */
static int schedstat_works;
static pthread_key_t schedstat_key;

/* A thread's open schedstat file and the last reading of it. A thread's run-queue time cannot have grown while its
 * count of context switches stood still, and that count comes with the rusage that is read anyway; so the file, whose
 * reading is the dearest of all the samples, is read only after a switch. */
static _Thread_local struct {
    int opened, known;
    int fd;
    int64_t switches, runq_ns;
} schedstat;

/* The destructor of schedstat_key, which holds fd + 1 (NULL would mean: nothing to destroy). */
static void close_at_thread_exit(void *value)
{
    close((int)(intptr_t)value - 1);
}

/* In a forked child the inherited descriptor still shows the parent's thread. */
static void forget_after_fork(void)
{
    if (schedstat.opened) {
        close(schedstat.fd);
        pthread_setspecific(schedstat_key, NULL);
    }
    memset(&schedstat, 0, sizeof schedstat);
}

static int open_schedstat(void)
{
    int fd = open(SCHEDSTAT_PATH, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = pthread_setspecific(schedstat_key, (void *)(intptr_t)(fd + 1));
    if (error) {
        close(fd);
        return error;
    }
    schedstat.fd = fd;
    schedstat.opened = 1;
    return 0;
}

/* Parses "<on CPU ns> <run queue ns> <slices>". */
static int read_schedstat(int fd, int64_t *cpu_ns, int64_t *runq_ns)
{
    char text[96];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    if (length < 0)
        return errno;
    text[length] = 0;
    char *rest;
    *cpu_ns = strtoll(text, &rest, 10);
    *runq_ns = strtoll(rest, NULL, 10);
    return 0;
}

/* This thread's run-queue time so far, given its context switches so far. A descriptor table that is full is an
 * error of the operation, not a run-queue time of zero. */
static int runq_time(int64_t switches, int64_t *runq_ns)
{
    *runq_ns = 0;
    if (!schedstat_works)
        return 0;
    if (!schedstat.known || schedstat.switches != switches) {
        int error = schedstat.opened ? 0 : open_schedstat();
        int64_t cpu_ns;
        if (!error)
            error = read_schedstat(schedstat.fd, &cpu_ns, &schedstat.runq_ns);
        if (error)
            return error;
        schedstat.switches = switches;
        schedstat.known = 1;
    }
    *runq_ns = schedstat.runq_ns;
    return 0;
}

/* Kernels without CONFIG_SCHED_INFO have no such file, or one of zeros. */
static int probe_schedstat(void)
{
    int64_t cpu_ns = 0, runq_ns = 0;
    int fd = open(SCHEDSTAT_PATH, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int error = read_schedstat(fd, &cpu_ns, &runq_ns);
    close(fd);
    return !error && cpu_ns > 0;
}

/* ---- the meter --------------------------------------------------------------------------------------------------- */

/* The readings at the start of a timed piece. */
typedef struct {
    int64_t start_ns, cpu_ns, runq_ns;
    int64_t blocks, preemptions; /* voluntary and involuntary context switches */
    uint32_t minor_faults, major_faults;
} meter_t;

/* What a piece did; span_ns or copy_ns of SAME says: the whole wall time, all of the host time. */
typedef struct {
    int64_t nbytes, copy_ns, span_ns;
    int error;
} outcome_t;

enum { SAME = -1 };

static int64_t clamp(int64_t value, int64_t high)
{
    return value < 0 ? 0 : value > high ? high : value;
}

static void read_usage(meter_t *meter)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    meter->blocks = usage.ru_nvcsw;
    meter->preemptions = usage.ru_nivcsw;
    meter->minor_faults = (uint32_t)usage.ru_minflt;
    meter->major_faults = (uint32_t)usage.ru_majflt;
}

enum { LONGEST_READING_NS = 10000 };

/* Reads the CPU clock and begins the wall time.
 *
 * The monotonic clock comes last here and first in stop_meter: the dear samples lie outside the wall time.
 *
 * But reading the CPU clock is also where the kernel notices that a thread's time slice is over, so that nearly all
 * preemptions that are due during short operations happen here. They are run-queue time of the operation that was about
 * to start: left out, the rows of a machine with twice as many threads as CPUs show none. So where this reading took
 * longer than one takes, the operation starts before it. */
static void begin_wall(meter_t *meter)
{
    int64_t before_ns = clock_ns(CLOCK_MONOTONIC);
    meter->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    meter->start_ns = clock_ns(CLOCK_MONOTONIC);
    if (meter->start_ns - before_ns > LONGEST_READING_NS)
        meter->start_ns = before_ns;
}

/* Returns an errno. */
static int start_meter(meter_t *meter)
{
    read_usage(meter);
    int error = runq_time(meter->blocks + meter->preemptions, &meter->runq_ns);
    begin_wall(meter);
    return error;
}

enum { LONGEST_CPU_READING_NS = 100000 };

/* Between the operations of a batch: the readings at the end of the one before, and when the CPU clock was read last. */
typedef struct {
    meter_t usage;      /* of blocks, preemptions and faults alone */
    int is_usage_known; /* nothing was done since it was read */
    int64_t cpu_ns, cpu_read_ns, cpu_switches;
} before_t;

/* The same for the next operation of a batch. The CPU clock, the dearest of all readings, goes on as the monotonic one
 * does while a thread does not leave its processor; so it is read after a context switch, and otherwise when the last
 * reading is older than a tenth of a millisecond. What such a clock would not see (stolen time) is longer. */
static int start_next(meter_t *meter, before_t *before)
{
    if (before->is_usage_known)
        *meter = before->usage;
    else
        read_usage(meter);
    int64_t switches = meter->blocks + meter->preemptions;
    int error = runq_time(switches, &meter->runq_ns);
    meter->start_ns = clock_ns(CLOCK_MONOTONIC);
    int64_t since_ns = meter->start_ns - before->cpu_read_ns;
    if (before->cpu_read_ns && switches == before->cpu_switches && since_ns < LONGEST_CPU_READING_NS) {
        meter->cpu_ns = before->cpu_ns + since_ns;
        return error;
    }
    begin_wall(meter);
    before->cpu_ns = meter->cpu_ns;
    before->cpu_read_ns = clock_ns(CLOCK_MONOTONIC);
    before->cpu_switches = switches;
    return error;
}

typedef struct {
    int64_t wall_ns, host_ns, runq_ns;
} split_t;

/* Splits the wall time of a piece; what is neither host nor run queue was spent blocked.
 *
 * The CPU clock and schedstat enclose the wall time, so each may show a little more than belongs to it. The CPU clock
 * is off by a microsecond at most, but a thread that is preempted between two samples brings milliseconds of
 * run-queue time from outside: the run queue gets what the CPU left of the wall time, not the other way round.
 *
 * A thread that made no voluntary switch was not blocked. What the clocks then leave over is time that the CPU clock
 * does not see (stolen by the hypervisor, or taken by interrupts, on kernels that account for these): host time. */
static int split_wall(const meter_t *start, const meter_t *end, split_t *split)
{
    int64_t cpu_ns, runq_ns;
    if (schedstat_works && end->blocks == start->blocks && end->preemptions == start->preemptions) {
        split->host_ns = split->wall_ns; /* never left the CPU: neither clock need be read */
        split->runq_ns = 0;
        return 0;
    }
    cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    int error = runq_time(end->blocks + end->preemptions, &runq_ns);
    split->host_ns = clamp(cpu_ns - start->cpu_ns, split->wall_ns);
    split->runq_ns = clamp(runq_ns - start->runq_ns, split->wall_ns - split->host_ns);
    if (schedstat_works && end->blocks == start->blocks)
        split->host_ns = split->wall_ns - split->runq_ns;
    return error;
}

/* Adds the piece that started at `meter` to the row; the readings at its end go to `usage`. */
static void stop_and_keep(const meter_t *meter, row_t *row, outcome_t *outcome, meter_t *usage)
{
    meter_t end;
    split_t split;
    split.wall_ns = clock_ns(CLOCK_MONOTONIC) - meter->start_ns;
    read_usage(&end);
    int error = split_wall(meter, &end, &split);
    if (!outcome->error)
        outcome->error = error;

    row->wall_ns += split.wall_ns;
    row->host_ns += split.host_ns;
    row->runq_ns += split.runq_ns;
    row->device_ns = row->wall_ns - row->host_ns - row->runq_ns;
    row->copy_ns += outcome->copy_ns == SAME ? split.host_ns : clamp(outcome->copy_ns, split.host_ns);
    row->span_ns += outcome->span_ns == SAME ? split.wall_ns : outcome->span_ns;
    row->nbytes += outcome->nbytes;
    row->minor_faults += end.minor_faults - meter->minor_faults;
    row->major_faults += end.major_faults - meter->major_faults;
    if (outcome->error)
        row->error = outcome->error;
    *usage = end;
}

static void stop_meter(const meter_t *meter, row_t *row, outcome_t *outcome)
{
    meter_t usage;
    stop_and_keep(meter, row, outcome, &usage);
}

#endif
