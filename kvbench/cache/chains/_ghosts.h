/* Keys without blocks: the last that have left a tier.
 *
 * Nothing here touches a Python object. Where memory is lacking a key is not remembered, and the caller told.
 */
#ifndef KVBENCH_GHOSTS_H
#define KVBENCH_GHOSTS_H

#include "_table.h"

/* ---- ghosts ------------------------------------------------------------------------------------------------------ */

/* A ring of keys, the oldest first. One that was taken stays in its place, dead, until that comes to be the oldest or
 * the ring is full, which is a quarter larger than what may live. A place's number in the table is one more than its
 * index. */
typedef struct {
    uint64_t most;
    uint64_t *keys;
    uint64_t room, begin, used; /* places; where the oldest is; how many are used, dead ones included */
    table_t table;
} ghosts_t;

static inline keys_t keys_of_ghosts(const ghosts_t *ghosts)
{
    return (keys_t){.base = (const char *)(ghosts->keys - 1), .stride = sizeof(uint64_t)};
}

static inline slot_t *find_ghost(const ghosts_t *ghosts, uint64_t key)
{
    return ghosts->table.count ? find_slot(&ghosts->table, keys_of_ghosts(ghosts), key, hash_of(key)) : NULL;
}

/* The slot of the key at a place, or NULL where that is dead. */
static slot_t *living_at(const ghosts_t *ghosts, uint64_t place)
{
    slot_t *slot = find_ghost(ghosts, ghosts->keys[place]);
    return slot && slot->number == place + 1 ? slot : NULL;
}

static inline uint64_t place_at(const ghosts_t *ghosts, uint64_t index)
{
    uint64_t place = ghosts->begin + index;
    return place < ghosts->room ? place : place - ghosts->room;
}

static void forget_oldest_ghost(ghosts_t *ghosts)
{
    slot_t *slot = NULL;
    while (!slot) {
        slot = living_at(ghosts, ghosts->begin);
        ghosts->begin = place_at(ghosts, 1);
        ghosts->used--;
    }
    empty_slot(&ghosts->table, slot);
}

static void close_gaps(ghosts_t *ghosts)
{
    uint64_t kept = 0;
    for (uint64_t index = 0; index < ghosts->used; index++) {
        uint64_t from = place_at(ghosts, index), to = place_at(ghosts, kept);
        slot_t *slot = living_at(ghosts, from);
        if (!slot)
            continue;
        ghosts->keys[to] = ghosts->keys[from];
        slot->number = (uint32_t)to + 1;
        kept++;
    }
    ghosts->used = kept;
}

/* A ring that grows begins at 0: nothing was forgotten before it had all its places. */
static int has_place(ghosts_t *ghosts)
{
    uint64_t whole = ghosts->most + ghosts->most / 4 + 1;
    if (ghosts->used < ghosts->room)
        return 1;
    if (ghosts->room == whole) {
        close_gaps(ghosts);
        return 1;
    }
    uint64_t wanted = ghosts->room + ghosts->room / 4 + 16;
    if (wanted >= ghosts->most)
        wanted = whole;
    if (wanted >= UINT32_MAX)
        return 0;
    uint64_t *grown = realloc(ghosts->keys, wanted * sizeof(uint64_t));
    if (!grown)
        return 0;
    ghosts->keys = grown;
    ghosts->room = wanted;
    return 1;
}

/* Whether a key is among them, which it then no longer is. */
static inline int take_ghost(ghosts_t *ghosts, uint64_t key)
{
    slot_t *slot = find_ghost(ghosts, key);
    if (!slot)
        return 0;
    empty_slot(&ghosts->table, slot);
    return 1;
}

/* 0 without memory. */
static int add_ghost(ghosts_t *ghosts, uint64_t key)
{
    if (!ghosts->most)
        return 1;
    take_ghost(ghosts, key);
    while (ghosts->table.count >= ghosts->most)
        forget_oldest_ghost(ghosts);
    if (!reserve_slots(&ghosts->table, ghosts->table.count + 1) || !has_place(ghosts))
        return 0;
    uint64_t place = place_at(ghosts, ghosts->used++);
    ghosts->keys[place] = key;
    add_slot(&ghosts->table, hash_of(key), (uint32_t)place + 1);
    return 1;
}

#endif
