/* docs/format.md: a decoder from that page alone. */
#include "executor.h"

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
