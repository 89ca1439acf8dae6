/* docs/isa.md, "What the instructions do": PRODUCT, SCORES and CONTEXT. */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

/* A product's fields by their names in docs/isa.md, and what it computes. */
struct product {
    uint32_t opcode, window_address, result_address, residual_address, window_beats, result, gain, mask, keys;
    uint32_t rows_before, rows_after, parameters_base, digit;
    int32_t key_start;
    bool continues, unfinished, wide, parameters_step, row_first, row_last, coarse, lift, bits15, keep, kept, apart;
    struct weights weights;
    int8_t *matrix;   /* columns x reduction */
    int16_t *windows; /* reduction x rows */
    int32_t *sums;    /* columns x rows */
    int16_t *results; /* columns x rows */
};

/* Takes the instruction apart, and its weights from the rings. */
static enum error take_apart(struct machine *m, const struct instruction *i, struct product *p)
{
    const struct hardware *h = &m->hardware;
    const uint32_t *low = i->low, *high = i->high;
    struct weights *w = &p->weights;
    p->opcode = i->opcode;
    p->window_address = low[0];
    p->result_address = low[1];
    p->window_beats = bits(high[1], 4, 20);
    p->result = bits(high[1], 24, 4);
    p->continues = bits(high[1], 28, 1);
    p->unfinished = bits(high[1], 29, 1);
    p->wide = bits(high[1], 30, 1);
    p->parameters_step = bits(high[1], 31, 1);
    p->residual_address = low[2];
    p->rows_before = bits(high[2], 4, 8);
    p->rows_after = bits(high[2], 12, 8);
    p->row_first = bits(high[2], 20, 1);
    p->row_last = bits(high[2], 21, 1);
    p->gain = bits(high[2], 22, 3);
    p->coarse = bits(high[2], 25, 1);
    p->mask = bits(high[2], 26, 2);
    p->parameters_base = low[5] >> 16;
    p->keys = bits(low[6], 0, 16);
    p->key_start = (int32_t)(low[6] >> 16) - (low[6] >> 31 ? 65536 : 0);
    p->digit = bits(high[6], 24, 2);
    p->lift = bits(high[6], 26, 1);
    p->bits15 = bits(high[6], 27, 1);
    p->keep = bits(high[6], 20, 1);
    p->kept = bits(high[6], 21, 1);
    p->apart = bits(high[6], 22, 1);
    w->columns = bits(low[5], 0, 16);
    w->passes = bits(low[7], 0, 16);
    w->n = bits(low[7], 16, 6);
    w->m_log2 = bits(low[7], 22, 3);
    w->depth = bits(low[7], 25, 6);
    w->encoding = bits(high[7], 4, 2);
    uint32_t counts[4] = {bits(low[3], 0, 16), bits(high[4], 20, 12), bits(high[5], 20, 12), bits(high[3], 20, 12)};
    uint32_t strides[4] = {bits(high[3], 4, 16), bits(high[4], 4, 16), bits(high[5], 4, 16), bits(high[6], 4, 16)};
    w->value_beats = (uint64_t)counts[0] * counts[1] * counts[2] * counts[3];
    w->position_beats = bits(low[4], 0, 16);
    bool kept = w->passes > 1 || p->unfinished || p->continues;
    bool in_blocks = bits(high[7], 6, 2) != 0, wide = bits(high[7], 6, 2) == 2;
    uint64_t words = w->value_beats;
    if (in_blocks)
        w->value_beats = (uint64_t)w->passes * w->columns * (w->depth >> w->m_log2) * w->n;
    if (!weights_legal(w, h) || (kept && w->columns > h->columns))
        return ENGINE;
    uint8_t *values = room(words, h->groups), *to = values;
    for (uint32_t c3 = 0; c3 < counts[3]; c3++)
        for (uint32_t c2 = 0; c2 < counts[2]; c2++)
            for (uint32_t c1 = 0; c1 < counts[1]; c1++)
                for (uint32_t c0 = 0; c0 < counts[0]; c0++, to += h->groups) {
                    uint32_t word = (low[3] >> 16) + c0 * strides[0] + c1 * strides[1] + c2 * strides[2]
                                  + c3 * strides[3];
                    memcpy(to, m->memories[VALUES] + word % h->weight_words * h->groups, h->groups);
                }
    if (in_blocks) {
        uint8_t *expanded = room(w->value_beats, h->groups);
        bool whole = expand(values, words, w->value_beats, bits(high[7], 8, 6), wide, h, expanded);
        free(values);
        values = expanded;
        if (!whole) {
            free(values);
            return ENGINE;
        }
    }
    size_t size = h->groups * h->window / 8;
    uint8_t *positions = room(w->position_beats, size);
    for (uint32_t b = 0; b < w->position_beats; b++)
        memcpy(positions + b * size, m->memories[POSITIONS] + ((low[4] >> 16) + b) % h->position_words * size, size);
    w->values = values;
    w->positions = positions;
    p->matrix = room((size_t)w->columns * w->passes * h->groups, w->depth);
    p->windows = room((size_t)w->passes * h->groups * w->depth * h->rows, sizeof *p->windows);
    p->sums = room((size_t)w->columns * h->rows, sizeof *p->sums);
    p->results = room((size_t)w->columns * h->rows, sizeof *p->results);
    enum error error = decode(w, h, p->matrix);
    free(values);
    free(positions);
    return error;
}

/* The windows: of memory signed, of probabilities unsigned. */
static enum error take_windows(struct machine *m, struct product *p, const struct block *block)
{
    size_t count = (size_t)p->weights.passes * m->hardware.groups * p->weights.depth * m->hardware.rows;
    if (p->opcode == CONTEXT) {
        if (block->keys * m->hardware.rows != count || (size_t)p->window_beats * m->hardware.bus != count)
            fail("a CONTEXT's windows are not the softmax's block");
        for (size_t i = 0; i < count; i++)
            p->windows[i] = block->probabilities[i];
        return NONE;
    }
    if (!inside(m, p->window_address, (uint64_t)p->window_beats * m->hardware.bus))
        return ADDRESS;
    if ((size_t)p->window_beats * m->hardware.bus != (p->digit ? 2 : 1) * count)
        fail("a product has other windows than it multiplies");
    if (p->keep)
        memcpy(m->windows + p->window_address, m->image + p->window_address, (p->digit ? 2 : 1) * count);
    const uint8_t *from = p->kept ? m->windows : m->image;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = from + p->window_address + (p->digit ? 2 : 1) * i;
        int16_t high = (int16_t)((at[0] >> 7 | at[1] << 1) & 255);
        p->windows[i] = p->digit == 2 ? at[0] & 127 : p->digit ? (int16_t)(high - (high > 127 ? 256 : 0)) : (int8_t)at[0];
    }
    return NONE;
}

static void multiply(struct machine *m, struct product *p, const struct block *block)
{
    size_t rows = m->hardware.rows, columns = p->weights.columns;
    size_t reduction = (size_t)p->weights.passes * m->hardware.groups * p->weights.depth;
    if (p->weights.passes > 1 && m->columns_of_sums && !p->continues)
        fail("a product of several passes takes the place of sums that are kept");
    if (p->continues && m->columns_of_sums != columns)
        fail("a product continues one of %u columns and has %u", (unsigned)m->columns_of_sums, (unsigned)columns);
    if (p->continues) {
        memcpy(p->sums, m->sums, columns * rows * sizeof *p->sums);
        m->columns_of_sums = 0;
    }
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++) {
            int32_t *sum = p->sums + c * rows + r;
            if (block)
                *sum = (int32_t)floor_shift(*sum, block->growth[r]);
            uint32_t total = (uint32_t)*sum * (p->lift ? 128u : 1u); /* modulo 2^32 */
            for (size_t k = 0; k < reduction; k++)
                total += (uint32_t)(p->windows[k * rows + r] * p->matrix[c * reduction + k]);
            *sum = total >> 31 ? (int32_t)(total - 0x80000000u) - 2147483647 - 1 : (int32_t)total;
        }
    if (p->unfinished) {
        free(m->sums);
        m->sums = room(columns * rows, sizeof *m->sums);
        memcpy(m->sums, p->sums, columns * rows * sizeof *m->sums);
        m->columns_of_sums = columns;
    }
}

/* Results go to memory as `result` says. */
static enum error store(struct machine *m, const struct product *p)
{
    size_t rows = m->hardware.rows, groups = m->hardware.groups, columns = p->weights.columns;
    bool two = p->result == STORE16 || p->result == RESIDUAL || p->bits15;
    int limit = p->bits15 ? 16383 : two ? 32767 : 127;
    size_t step = p->apart ? groups : rows * (two ? 2 : 1); /* from one column to the next */
    if (!inside(m, p->result_address, columns * step))
        return ADDRESS;
    if (p->result == RESIDUAL && !inside(m, p->residual_address, columns * rows * 2))
        return ADDRESS;
    for (size_t c = 0; c < columns; c++) {
        int16_t *column = p->results + c * rows;
        uint32_t word = p->parameters_base + (p->parameters_step ? (uint32_t)c : 0);
        const uint8_t *parameters = m->memories[PARAMETERS] + word % m->hardware.parameter_words * 16;
        uint32_t second = parameters[8] | (uint32_t)parameters[9] << 8;
        for (size_t r = 0; r < rows; r++) {
            if (p->result == ACTIVATE) {
                int32_t entry = read16(m->memories[TABLE] + 2 * ((uint16_t)column[r] % 256));
                column[r] = (int16_t)saturate(scaled(entry, second), limit);
            } else if (p->result == RESIDUAL) {
                int32_t stream = read16(m->image + p->residual_address + 2 * (c * rows + r));
                column[r] = (int16_t)saturate(column[r] + scaled(stream, second), 32767);
            } else if (p->bits15) {
                column[r] = (int16_t)saturate(column[r], limit);
            } else if (!two) { /* the lower 8 bits of 16, if it is wide */
                int low = (uint16_t)column[r] % 256;
                column[r] = (int16_t)(low > 127 ? low - 256 : low);
            }
        }
        count_ends(m, two ? OF_SUMS : OF_RESULTS, column, rows, m->hardware.drain_lanes, limit);
        if (p->result != TRANSPOSE) {
            uint32_t address = p->result_address + (uint32_t)(c * step);
            enum error error = store_column(m, address, column, two ? 2 : 1, p->rows_before, p->rows_after);
            if (error)
                return error;
            continue;
        }
        for (size_t r = p->rows_before % rows; r + p->rows_after % rows < rows; r++) {
            uint32_t address = p->result_address + (uint32_t)((c / groups * rows + r) * groups + c % groups);
            m->image[address] = (uint8_t)(uint16_t)column[r];
            m->hook(m->context, address, m->image + address, 1);
        }
    }
    return NONE;
}

/* Scores into the softmax. */
static void into_softmax(struct machine *m, const struct product *p)
{
    size_t rows = m->hardware.rows, columns = p->weights.columns;
    uint32_t groups = m->hardware.groups, depth = p->weights.columns / groups;
    if (p->weights.columns % groups)
        fail("a block of %u keys is not whole words of %u", (unsigned)columns, (unsigned)groups);
    struct block *block = room(1, sizeof *block);
    block->keys = columns;
    block->probabilities = room(columns, rows);
    block->growth = room(rows, sizeof *block->growth);
    block->multiplier = room(rows, sizeof *block->multiplier);
    block->shift = room(rows, sizeof *block->shift);
    bool *valid = room(columns, sizeof *valid);
    int32_t *logits = room(columns, sizeof *logits);
    uint8_t *to = room(columns, 1);
    int32_t limit = (int32_t)(p->mask ? m->length : p->keys);
    for (uint32_t c = 0; c < columns; c++) {
        int32_t number = p->key_start + (int32_t)(groups * (c % depth) + c / depth);
        valid[c] = number >= 0 && number < limit;
        if (valid[c])
            count_ends(m, OF_SCORES, p->results + c * rows, rows, m->hardware.drain_lanes, 32767);
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++)
            logits[c] = p->results[c * rows + r] * (p->coarse ? 8 : 1);
        if (p->row_first)
            softmax_begin(m->softmax + r);
        block->growth[r] = softmax_block(m->softmax + r, logits, valid, columns, to);
        for (size_t c = 0; c < columns; c++)
            block->probabilities[c * rows + r] = to[c];
        if (p->row_last)
            softmax_end(m->softmax + r, p->gain, block->multiplier + r, block->shift + r);
    }
    free(valid);
    free(logits);
    free(to);
    if (m->last)
        m->last->next = block;
    else
        m->first = block;
    m->last = block;
}

static struct block *from_softmax(struct machine *m)
{
    struct block *block = m->first;
    if (!block)
        fail("a CONTEXT without a block in the softmax");
    m->first = block->next;
    if (!m->first)
        m->last = NULL;
    return block;
}

static enum error compute(struct machine *m, struct product *p, const struct block *block)
{
    size_t rows = m->hardware.rows;
    enum error error = take_windows(m, p, block);
    if (error)
        return error;
    multiply(m, p, block);
    if (p->unfinished)
        return NONE;
    for (size_t c = 0; c < p->weights.columns; c++) {
        uint32_t word = p->parameters_base + (p->parameters_step ? (uint32_t)c : 0);
        const uint8_t *b = m->memories[PARAMETERS] + word % m->hardware.parameter_words * 16;
        uint32_t bias = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        int32_t bias_signed = bias >> 31 ? (int32_t)(bias - 0x80000000u) - 2147483647 - 1 : (int32_t)bias;
        uint32_t multiplier = b[4] | (uint32_t)b[5] << 8;
        for (size_t r = 0; r < rows; r++) {
            int32_t sum = p->sums[c * rows + r];
            p->results[c * rows + r] = (int16_t)(block
                ? requantize(sum, 0, block->multiplier[r], block->shift[r], p->wide)
                : requantize(sum, bias_signed, multiplier, b[6] & 7, p->wide));
        }
    }
    if (p->opcode != SCORES)
        return store(m, p);
    into_softmax(m, p);
    return NONE;
}

enum error product(struct machine *m, const struct instruction *i)
{
    struct product p = {0};
    struct block *block = NULL;
    enum error error = take_apart(m, i, &p);
    if (!error) {
        block = p.opcode == CONTEXT ? from_softmax(m) : NULL;
        error = compute(m, &p, block);
    }
    free(p.matrix);
    free(p.windows);
    free(p.sums);
    free(p.results);
    if (block) {
        free(block->probabilities);
        free(block->growth);
        free(block->multiplier);
        free(block->shift);
        free(block);
    }
    return error;
}
