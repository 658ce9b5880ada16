/* Batches: the operations on several objects one after the other, each timed into a row of its own.
 *
 * Runs without the GIL, on arguments that were checked before, and touches no Python object. What one operation does and
 * how it is timed is as in a call of its own (_operations.h, _meter.h). Included by _stopwatch.c only.
 */
#ifndef KVBENCH_BATCH_H
#define KVBENCH_BATCH_H

#include <stdio.h>

#include "_operations.h"

enum { READ_OP = 0, WRITE_OP = 1, DELETE_OP = 4 }; /* as kvbench.records.schema.Op */

/* Flags of a batch of files, beside those of one: look at the page cache before each read, and drop the object from it. */
enum { LOOK = 128, DROP = 256 };

enum { RESIDENT_OFFSET = 109 }; /* of resident_pct in a row */

enum { KEY_DIGITS = 16, NAME_BYTES = 1024, MOST_LEVELS = 4, MOST_WIDTH = 4 };

/* Several objects in one memory: object i lies in extents[ends[i - 1]] to extents[ends[i]], not included. */
typedef struct {
    region_t all;
    const int64_t *ends;
} regions_t;

static region_t region_of(const regions_t *regions, int64_t number)
{
    int64_t first = number ? regions->ends[number - 1] : 0;
    region_t region = {regions->all.base, regions->all.extents + first, regions->ends[number] - first, 0};
    return region;
}

/* Whether the operation `number` of a batch is not to be begun any more: the first always is. */
static int is_too_late(int64_t number, int64_t until_ns)
{
    return number > 0 && until_ns > 0 && clock_ns(CLOCK_MONOTONIC) >= until_ns;
}

/* What became of a batch: the rows of the first `begun` objects are filled, and the last of these ended in `error`; or,
 * where `unprepared`, the one behind them could not be looked at. */
typedef struct {
    int64_t begun;
    int error, unprepared;
} batch_end_t;

typedef struct {
    char *rows; /* of the first object */
    int64_t count;
    int does, dirfd, flags; /* `dirfd` is the open file where objects have places in one */
    const int64_t *places;  /* where objects begin in open files; NULL: each is a file of its own */
    const int64_t *descriptors; /* of the open file of each object, where there are several; else NULL */
    const char *prefix, *suffix;
    int64_t levels, width; /* folders of `width` digits that a name lies in */
    const uint64_t *keys;
    regions_t memory;
    int64_t io_bytes, until_ns;
    const int32_t *stop;
} file_batch_t;

/* Names are a number between two strings that were checked to fit, in folders named after its first digits. */
static void name_object(char *name, const file_batch_t *batch, int64_t number)
{
    char digits[KEY_DIGITS + 1], folders[MOST_LEVELS * (MOST_WIDTH + 1) + 1] = "", *at = folders;
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)batch->keys[number]);
    for (int64_t level = 0; level < batch->levels; level++) {
        memcpy(at, digits + level * batch->width, (size_t)batch->width);
        at += batch->width;
        *at++ = '/';
        *at = 0;
    }
    snprintf(name, NAME_BYTES, "%s%s%s%s", batch->prefix, folders, digits, batch->suffix);
}

static int descriptor_of(const file_batch_t *batch, int64_t number)
{
    return batch->descriptors ? (int)batch->descriptors[number] : batch->dirfd;
}

static int64_t nbytes_of(const region_t *region)
{
    int64_t nbytes = 0;
    for (int64_t i = 0; i < region->count; i++)
        nbytes += region->extents[i][1];
    return nbytes;
}

static int look_at_object(const file_batch_t *batch, int64_t number)
{
    char name[NAME_BYTES];
    int fd, error, percent = 0, drop = (batch->flags & DROP) != 0;
    if (batch->places) {
        region_t region = region_of(&batch->memory, number);
        error = measure_residency(descriptor_of(batch, number), drop, batch->places[number], nbytes_of(&region), &percent);
    }
    else {
        name_object(name, batch, number);
        error = open_object(batch->dirfd, name, O_RDONLY, &fd);
        if (error)
            return error;
        error = measure_residency(fd, drop, 0, 0, &percent);
        close(fd);
    }
    if (!error)
        batch->rows[number * ROW_BYTES + RESIDENT_OFFSET] = (char)percent;
    return error;
}

static int run_one_file(const file_batch_t *batch, int64_t number, const char *name, char *row_at,
                        before_t *before)
{
    outcome_t outcome = {.span_ns = SAME};
    row_t row = load_row(row_at);
    meter_t meter;
    file_op_t op = {.dirfd = batch->dirfd, .name = name, .fd = -1, .io_bytes = batch->io_bytes, .stop = batch->stop};
    op.flags = FIRST | LAST | (batch->flags & (DIRECT | NO_SYNC | RENAME | FOLDERS | ASK_FIRST));
    if (batch->does != DELETE_OP)
        op.region = region_of(&batch->memory, number);
    if (batch->places) {
        op.fd = descriptor_of(batch, number);
        op.offset = batch->places[number];
        op.flags |= IN_PLACE;
    }
    outcome.error = start_next(&meter, before);
    start_row(&row, meter.start_ns);
    if (batch->does != DELETE_OP)
        run_file_op(&op, batch->does == WRITE_OP, &outcome);
    else if (!outcome.error && unlinkat(batch->dirfd, name, 0) < 0)
        outcome.error = errno;
    stop_and_keep(&meter, &row, &outcome, &before->usage);
    before->is_usage_known = 1;
    store_row(row_at, &row);
    return outcome.error;
}

/* Up to the first that goes wrong: nothing is begun behind it. */
static void run_file_batch(const file_batch_t *batch, batch_end_t *end)
{
    char name[NAME_BYTES];
    before_t before = {0};
    for (int64_t number = 0; number < batch->count; number++) {
        char *row_at = batch->rows + number * ROW_BYTES;
        if (is_too_late(number, batch->until_ns))
            return;
        if (batch->flags & LOOK) {
            before.is_usage_known = 0;
            end->error = look_at_object(batch, number);
            if (end->error) {
                end->unprepared = 1;
                return;
            }
        }
        name_object(name, batch, number);
        end->begun++;
        end->error = run_one_file(batch, number, name, row_at, &before);
        if (end->error)
            return;
    }
}

/* Makes durable what was written to files and closed: fdatasync of one after the other, up to the first that goes wrong.
 * `span_ns` has the time of these calls alone. */
static int sync_names(int dirfd, const char *const *names, int64_t count, const int32_t *stop, int64_t *span_ns)
{
    int error = 0;
    *span_ns = 0;
    for (int64_t number = 0; number < count && !error; number++) {
        int64_t took_ns = 0;
        file_op_t op = {.dirfd = dirfd, .name = names[number], .fd = -1, .stop = stop};
        error = is_stopped(stop) ? ECANCELED : open_object(dirfd, op.name, O_RDONLY, &op.fd);
        if (error)
            break;
        error = sync_object(&op, &took_ns);
        *span_ns += took_ns;
        int closing = close_object(&op.fd);
        error = error ? error : closing;
    }
    return error;
}

typedef struct {
    char *rows;
    int64_t count;
    regions_t to, from;
    int64_t io_bytes, until_ns;
    int counts; /* whether the time of the copies is their copy_ns */
    const int32_t *stop;
} copy_batch_t;

static void run_copy_batch(const copy_batch_t *batch, batch_end_t *end)
{
    before_t before = {0};
    for (int64_t number = 0; number < batch->count && !end->error && !is_too_late(number, batch->until_ns);
         number++) {
        char *row_at = batch->rows + number * ROW_BYTES;
        region_t to = region_of(&batch->to, number), from = region_of(&batch->from, number);
        outcome_t outcome = {.copy_ns = batch->counts ? SAME : 0, .span_ns = SAME};
        row_t row = load_row(row_at);
        meter_t meter;
        end->begun++;
        outcome.error = start_next(&meter, &before);
        start_row(&row, meter.start_ns);
        if (!outcome.error)
            outcome.error = copy_chunks(&to, &from, batch->io_bytes, batch->stop, &outcome.nbytes);
        stop_and_keep(&meter, &row, &outcome, &before.usage);
        before.is_usage_known = 1;
        store_row(row_at, &row);
        end->error = outcome.error;
    }
}

/* What the rows of a batch add up to. */
typedef struct {
    int64_t start_ns, end_ns; /* of the first to begin, and of the last to end */
    int64_t wall_ns, host_ns, runq_ns, device_ns, copy_ns, nbytes;
} sums_t;

static sums_t add_rows(const char *rows, int64_t count)
{
    sums_t sums = {0};
    for (int64_t number = 0; number < count; number++) {
        row_t row = load_row(rows + number * ROW_BYTES);
        int64_t end_ns = row.t_start_ns + row.wall_ns;
        sums.start_ns = number == 0 || row.t_start_ns < sums.start_ns ? row.t_start_ns : sums.start_ns;
        sums.end_ns = end_ns > sums.end_ns ? end_ns : sums.end_ns;
        sums.wall_ns += row.wall_ns;
        sums.host_ns += row.host_ns;
        sums.runq_ns += row.runq_ns;
        sums.device_ns += row.device_ns;
        sums.copy_ns += row.copy_ns;
        sums.nbytes += row.nbytes;
    }
    return sums;
}

#endif
