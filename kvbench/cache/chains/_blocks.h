/* The blocks that any tier holds, each once whatever the number of its tiers, and the lists that they stand in.
 *
 * A block has a number, from 1 on; that of one which left is used again. How long its record is depends on the tiers
 * and on the policy, so that fields are reached by functions. Nothing here touches a Python object.
 */
#ifndef KVBENCH_BLOCKS_H
#define KVBENCH_BLOCKS_H

#include "_table.h"

enum { MOST_TIERS = 8 };

/* In which queue of a tier a block is, in the low bits of its state; in those above, how often it was asked for. */
enum { ABSENT = 0, FIRST_QUEUE = 1, SECOND_QUEUE = 2, QUEUE_MASK = 3, USE = 4 };

typedef struct {
    uint32_t before, after;
} links_t;

typedef struct {
    uint32_t oldest, newest;
    uint64_t count;
} list_t;

/* A record: the key, the time it was asked for (where it counts), links for each tier, the bucket in each tier (where
 * there are buckets), the state in each tier, and one byte more. */
typedef struct {
    char *records;
    uint64_t room;  /* records that there is memory for, that of number 0 included */
    uint64_t begun; /* records that were ever used, that of number 0 included */
    uint64_t count; /* blocks */
    uint32_t spare; /* the first of those that left, linked by their links in tier 0 */
    size_t stride, links_at, buckets_at, states_at, due_at;
    int tiers;
    table_t table;
} blocks_t;

static void lay_out_blocks(blocks_t *blocks, int tiers, int has_times, int has_buckets)
{
    blocks->tiers = tiers;
    blocks->links_at = sizeof(uint64_t) + (has_times ? sizeof(int64_t) : 0);
    blocks->buckets_at = blocks->links_at + tiers * sizeof(links_t);
    blocks->states_at = blocks->buckets_at + (has_buckets ? tiers * sizeof(uint32_t) : 0);
    blocks->due_at = blocks->states_at + tiers;
    blocks->stride = (blocks->due_at + 1 + 7) / 8 * 8;
    blocks->begun = 1;
}

static inline char *record_of(const blocks_t *blocks, uint32_t block)
{
    return blocks->records + block * blocks->stride;
}

static inline keys_t keys_of_blocks(const blocks_t *blocks)
{
    return (keys_t){.base = blocks->records, .stride = blocks->stride};
}

static inline uint64_t block_key(const blocks_t *blocks, uint32_t block)
{
    return *(const uint64_t *)record_of(blocks, block);
}

static inline int64_t *asked_ns_of(const blocks_t *blocks, uint32_t block)
{
    return (int64_t *)(record_of(blocks, block) + sizeof(uint64_t));
}

static inline links_t *links_of(const blocks_t *blocks, uint32_t block, int tier)
{
    return (links_t *)(record_of(blocks, block) + blocks->links_at) + tier;
}

static inline uint32_t *bucket_of(const blocks_t *blocks, uint32_t block, int tier)
{
    return (uint32_t *)(record_of(blocks, block) + blocks->buckets_at) + tier;
}

static inline uint8_t *state_of(const blocks_t *blocks, uint32_t block, int tier)
{
    return (uint8_t *)(record_of(blocks, block) + blocks->states_at) + tier;
}

/* 1 + the tier that the request at hand found it on and has not read it from, or 0. */
static inline uint8_t *due_of(const blocks_t *blocks, uint32_t block)
{
    return (uint8_t *)(record_of(blocks, block) + blocks->due_at);
}

/* The fastest tier from `tier` on that holds a block, or -1. */
static inline int tier_from(const blocks_t *blocks, uint32_t block, int tier)
{
    for (; tier < blocks->tiers; tier++)
        if (*state_of(blocks, block, tier) != ABSENT)
            return tier;
    return -1;
}

static inline uint32_t find_block(const blocks_t *blocks, uint64_t key)
{
    slot_t *slot = find_slot(&blocks->table, keys_of_blocks(blocks), key, hash_of(key));
    return slot ? slot->number : NONE;
}

/* Room for `wanted` blocks at once. 0 where there is no memory, or they are more than there are numbers. */
static int reserve_blocks(blocks_t *blocks, uint64_t wanted)
{
    return wanted < UINT32_MAX && reserve_slots(&blocks->table, wanted) &&
           grow_array((void **)&blocks->records, &blocks->room, wanted + 1, blocks->stride);
}

/* Where room was made before. */
static uint32_t add_block(blocks_t *blocks, uint64_t key)
{
    uint32_t block = blocks->spare;
    if (block != NONE)
        blocks->spare = links_of(blocks, block, 0)->after;
    else
        block = (uint32_t)blocks->begun++;
    memset(record_of(blocks, block), 0, blocks->stride);
    *(uint64_t *)record_of(blocks, block) = key;
    add_slot(&blocks->table, hash_of(key), block);
    blocks->count++;
    return block;
}

/* One that no tier holds. */
static void drop_block(blocks_t *blocks, uint32_t block)
{
    uint64_t key = block_key(blocks, block);
    empty_slot(&blocks->table, find_slot(&blocks->table, keys_of_blocks(blocks), key, hash_of(key)));
    links_of(blocks, block, 0)->after = blocks->spare;
    blocks->spare = block;
    blocks->count--;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static inline void append_to(const blocks_t *blocks, list_t *list, uint32_t block, int tier)
{
    *links_of(blocks, block, tier) = (links_t){.before = list->newest, .after = NONE};
    if (list->newest != NONE)
        links_of(blocks, list->newest, tier)->after = block;
    else
        list->oldest = block;
    list->newest = block;
    list->count++;
}

static inline void take_from(const blocks_t *blocks, list_t *list, uint32_t block, int tier)
{
    links_t links = *links_of(blocks, block, tier);
    if (links.before != NONE)
        links_of(blocks, links.before, tier)->after = links.after;
    else
        list->oldest = links.after;
    if (links.after != NONE)
        links_of(blocks, links.after, tier)->before = links.before;
    else
        list->newest = links.before;
    list->count--;
}

static inline void renew_in(const blocks_t *blocks, list_t *list, uint32_t block, int tier)
{
    if (list->newest == block)
        return;
    take_from(blocks, list, block, tier);
    append_to(blocks, list, block, tier);
}

#endif
