/* docs/isa.md, "What the instructions do", on memories that docs/registers.md gives the sizes of. */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

struct machine *machine_new(const struct hardware *hardware, uint8_t *image, size_t size, uint32_t length,
                            store_hook *hook, void *context)
{
    struct machine *m = room(1, sizeof *m);
    m->hardware = *hardware;
    m->image = image;
    m->size = size;
    m->length = length;
    m->hook = hook;
    m->context = context;
    m->memories[VALUES] = room(hardware->weight_words, hardware->groups);
    m->memories[POSITIONS] = room(hardware->position_words, hardware->groups * hardware->window / 8);
    m->memories[PARAMETERS] = room(hardware->parameter_words, 16);
    m->memories[TABLE] = room(256, 2);
    m->windows = room(size, 1);
    m->softmax = room(hardware->rows, sizeof *m->softmax);
    m->sums = room(1, 1);
    return m;
}

const uint64_t *machine_saturated(const struct machine *m)
{
    return m->saturated;
}

uint32_t bits(uint32_t word, unsigned first, unsigned count)
{
    return word >> first & (((uint32_t)1 << count) - 1);
}

bool inside(const struct machine *m, uint32_t address, uint64_t bytes)
{
    return address % m->hardware.bus == 0 && address + bytes <= m->size;
}

static uint64_t whole_beats(const struct machine *m, uint64_t bytes)
{
    return (bytes + m->hardware.bus - 1) / m->hardware.bus * m->hardware.bus;
}

int32_t read16(const uint8_t *bytes)
{
    int32_t value = bytes[0] | bytes[1] << 8;
    return value >= 32768 ? value - 65536 : value;
}

/* Counts groups of `together` values side by side with one at either end. */
void count_ends(struct machine *m, enum saturated which, const int16_t *values, size_t count, size_t together,
                       int limit)
{
    for (size_t i = 0; i < count; i += together) {
        bool any = false;
        for (size_t j = i; j < i + together; j++)
            any = any || values[j] == limit || values[j] == -limit;
        m->saturated[which] += any;
    }
}

/* Stores a column's values, of 1 or 2 bytes, without the first `before` and the last `after` rows. */
enum error store_column(struct machine *m, uint32_t address, const int16_t *values, size_t bytes,
                               uint32_t before, uint32_t after)
{
    uint32_t rows = m->hardware.rows;
    uint8_t data[512];
    if ((uint64_t)address + rows * bytes > m->size)
        return ADDRESS;
    for (uint32_t r = 0; r < rows; r++) {
        data[bytes * r] = (uint8_t)(uint16_t)values[r];
        if (bytes == 2)
            data[2 * r + 1] = (uint8_t)((uint16_t)values[r] >> 8);
    }
    before %= rows;
    after %= rows;
    if (before + after >= rows)
        return NONE;
    size_t first = before * bytes, count = (rows - before - after) * bytes;
    memcpy(m->image + address + first, data + first, count);
    m->hook(m->context, address + (uint32_t)first, data + first, count);
    return NONE;
}

/* Byte b of a short record in its column's word; the bias's highest one is then its sign. */
static void spread(uint8_t *column, size_t b, uint8_t byte)
{
    static const unsigned PLACES[8] = {0, 1, 2, 4, 5, 6, 8, 9};
    column[PLACES[b]] = byte;
    if (b == 2)
        column[3] = byte & 0x80 ? 0xFF : 0;
}

static enum error load(struct machine *m, const struct instruction *i)
{
    uint32_t rows = bits(i->low[1], 0, 16), destination = i->low[1] >> 16, beats = bits(i->high[1], 4, 20);
    uint32_t target = bits(i->high[1], 24, 4), address = i->low[0], stride = i->low[2];
    const struct hardware *h = &m->hardware;
    size_t word = target == VALUES ? h->groups : target == POSITIONS ? h->groups * h->window / 8
                : target == PARAMETERS ? 16 : target == SHORT_PARAMETERS ? 8 : 2;
    size_t words = target == VALUES ? h->weight_words : target == POSITIONS ? h->position_words
                 : target != TABLE ? h->parameter_words : 256;
    size_t at = destination % words * word;
    size_t left = (size_t)rows * beats * h->bus / word * word; /* what is no whole word is forgotten */
    for (uint32_t row = 0; row < rows; row++, address += stride) {
        size_t count = (size_t)beats * h->bus;
        if (!inside(m, address, count))
            return ADDRESS;
        for (size_t b = 0; b < count && left; b++, left--, at = (at + 1) % (words * word))
            if (target == SHORT_PARAMETERS)
                spread(m->memories[PARAMETERS] + at / 8 * 16, at % 8, m->image[address + b]);
            else
                m->memories[target][at] = m->image[address + b];
    }
    return NONE;
}

static enum error norm(struct machine *m, const struct instruction *i)
{
    uint32_t width = bits(i->high[1], 4, 14), before = bits(i->high[2], 4, 8), after = bits(i->high[2], 12, 8);
    uint64_t inverse = (uint64_t)bits(i->high[1], 18, 1) << 32 | i->low[4];
    size_t rows = m->hardware.rows, count = width * rows, together = m->hardware.bus / 2;
    int limit = bits(i->high[1], 21, 1) ? 16383 : 32767; /* bits15 */
    if (!inside(m, i->low[0], 2 * count) || !inside(m, i->low[1], 2 * count) || !inside(m, i->low[2], count)
        || !inside(m, i->low[3], whole_beats(m, (uint64_t)width * 8)))
        return ADDRESS;
    int16_t *x = room(count, sizeof *x), *wide = room(count, sizeof *wide), *narrow = room(count, sizeof *narrow);
    int8_t *bytes = room(count, 1);
    struct norm_column *columns = room(width, sizeof *columns);
    for (size_t k = 0; k < count; k++)
        x[k] = (int16_t)read16(m->image + i->low[0] + 2 * k);
    for (size_t c = 0; c < width; c++) {
        uint64_t word = 0;
        for (unsigned b = 0; b < 8; b++)
            word |= (uint64_t)m->image[i->low[3] + 8 * c + b] << 8 * b;
        columns[c].scale = (int32_t)(word & 0x3FFFF) - (word >> 17 & 1 ? 1 << 18 : 0);
        columns[c].shift = (int32_t)(word >> 18 & 0xFFFF) - (word >> 33 & 1 ? 1 << 16 : 0);
        columns[c].multiplier = (uint32_t)(word >> 34 & 0xFFFF);
    }
    for (size_t r = 0; r < rows; r++)
        layer_norm(x + r, width, inverse, columns, rows, wide + r, bytes + r, limit);
    for (size_t k = 0; k < count; k++)
        narrow[k] = bytes[k];
    enum error error = NONE;
    for (uint32_t c = 0; c < width && !error; c++) {
        count_ends(m, OF_NORMS, wide + c * rows, rows, together < rows ? together : rows, limit);
        error = store_column(m, i->low[1] + (uint32_t)(2 * c * rows), wide + c * rows, 2, before, after);
        if (!error)
            error = store_column(m, i->low[2] + (uint32_t)(c * rows), narrow + c * rows, 1, before, after);
    }
    free(x);
    free(wide);
    free(narrow);
    free(bytes);
    free(columns);
    return error;
}

enum error machine_run(struct machine *m, const struct instruction *instruction)
{
    switch (instruction->opcode) {
    case LOAD:
        return load(m, instruction);
    case NORM:
        return norm(m, instruction);
    default:
        return product(m, instruction);
    }
}
