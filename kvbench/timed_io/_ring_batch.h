/* A batch of objects whose reads or writes are in flight together on a ring.
 *
 * Each object has its row, with its wall time from before its file is opened to after it is closed; the split into host,
 * run queue and device is that of the whole batch, as there is none of an object that shares the thread with others. Runs
 * without the GIL on arguments that were checked before. Included by _stopwatch.c only.
 */
#ifndef KVBENCH_RING_BATCH_H
#define KVBENCH_RING_BATCH_H

#include "_batch.h"
#include "_ring.h"

typedef struct {
    file_batch_t files;
    int64_t depth;
} ring_batch_t;

typedef struct {
    int64_t begun, failed;
    int unprepared; /* errno of a look at the object behind those that were begun */
    int broken;     /* errno of the ring itself */
    row_t split;    /* of the batch */
    int64_t helper_ns;
    int64_t depth; /* in flight at once, at most */
} ring_end_t;

/* One request to the kernel. */
typedef struct {
    int64_t object, position, nbytes;
    char *at;
    int does; /* READ_OP, WRITE_OP, or SYNC_PART */
} part_t;

enum { SYNC_PART = -1 };

typedef struct {
    cursor_t cursor;
    region_t region;
    int64_t start_ns, asked, moved, sync_ns, span_ns; /* `asked`: bytes that were put in */
    int fd, fixed, pending, error, is_synced, has_ended;
} object_t;

typedef struct {
    const ring_batch_t *batch;
    ring_t *ring;
    ring_end_t *end;
    object_t *objects;
    part_t *parts;
    int32_t *free_parts;
    int64_t free_count, in_flight, next, current, part_room;
    int stopping;
} flight_t;

static int is_written(const flight_t *flight)
{
    return flight->batch->files.does == WRITE_OP;
}

static int wants_sync(const flight_t *flight)
{
    return is_written(flight) && !(flight->batch->files.flags & NO_SYNC);
}

static char *row_of(const flight_t *flight, int64_t number)
{
    return flight->batch->files.rows + number * ROW_BYTES;
}

static int in_place(const flight_t *flight)
{
    return flight->batch->files.places != NULL;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

static void put_in(flight_t *flight, part_t part, uint8_t flags)
{
    const object_t *object = &flight->objects[part.object];
    ring_t *ring = flight->ring;
    int32_t slot = flight->free_parts[--flight->free_count];
    flight->parts[slot] = part;
    int fixed = part.does == SYNC_PART ? -1 : fixed_index(ring, part.at, part.nbytes);
    int op = part.does == SYNC_PART ? IORING_OP_FSYNC
             : part.does == WRITE_OP ? (fixed < 0 ? IORING_OP_WRITE : IORING_OP_WRITE_FIXED)
                                     : (fixed < 0 ? IORING_OP_READ : IORING_OP_READ_FIXED);
    struct io_uring_sqe *entry = ring_entry(ring, op, object->fixed >= 0 ? object->fixed : object->fd, (uint64_t)slot);
    entry->flags = (uint8_t)(flags | (object->fixed >= 0 ? IOSQE_FIXED_FILE : 0));
    if (part.does == SYNC_PART)
        entry->fsync_flags = IORING_FSYNC_DATASYNC;
    else {
        entry->addr = (uint64_t)(uintptr_t)part.at;
        entry->len = (uint32_t)part.nbytes;
        entry->off = (uint64_t)part.position;
        if (fixed >= 0)
            entry->buf_index = (uint16_t)fixed;
    }
    flight->objects[part.object].pending++;
    flight->in_flight++;
    /* A sync that is linked to its write is not in flight while that is. */
    int64_t at_once = flight->in_flight < flight->batch->depth ? flight->in_flight : flight->batch->depth;
    if (at_once > flight->end->depth)
        flight->end->depth = at_once;
}

static void put_in_sync(flight_t *flight, int64_t number)
{
    flight->objects[number].is_synced = 1;
    put_in(flight, (part_t){.object = number, .does = SYNC_PART}, 0);
}

/* The next part of the object that is being put in; 0 where it has none left. */
static int put_in_next_part(flight_t *flight)
{
    object_t *object = &flight->objects[flight->current];
    const file_batch_t *files = &flight->batch->files;
    char *at;
    int64_t length = next_run(&object->cursor, files->io_bytes, &at);
    if (!length)
        return 0;
    int64_t position = object->asked + (in_place(flight) ? flight->batch->files.places[flight->current] : 0);
    part_t part = {flight->current, position, length, at, files->does};
    object->cursor.done += length;
    object->asked += length;
    /* All of it in one request: its sync follows by itself. */
    int linked = wants_sync(flight) && length == object->region.nbytes && flight->free_count >= 2;
    put_in(flight, part, linked ? IOSQE_IO_LINK : 0);
    if (linked)
        put_in_sync(flight, flight->current);
    return 1;
}

/* ---- objects ---------------------------------------------------------------------------------------------------- */

static int open_next(flight_t *flight, object_t *object, const char *name)
{
    const file_batch_t *files = &flight->batch->files;
    file_op_t op = {.dirfd = files->dirfd, .name = name, .fd = -1, .flags = files->flags};
    int error = is_written(flight) ? create_object(&op)
                                   : open_object(op.dirfd, name, O_RDONLY | (op.flags & DIRECT ? O_DIRECT : 0), &op.fd);
    object->fd = op.fd;
    return error;
}

static void end_object(flight_t *flight, int64_t number)
{
    object_t *object = &flight->objects[number];
    char *row_at = row_of(flight, number);
    if (!object->error && object->moved < object->region.nbytes)
        object->error = ECANCELED;
    if (!in_place(flight) && object->fd >= 0) {
        int closing = close_object(&object->fd);
        object->error = object->error ? object->error : closing;
        if (!object->error && is_written(flight) && flight->batch->files.flags & RENAME) {
            char name[NAME_BYTES];
            name_object(name, &flight->batch->files, number);
            file_op_t op = {.dirfd = flight->batch->files.dirfd, .name = name};
            object->error = rename_object(&op);
        }
    }
    object->has_ended = 1;
    row_t row = load_row(row_at);
    start_row(&row, object->start_ns);
    row.wall_ns = clock_ns(CLOCK_MONOTONIC) - object->start_ns;
    row.span_ns = is_written(flight) ? object->span_ns : row.wall_ns;
    row.nbytes = object->moved;
    row.error = object->error;
    store_row(row_at, &row);
    flight->end->split.nbytes += object->moved;
    if (object->error) {
        flight->end->failed++;
        flight->stopping = 1;
    }
}

/* What follows where nothing of an object is in flight: its sync, or its end. An object that is still being put in has
 * more to come. */
static void go_on_with(flight_t *flight, int64_t number)
{
    object_t *object = &flight->objects[number];
    if (object->pending || number == flight->current)
        return;
    if (wants_sync(flight) && !object->is_synced && !object->error && object->moved == object->region.nbytes &&
        !is_stopped(flight->batch->files.stop)) {
        object->sync_ns = clock_ns(CLOCK_MONOTONIC);
        put_in_sync(flight, number);
    }
    else {
        if (wants_sync(flight) && !object->is_synced && !object->error)
            object->error = ECANCELED;
        end_object(flight, number);
    }
}

/* Begins the next object; its first part is put in by whoever asks for the next part. */
static void begin_next(flight_t *flight)
{
    char name[NAME_BYTES];
    int64_t number = flight->next++;
    object_t *object = &flight->objects[number];
    memset(object, 0, sizeof *object);
    object->region = region_of(&flight->batch->files.memory, number);
    object->region.nbytes = nbytes_of(&object->region);
    object->cursor.region = &object->region;
    object->fd = object->fixed = -1;
    object->start_ns = clock_ns(CLOCK_MONOTONIC);
    flight->end->begun++;
    if (in_place(flight)) {
        object->fd = descriptor_of(&flight->batch->files, number);
        if (!flight->batch->files.descriptors)
            object->fixed = fixed_file(flight->ring, object->fd);
    }
    else if (!is_stopped(flight->batch->files.stop)) {
        name_object(name, &flight->batch->files, number);
        object->error = open_next(flight, object, name);
    }
    if (is_stopped(flight->batch->files.stop))
        object->error = object->error ? object->error : ECANCELED;
    if (object->error)
        end_object(flight, number);
    else
        flight->current = number;
}

/* The first always is begun, if only to say that it was stopped. */
static int may_begin(const flight_t *flight)
{
    return flight->next < flight->batch->files.count && !flight->stopping && !flight->end->broken &&
           (flight->next == 0 || !is_stopped(flight->batch->files.stop)) && !is_too_late(flight->next, flight->batch->files.until_ns);
}

/* As much as may be in flight. What was put in is handed over before more is: a device that has little to do begins at
 * once, and no request waits for the next file of a slow filesystem. */
static void fill(flight_t *flight)
{
    while (flight->in_flight < flight->batch->depth && flight->free_count) {
        if (flight->ring->to_submit)
            flight->end->broken = ring_enter(flight->ring, 0);
        if (flight->end->broken)
            return;
        if (flight->current < 0) {
            if (!may_begin(flight))
                return;
            begin_next(flight);
            continue;
        }
        if (is_stopped(flight->batch->files.stop) || flight->objects[flight->current].error ||
            !put_in_next_part(flight)) {
            int64_t whole = flight->current;
            flight->current = -1;
            go_on_with(flight, whole);
        }
    }
}

/* ---- completions ------------------------------------------------------------------------------------------------ */

static void take_in(flight_t *flight, int32_t slot, int32_t result)
{
    part_t part = flight->parts[slot];
    object_t *object = &flight->objects[part.object];
    flight->free_parts[flight->free_count++] = slot;
    flight->in_flight--;
    object->pending--;
    if (part.does == SYNC_PART) {
        if (result == -ECANCELED || result == -EINTR || result == -EAGAIN)
            object->is_synced = 0; /* the write that it was linked to was cut short */
        else if (result < 0)
            object->error = object->error ? object->error : -result;
        else
            object->span_ns = clock_ns(CLOCK_MONOTONIC) - object->sync_ns;
    }
    else if (result > 0 || result == -EINTR || result == -EAGAIN) {
        int64_t done = result > 0 ? result : 0;
        object->moved += done;
        object->sync_ns = clock_ns(CLOCK_MONOTONIC);
        if (done < part.nbytes) {
            part.at += done;
            part.position += done;
            part.nbytes -= done;
            put_in(flight, part, 0);
        }
    }
    else if (!object->error)
        object->error = result ? -result : EIO; /* the file ends early */
    go_on_with(flight, part.object);
}

static void fly(flight_t *flight)
{
    const struct io_uring_cqe *completion;
    flight->current = -1;
    fill(flight);
    while (flight->in_flight && !flight->end->broken) {
        if (flight->ring->to_submit || !ring_completion(flight->ring))
            flight->end->broken = ring_enter(flight->ring, 1);
        while ((completion = ring_completion(flight->ring))) {
            int32_t slot = (int32_t)completion->user_data, result = completion->res;
            ring_seen(flight->ring);
            take_in(flight, slot, result);
        }
        fill(flight);
    }
}

/* Looks at the page cache for all of them, so that nothing untimed lies between. */
static void look_at_all(ring_batch_t *batch, ring_end_t *end)
{
    for (int64_t number = 0; number < batch->files.count && !end->unprepared; number++) {
        end->unprepared = look_at_object(&batch->files, number);
        if (end->unprepared)
            batch->files.count = number;
    }
}

/* Where the ring breaks while something is in flight, nobody knows what the kernel still does with the memory: the rows of
 * what was begun hold the error, and the caller closes the ring. */
static void run_ring_batch(ring_t *ring, ring_batch_t *batch, ring_end_t *end)
{
    flight_t flight = {.batch = batch, .ring = ring, .end = end};
    if (batch->files.flags & LOOK)
        look_at_all(batch, end);
    flight.part_room = 2 * batch->depth;
    flight.objects = malloc((size_t)(batch->files.count + 1) * sizeof *flight.objects);
    flight.parts = malloc((size_t)flight.part_room * sizeof *flight.parts);
    flight.free_parts = malloc((size_t)flight.part_room * sizeof *flight.free_parts);
    if (!flight.objects || !flight.parts || !flight.free_parts)
        end->broken = ENOMEM;
    else {
        for (int64_t i = 0; i < flight.part_room; i++)
            flight.free_parts[flight.free_count++] = (int32_t)i;
        outcome_t outcome = {.span_ns = SAME};
        meter_t meter;
        end->broken = start_meter(&meter);
        end->split.t_start_ns = meter.start_ns;
        if (!end->broken)
            fly(&flight);
        for (int64_t i = 0; end->broken && i < end->begun; i++)
            if (!flight.objects[i].has_ended) {
                flight.objects[i].error = end->broken;
                end_object(&flight, i);
            }
        stop_meter(&meter, &end->split, &outcome);
        end->broken = end->broken ? end->broken : outcome.error;
        end->helper_ns = workers_since(&ring->workers);
    }
    free(flight.objects);
    free(flight.parts);
    free(flight.free_parts);
}

#endif
