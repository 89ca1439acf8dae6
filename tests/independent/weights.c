/* docs/format.md: a decoder from that page alone. */
#include "executor.h"

#include <stdlib.h>
#include <string.h>

static bool is_legal_pattern(const struct weights *w, const struct hardware *hardware)
{
    uint32_t m = (uint32_t)1 << w->m_log2;
    if (w->encoding == DENSE)
        return w->n == 1 && w->m_log2 == 0;
    if (w->encoding > BITMAP || (w->encoding == INDEX ? !hardware->has_index : !hardware->has_bitmap))
        return false;
    return w->m_log2 >= 1 && w->m_log2 <= 5 && m <= hardware->window && w->n >= 1 && w->n <= m && w->depth % m == 0;
}

bool weights_legal(const struct weights *w, const struct hardware *hardware)
{
    if (!w->passes || !w->columns || !w->depth || w->depth > hardware->window || !is_legal_pattern(w, hardware))
        return false;
    uint64_t entries = (uint64_t)w->passes * w->columns * (w->depth >> w->m_log2) * w->n;
    uint64_t positions = 0;
    if (w->encoding == INDEX) {
        uint32_t together = hardware->window / w->m_log2;
        positions = (entries + together - 1) / together;
    } else if (w->encoding == BITMAP) {
        positions = (uint64_t)w->passes * w->columns;
    }
    return w->value_beats == entries && (w->encoding == DENSE || w->position_beats == positions);
}

/* Bytes 0 to 2 of a block's scale and minimum. */
static void take_header(const uint8_t **words, uint32_t number, uint32_t share, uint32_t groups, uint8_t *header,
                        uint8_t *kept)
{
    const uint8_t *word = *words;
    uint32_t taken = share == 1 ? 3 : share == 2 ? 2 - number % 2 : 1;
    for (uint32_t block = 0; block < groups / share; block++) {
        uint8_t *to = header + 3 * block;
        const uint8_t *own = word + share * block;
        for (uint32_t i = 0; i < 3; i++)
            to[i] = share == 1 ? own[groups * i] : share == 2 && i == 2 ? kept[block] : own[i];
        if (share == 2 && number % 2 == 0) {
            to[2] = own[groups];
            kept[block] = own[groups + 1];
        }
    }
    *words += taken * groups;
}

/* The same of wide blocks, whose words have headers of `share` runs. */
static void take_wide_header(const uint8_t **words, uint32_t number, uint32_t share, uint32_t groups, uint8_t *header,
                             uint8_t *kept)
{
    uint32_t place = number % share * (groups / share);
    if (!place) {
        memcpy(kept, *words, groups);
        *words += groups;
    }
    for (uint32_t block = 0; block < groups / (4 * share); block++)
        memcpy(header + 3 * block, kept + place + 4 * block, 3);
}

bool expand(const uint8_t *words, uint64_t count, uint64_t entries, uint32_t run, bool wide,
            const struct hardware *hardware, uint8_t *values)
{
    uint32_t groups = hardware->groups, share = hardware->window < 32 ? 32 / hardware->window : 1;
    if (share > groups)
        share = groups;
    if (entries % run)
        fail("runs of %u values do not divide a product's", (unsigned)run);
    uint64_t runs = entries / run, headers = runs + 1;
    if (wide)
        headers = (headers + share - 1) / share;
    else if (share == 1)
        headers *= 3;
    else if (share == 2)
        headers += (headers + 1) / 2;
    if (count != headers + runs * ((run + 1) / 2))
        return false;
    uint8_t *both[2] = {room(groups, 3), room(groups, 3)}, *kept = room(groups, 1);
    uint32_t together = wide ? 4 * share : share;
    (wide ? take_wide_header : take_header)(&words, 0, share, groups, both[0], kept);
    for (uint64_t r = 0; r < runs; r++) {
        (wide ? take_wide_header : take_header)(&words, (uint32_t)(r + 1), share, groups, both[(r + 1) % 2], kept);
        for (uint32_t v = 0; v < run; v++)
            for (uint32_t g = 0; g < groups; g++) {
                const uint8_t *h = both[r % 2] + 3 * (g / together);
                uint32_t scale = h[0] | (uint32_t)(h[1] & 15) << 8, minimum = h[1] >> 4 | (uint32_t)h[2] << 4;
                uint32_t code = words[v / 2 * groups + g] >> 4 * (v % 2) & 15;
                *values++ = (uint8_t)((code * scale + 8 * minimum) >> 7);
            }
        words += (size_t)groups * ((run + 1) / 2);
    }
    free(both[0]);
    free(both[1]);
    free(kept);
    return true;
}

/* Word `beat` of a group's lane of positions. */
static uint32_t position_word(const struct weights *w, const struct hardware *hardware, uint64_t beat, uint32_t group)
{
    uint64_t first = (beat * hardware->groups + group) * hardware->window;
    uint32_t word = 0;
    for (uint32_t i = 0; i < hardware->window; i++)
        word |= (uint32_t)(w->positions[(first + i) / 8] >> (first + i) % 8 & 1) << i;
    return word;
}

enum error decode(const struct weights *w, const struct hardware *hardware, int8_t *matrix)
{
    uint32_t m = (uint32_t)1 << w->m_log2, groups = hardware->groups, subgroups = w->depth / m;
    uint32_t together = w->m_log2 ? hardware->window / w->m_log2 : 1;
    size_t reduction = (size_t)w->passes * groups * w->depth;
    memset(matrix, 0, reduction * w->columns);
    for (uint32_t group = 0; group < groups; group++) {
        uint64_t beat = 0;
        for (uint32_t pass = 0; pass < w->passes; pass++)
            for (uint32_t column = 0; column < w->columns; column++) {
                uint64_t word_number = (uint64_t)pass * w->columns + column;
                uint32_t bits = w->encoding == BITMAP ? position_word(w, hardware, word_number, group) : 0;
                if (w->encoding == BITMAP && w->depth < 32 && bits >> w->depth)
                    return ENGINE;
                for (uint32_t s = 0; s < subgroups; s++) {
                    int64_t last = -1, position = -1;
                    for (uint32_t entry = 0; entry < w->n; entry++, beat++) {
                        if (w->encoding == DENSE) {
                            position = 0;
                        } else if (w->encoding == INDEX) {
                            uint32_t word = position_word(w, hardware, beat / together, group);
                            position = word >> beat % together * w->m_log2 & (m - 1);
                        } else {
                            do
                                position++;
                            while (position < (int64_t)m && !(bits >> (s * m + (uint32_t)position) & 1));
                        }
                        if (position <= last || position >= (int64_t)m)
                            return ENGINE;
                        last = position;
                        size_t k = ((size_t)pass * groups + group) * w->depth + s * m + (size_t)position;
                        matrix[column * reduction + k] = (int8_t)w->values[beat * groups + group];
                    }
                    if (w->encoding == BITMAP)
                        while (++position < (int64_t)m)
                            if (bits >> (s * m + (uint32_t)position) & 1)
                                return ENGINE;
                }
            }
    }
    return NONE;
}
