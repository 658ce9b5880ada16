/* A prefetch: the blocks of a chain that are there come up before a request asks for them. _prefetch of _python.py.
 *
 * It is no use of a block: it counts for no admission and no time to live. Nothing here touches a Python object.
 */
#ifndef KVBENCH_PREFETCH_H
#define KVBENCH_PREFETCH_H

#include "_decide.h"

enum { PINNED = UINT8_MAX /* in the place of the tier that a block is due from: of the chain that is brought up */ };

/* Whether a block more can come to a tier, and all that this pushes out go its way, without one of the chain leaving
 * the tier that it is on. */
static int can_make_room(cache_t *cache, int tier)
{
    blocks_t *blocks = &cache->blocks;
    while (cache->tiers[tier].held >= cache->tiers[tier].capacity) {
        int is_new;
        uint32_t victim = next_victim(blocks, &cache->tiers[tier], &is_new);
        if (*due_of(blocks, victim) == PINNED)
            return 0;
        int target = tier_below(cache, tier);
        if (target < 0 || tier_from(blocks, victim, tier + 1) >= 0 || !takes(cache, block_key(blocks, victim), target))
            return 1;
        tier = target;
    }
    return 1;
}

/* Where to: the modelled tier, or the fastest real one that has places; -1 for none. */
static int top_tier(const cache_t *cache)
{
    for (int tier = 0; tier < cache->tier_count; tier++)
        if (cache->tiers[tier].capacity)
            return tier;
    return -1;
}

/* 0 where there is no room for it. */
static int bring_up(cache_t *cache, uint64_t key, uint32_t block, int top)
{
    blocks_t *blocks = &cache->blocks;
    int tier = tier_from(blocks, block, 0), is_copied = cache->tiers[top].is_modelled;
    int target = is_copied ? cache->first_real : top;
    int is_moved = tier > target && (!is_copied || (cache->promote && cache->tiers[target].capacity));
    if (!can_make_room(cache, is_moved ? target : top))
        return 0;
    if (is_moved) {
        /* With the block in its queue, so that what leaves is what was looked at. */
        make_room(cache, target);
        remove_block(blocks, &cache->tiers[tier], block);
        enter(cache, key, block, target);
        add_step(cache, OP_PROMOTE, key, tier, target);
        if (!is_copied)
            return 1;
        if (!can_make_room(cache, top))
            return 0;
    } else {
        add_step(cache, OP_READ, key, tier, -1);
    }
    enter(cache, key, block, top);
    return 1;
}

static void renew_chain(cache_t *cache, int64_t leading)
{
    const blocks_t *blocks = &cache->blocks;
    for (int64_t at = leading - 1; at >= 0 && cache->policy == LRU; at--)
        hit_block(blocks, &cache->tiers[tier_from(blocks, cache->found[at], 0)], cache->found[at]);
}

/* Pins the blocks of the chain up to the first that no tier holds; how many these are, and those of them on `top`. */
static int64_t pin_chain(cache_t *cache, const request_t *request, int top, uint64_t *there)
{
    blocks_t *blocks = &cache->blocks;
    int64_t leading = 0;
    for (; leading < request->key_count; leading++) {
        expect_key(blocks, cache->keys, leading + FAR_AHEAD, leading + AHEAD, request->key_count);
        uint32_t block = find_block(blocks, cache->keys[leading]);
        if (block == NONE || is_too_old(cache, block))
            break;
        cache->found[leading] = block;
        if (*due_of(blocks, block) != PINNED)
            *there += tier_from(blocks, block, 0) == top;
        *due_of(blocks, block) = PINNED;
    }
    return leading;
}

/* 0 where there was no memory to begin it. */
static int prefetch_request(cache_t *cache, const request_t *request)
{
    blocks_t *blocks = &cache->blocks;
    int top = top_tier(cache);
    uint64_t there = 0;
    if (!begin_request(cache, request))
        return 0;
    if (cache->counts)
        cache->counts[4 * cache->tier_count + MISS_KINDS] = NO_BLOCK;
    if (top < 0)
        return 1;
    int64_t leading = pin_chain(cache, request, top, &there), end = 0;
    for (uint64_t room = cache->tiers[top].capacity - there; end < leading && room; end++)
        room -= tier_from(blocks, cache->found[end], 0) != top;
    renew_chain(cache, leading);
    for (int64_t at = end - 1; at >= 0; at--)
        if (tier_from(blocks, cache->found[at], 0) != top && !bring_up(cache, cache->keys[at], cache->found[at], top))
            break;
    renew_chain(cache, leading);
    for (int64_t at = 0; at < leading; at++)
        *due_of(blocks, cache->found[at]) = 0;
    return 1;
}

#endif
