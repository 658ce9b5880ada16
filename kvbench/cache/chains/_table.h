/* Hash tables from keys to the numbers under which someone else keeps them, and arrays that grow.
 *
 * Every number from 0 to 2^64 - 1 is a key. A slot holds the hash beside the number, so that a key is looked at only
 * where the hashes agree, and so that no key is looked at when a table grows or a slot is emptied. Nothing here touches
 * a Python object.
 */
#ifndef KVBENCH_TABLE_H
#define KVBENCH_TABLE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE_BYTES = 1 << 21 };
enum { NONE = 0 /* no number: they begin at 1 */ };

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

/* Room for `wanted` items, grown by a quarter at least; 0 where there is no memory, and the array is as it was. */
static int grow_array(void **items, uint64_t *room, uint64_t wanted, size_t item_bytes)
{
    if (wanted <= *room)
        return 1;
    uint64_t more = *room + *room / 4 + 16;
    if (more < wanted)
        more = wanted;
    if (more > SIZE_MAX / item_bytes)
        return 0;
    void *grown = realloc(*items, more * item_bytes);
    if (!grown)
        return 0;
    *items = grown;
    *room = more;
    return 1;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t hash, number;
} slot_t;

typedef struct {
    slot_t *slots;
    uint64_t size, count;
} table_t;

/* Where the keys are: that of a number is the first thing at `base` + number * `stride`. */
typedef struct {
    const char *base;
    size_t stride;
} keys_t;

static inline uint64_t key_of(keys_t keys, uint32_t number)
{
    uint64_t key;
    memcpy(&key, keys.base + number * keys.stride, sizeof key);
    return key;
}

/* Keys may be consecutive numbers, or hashes already: two rounds of xor and multiplication leave no pattern. */
static inline uint32_t hash_of(uint64_t key)
{
    key = (key ^ key >> 32) * UINT64_C(0x9e3779b97f4a7c15);
    key = (key ^ key >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(key >> 32);
}

/* Slots are in the order of the hashes, whatever the size, which need be no power of two. */
static inline uint64_t home_of(const table_t *table, uint32_t hash)
{
    return (uint64_t)hash * table->size >> 32;
}

static inline uint64_t slot_after(const table_t *table, uint64_t at)
{
    return at + 1 < table->size ? at + 1 : 0;
}

/* What a key's number is to all appearance: no key is looked at. */
static inline uint32_t guess_number(const table_t *table, uint32_t hash)
{
    uint64_t at = home_of(table, hash);
    while (table->slots[at].hash != hash && table->slots[at].number != NONE)
        at = slot_after(table, at);
    return table->slots[at].number;
}

static inline void expect_slot(const table_t *table, uint32_t hash)
{
    if (table->size)
        __builtin_prefetch(&table->slots[home_of(table, hash)]);
}

/* The slot of a key, or NULL. */
static inline slot_t *find_slot(const table_t *table, keys_t keys, uint64_t key, uint32_t hash)
{
    if (!table->size)
        return NULL;
    for (uint64_t at = home_of(table, hash); table->slots[at].number != NONE; at = slot_after(table, at))
        if (table->slots[at].hash == hash && key_of(keys, table->slots[at].number) == key)
            return &table->slots[at];
    return NULL;
}

/* A key that is not there yet, into a table that has room. */
static inline void add_slot(table_t *table, uint32_t hash, uint32_t number)
{
    uint64_t at = home_of(table, hash);
    while (table->slots[at].number != NONE)
        at = slot_after(table, at);
    table->slots[at] = (slot_t){.hash = hash, .number = number};
    table->count++;
}

/* Those behind it that are not at home move up, so that no search ends before what it looks for. */
static inline void empty_slot(table_t *table, slot_t *slot)
{
    uint64_t hole = (uint64_t)(slot - table->slots), at = hole;
    for (;;) {
        at = slot_after(table, at);
        if (table->slots[at].number == NONE)
            break;
        uint64_t home = home_of(table, table->slots[at].hash);
        /* It may move if its home lies no further than the hole, going round. */
        if (hole <= at ? home <= hole || home > at : home <= hole && home > at) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole].number = NONE;
    table->count--;
}

/* What is looked at in no order misses the translations of small pages more than anything else. */
static void *new_zeros(size_t nbytes)
{
    void *zeros;
    if (nbytes < 2 * HUGE_PAGE_BYTES)
        return calloc(1, nbytes);
    if (posix_memalign(&zeros, HUGE_PAGE_BYTES, nbytes))
        return NULL;
    madvise(zeros, nbytes, MADV_HUGEPAGE);
    return memset(zeros, 0, nbytes);
}

/* Room for `wanted` keys: at most three slots of four are taken, and a table grows by half. 0 without memory. */
static int reserve_slots(table_t *table, uint64_t wanted)
{
    if (wanted <= table->size - table->size / 4 && table->size)
        return 1;
    uint64_t size = table->size + table->size / 2 + 16;
    if (wanted > size - size / 4)
        size = wanted + wanted / 3 + 2;
    if (size > UINT32_MAX)
        return 0;
    table_t grown = {.slots = new_zeros(size * sizeof(slot_t)), .size = size};
    if (!grown.slots)
        return 0;
    for (uint64_t at = 0; at < table->size; at++)
        if (table->slots[at].number != NONE)
            add_slot(&grown, table->slots[at].hash, table->slots[at].number);
    free(table->slots);
    *table = grown;
    return 1;
}

#endif
