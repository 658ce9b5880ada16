/* What a request comes to: _serve of _python.py, step by step, on checked arguments and without the interpreter.
 *
 * A request that is begun is carried through: room for all the blocks that it can add is made before. Where memory is
 * lacking for what is only remembered (steps, ghosts, what was asked for), `is_out_of_memory` is set, and the cache
 * goes on. Nothing here touches a Python object.
 */
#ifndef KVBENCH_DECIDE_H
#define KVBENCH_DECIDE_H

#include "_asked.h"
#include "_queues.h"

/* records.schema.Op */
enum { OP_READ, OP_WRITE, OP_DEMOTE, OP_PROMOTE, OP_DELETE };

/* settings.NEVER_SEEN and so on: what became of a block that was looked up and not found. */
enum { NEVER_SEEN = -1, EVICTED = -2, BEHIND_GAP = -3, NO_BLOCK = -4, MISS_KINDS = 3 };

enum { FAR_AHEAD = 24, AHEAD = 12 /* keys between asking for a slot, or a record, of memory and looking at it */ };

typedef struct {
    uint64_t key;
    int8_t op, source, target;
} step_t;

typedef struct {
    int tier_count, policy, write_through, promote, second_use, has_ttl;
    int first_real;
    int64_t ttl_ns, now_ns;
    tier_t tiers[MOST_TIERS];
    blocks_t blocks;
    asked_t asked;
    uint64_t *keys; /* of the request at hand, as they were when it began: another thread may change the caller's */
    uint32_t *found; /* blocks that it found */
    int8_t *missed;  /* what became of those of its blocks that were looked up and not found */
    uint64_t key_room, found_room, missed_room, missed_count;
    step_t *steps; /* of the request at hand, if they are kept */
    uint64_t step_count, step_room;
    int keeps_steps;
    int64_t *counts; /* what they come to, if they are counted: a row of `play` */
    int is_out_of_memory;
} cache_t;

/* A request, and what it came to. */
typedef struct {
    const uint64_t *keys;
    int64_t key_count, lookup, store, now_ns;
    int is_prefetch;
    int8_t *found_on; /* (lookup,) the tier of each found block, or NULL */
    int64_t found;
} request_t;

static void free_cache(cache_t *cache)
{
    for (int tier = 0; tier < cache->tier_count; tier++)
        free_tier(&cache->tiers[tier]);
    free(cache->blocks.records);
    free(cache->blocks.table.slots);
    free_asked(&cache->asked);
    free(cache->keys);
    free(cache->found);
    free(cache->missed);
    free(cache->steps);
}

/* Before a request of so many keys: nothing that it needs can then be lacking. 0 without memory. */
static int reserve_request(cache_t *cache, uint64_t key_count)
{
    uint64_t wanted = cache->blocks.count + key_count, places = MOST_TIERS + 1;
    for (int tier = 0; tier < cache->tier_count; tier++)
        places += cache->tiers[tier].capacity;
    if (wanted > places)
        wanted = places;
    for (int tier = 0; tier < cache->tier_count && cache->policy == LFU; tier++)
        if (!reserve_buckets(&cache->tiers[tier], key_count + 2))
            return 0;
    return reserve_blocks(&cache->blocks, wanted) &&
           grow_array((void **)&cache->keys, &cache->key_room, key_count, sizeof(uint64_t)) &&
           grow_array((void **)&cache->found, &cache->found_room, key_count, sizeof(uint32_t)) &&
           grow_array((void **)&cache->missed, &cache->missed_room, key_count, sizeof(int8_t));
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static inline void add_step(cache_t *cache, int op, uint64_t key, int source, int target)
{
    if (cache->counts) {
        int tiers = cache->tier_count;
        if (target >= 0)
            cache->counts[tiers + target]++;
        if (op == OP_DELETE)
            cache->counts[3 * tiers + source]++;
        else if (source >= 0)
            cache->counts[2 * tiers + source]++;
    }
    if (!cache->keeps_steps)
        return;
    if (!grow_array((void **)&cache->steps, &cache->step_room, cache->step_count + 1, sizeof(step_t))) {
        cache->is_out_of_memory = 1;
        return;
    }
    cache->steps[cache->step_count++] =
        (step_t){.key = key, .op = (int8_t)op, .source = (int8_t)source, .target = (int8_t)target};
}

static inline void leave(cache_t *cache, uint32_t block, int tier)
{
    if (!cache->tiers[tier].is_modelled)
        add_step(cache, OP_DELETE, block_key(&cache->blocks, block), tier, -1);
}

/* ---- one block --------------------------------------------------------------------------------------------------- */

/* That no tier holds it. */
static inline void note_absent(cache_t *cache, uint64_t key)
{
    if (!note_asked(&cache->asked, key, 0))
        cache->is_out_of_memory = 1;
}

static inline void ask(cache_t *cache, uint64_t key, uint32_t block)
{
    if (cache->second_use && !note_asked(&cache->asked, key, 1))
        cache->is_out_of_memory = 1;
    if (cache->has_ttl && block != NONE)
        *asked_ns_of(&cache->blocks, block) = cache->now_ns;
}

static inline int is_too_old(const cache_t *cache, uint32_t block)
{
    return cache->has_ttl && cache->now_ns - *asked_ns_of(&cache->blocks, block) > cache->ttl_ns;
}

/* A block that no tier holds any more. */
static void lose_block(cache_t *cache, uint32_t block)
{
    note_absent(cache, block_key(&cache->blocks, block));
    drop_block(&cache->blocks, block);
}

/* A block that any tier holds. One that is too old leaves all of them. */
static inline uint32_t find_living(cache_t *cache, uint64_t key)
{
    blocks_t *blocks = &cache->blocks;
    uint32_t block = find_block(blocks, key);
    if (block == NONE || !is_too_old(cache, block))
        return block;
    for (int tier = tier_from(blocks, block, 0); tier >= 0; tier = tier_from(blocks, block, tier + 1)) {
        remove_block(blocks, &cache->tiers[tier], block);
        leave(cache, block, tier);
    }
    lose_block(cache, block);
    return NONE;
}

static inline int takes(const cache_t *cache, uint64_t key, int tier)
{
    return tier != cache->tier_count - 1 || !cache->second_use || is_asked_again(&cache->asked, key);
}

/* The next tier below that has a place at all, or -1. */
static int tier_below(const cache_t *cache, int tier)
{
    for (tier++; tier < cache->tier_count; tier++)
        if (cache->tiers[tier].capacity > cache->tiers[tier].kept)
            return tier;
    return -1;
}

static void make_room(cache_t *cache, int tier);

/* `block` is NONE where it may be that no tier holds it: making room can have let it go. */
static void enter(cache_t *cache, uint64_t key, uint32_t block, int tier)
{
    int back = came_back(&cache->tiers[tier], key);
    make_room(cache, tier);
    if (block == NONE)
        block = find_block(&cache->blocks, key);
    if (block == NONE) {
        block = add_block(&cache->blocks, key);
        if (cache->has_ttl)
            *asked_ns_of(&cache->blocks, block) = cache->now_ns;
    }
    insert_block(&cache->blocks, &cache->tiers[tier], block, back);
}

/* The next to leave is asked for of memory while this one is dealt with. */
static inline void expect_victim(const cache_t *cache, const list_t *list, int tier)
{
    const blocks_t *blocks = &cache->blocks;
    if (list->oldest == NONE)
        return;
    uint64_t key = block_key(blocks, list->oldest);
    expect_slot(&blocks->table, hash_of(key));
    if (tier == cache->tier_count - 1)
        expect_asked(&cache->asked, key);
    __builtin_prefetch(record_of(blocks, links_of(blocks, list->oldest, tier)->after));
}

static void push_out(cache_t *cache, int tier)
{
    blocks_t *blocks = &cache->blocks;
    uint32_t block = evict_block(blocks, &cache->tiers[tier], &cache->is_out_of_memory);
    uint64_t key = block_key(blocks, block);
    expect_victim(cache, &cache->tiers[tier].queues[0], tier);
    if (*due_of(blocks, block) == tier + 1) {
        *due_of(blocks, block) = 0;
        if (!cache->tiers[tier].is_modelled)
            add_step(cache, OP_READ, key, tier, -1);
    }
    int target = tier_below(cache, tier);
    if (target >= 0 && tier_from(blocks, block, tier + 1) < 0 && takes(cache, key, target)) {
        enter(cache, key, block, target);
        if (cache->tiers[tier].is_modelled)
            add_step(cache, OP_WRITE, key, -1, target);
        else
            add_step(cache, OP_DEMOTE, key, tier, target);
        return;
    }
    leave(cache, block, tier);
    if (tier_from(blocks, block, 0) < 0)
        lose_block(cache, block);
}

static void make_room(cache_t *cache, int tier)
{
    while (cache->tiers[tier].held + cache->tiers[tier].kept >= cache->tiers[tier].capacity)
        push_out(cache, tier);
}

static void add_new(cache_t *cache, uint64_t key)
{
    int target = 0, last = cache->tier_count - 1;
    while (target <= last && !cache->tiers[target].capacity)
        target++;
    if (target > last) {
        note_absent(cache, key);
        return;
    }
    int is_twice = cache->write_through && target != last && cache->tiers[last].capacity;
    for (int tier = is_twice ? last : target;; tier = target) {
        if (takes(cache, key, tier)) {
            enter(cache, key, NONE, tier);
            if (!cache->tiers[tier].is_modelled)
                add_step(cache, OP_WRITE, key, -1, tier);
        } else if (tier == target) {
            note_absent(cache, key);
        }
        if (tier == target)
            return;
    }
}

static inline void read_found(cache_t *cache, uint64_t key, uint32_t block)
{
    blocks_t *blocks = &cache->blocks;
    int tier = *due_of(blocks, block) - 1, first = cache->first_real;
    if (tier < 0) {
        /* It had to leave its tier before its turn, and was read then. */
        hit_block(blocks, &cache->tiers[tier_from(blocks, block, 0)], block);
        return;
    }
    *due_of(blocks, block) = 0;
    hit_block(blocks, &cache->tiers[tier], block);
    if (cache->tiers[tier].is_modelled)
        return;
    if (cache->promote && tier > first && cache->tiers[first].capacity) {
        /* Until it is moved it keeps its place, so that room is made beside it. */
        remove_block(blocks, &cache->tiers[tier], block);
        cache->tiers[tier].kept++;
        enter(cache, key, block, first);
        cache->tiers[tier].kept--;
        add_step(cache, OP_PROMOTE, key, tier, first);
    } else {
        add_step(cache, OP_READ, key, tier, -1);
    }
    if (cache->tiers[0].is_modelled && cache->tiers[0].capacity)
        enter(cache, key, NONE, 0);
}

/* ---- a request --------------------------------------------------------------------------------------------------- */

/* Asks memory for what a search will look at: first the slots, later the records that these name. */
static inline void expect_key(const blocks_t *blocks, const uint64_t *keys, int64_t far, int64_t near, int64_t count)
{
    if (far >= 0 && far < count)
        expect_slot(&blocks->table, hash_of(keys[far]));
    if (near >= 0 && near < count && blocks->table.size)
        __builtin_prefetch(record_of(blocks, guess_number(&blocks->table, hash_of(keys[near]))));
}

/* A found block, which may have left since, and its number be another's. */
static inline uint32_t found_again(const cache_t *cache, uint64_t key, uint32_t block)
{
    if (block_key(&cache->blocks, block) == key && tier_from(&cache->blocks, block, 0) >= 0)
        return block;
    return find_block(&cache->blocks, key);
}

static void look_up(cache_t *cache, request_t *request)
{
    blocks_t *blocks = &cache->blocks;
    int64_t found = 0;
    for (; found < request->lookup; found++) {
        expect_key(blocks, cache->keys, found + FAR_AHEAD, found + AHEAD, request->lookup);
        uint64_t key = cache->keys[found];
        uint32_t block = find_living(cache, key);
        if (block == NONE)
            break;
        int tier = tier_from(blocks, block, 0);
        *due_of(blocks, block) = (uint8_t)(tier + 1);
        cache->found[found] = block;
        if (request->found_on)
            request->found_on[found] = (int8_t)tier;
        if (cache->counts)
            cache->counts[tier]++;
        ask(cache, key, block);
    }
    request->found = found;
}

/* What became of the blocks that were not found, as it is when they are looked up. */
static void tell_missed(cache_t *cache, const request_t *request)
{
    const blocks_t *blocks = &cache->blocks;
    int64_t numbers[MISS_KINDS + 1] = {0};
    for (int64_t at = request->found; at < request->lookup; at++) {
        expect_key(blocks, cache->keys, at + FAR_AHEAD, at + AHEAD, request->lookup);
        if (at + AHEAD < request->lookup)
            expect_asked(&cache->asked, cache->keys[at + AHEAD]);
        uint64_t key = cache->keys[at];
        uint32_t block = find_block(blocks, key);
        int what = NEVER_SEEN;
        if (block != NONE)
            what = is_too_old(cache, block) ? EVICTED : BEHIND_GAP;
        else if (was_asked(&cache->asked, key))
            what = EVICTED;
        cache->missed[at - request->found] = (int8_t)what;
        numbers[-what]++;
    }
    cache->missed_count = (uint64_t)(request->lookup - request->found);
    if (!cache->counts)
        return;
    int64_t *counts = cache->counts + 4 * cache->tier_count;
    for (int what = 1; what <= MISS_KINDS; what++)
        counts[what - 1] = numbers[what];
    counts[MISS_KINDS] = NO_BLOCK;
    if (cache->missed_count)
        counts[MISS_KINDS] = cache->missed[cache->missed_count - 1];
    else if (request->lookup)
        counts[MISS_KINDS] = *due_of(blocks, cache->found[request->lookup - 1]) - 1;
}

static void store_new(cache_t *cache, request_t *request)
{
    for (int64_t at = request->store - 1; at >= request->found; at--) {
        expect_key(&cache->blocks, cache->keys, at - FAR_AHEAD, at - AHEAD, request->store);
        uint64_t key = cache->keys[at];
        uint32_t block = find_living(cache, key);
        ask(cache, key, block);
        if (block == NONE)
            add_new(cache, key);
        else
            hit_block(&cache->blocks, &cache->tiers[tier_from(&cache->blocks, block, 0)], block);
    }
}

/* Blocks that were looked up, and are not to be stored: they were asked for all the same. */
static void note_unstored(cache_t *cache, const request_t *request)
{
    int64_t at = request->found > request->store ? request->found : request->store;
    for (; at < request->lookup; at++)
        if (find_block(&cache->blocks, cache->keys[at]) == NONE)
            note_absent(cache, cache->keys[at]);
}

/* 0 where there was no memory to begin it. */
static int begin_request(cache_t *cache, const request_t *request)
{
    if (!reserve_request(cache, (uint64_t)request->key_count))
        return 0;
    if (request->key_count)
        memcpy(cache->keys, request->keys, (size_t)request->key_count * sizeof(uint64_t));
    cache->now_ns = request->now_ns;
    cache->step_count = cache->missed_count = 0;
    return 1;
}

/* The request's parts are within its keys. 0 where there was no memory to begin it. */
static int serve_request(cache_t *cache, request_t *request)
{
    if (!begin_request(cache, request))
        return 0;
    look_up(cache, request);
    tell_missed(cache, request);
    for (int64_t at = request->found - 1; at >= 0; at--) {
        uint32_t block = found_again(cache, cache->keys[at], cache->found[at]);
        if (block != NONE)
            read_found(cache, cache->keys[at], block);
    }
    store_new(cache, request);
    note_unstored(cache, request);
    for (int64_t at = request->found - 1; at >= 0 && cache->policy == LRU; at--) {
        uint32_t block = found_again(cache, cache->keys[at], cache->found[at]);
        if (block != NONE)
            hit_block(&cache->blocks, &cache->tiers[tier_from(&cache->blocks, block, 0)], block);
        else if (at < request->store)
            add_new(cache, cache->keys[at]); /* its own chain has pushed it out: the head stays, and not the tail */
    }
    return 1;
}

#endif
