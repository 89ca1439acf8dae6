/* docs/isa.md, "Words and registers": from the bytes of a program to the instructions that reach a unit. */
#include "executor.h"

#include <string.h>

static const unsigned WORDS[16] = {[HALT] = 1, [LOAD] = 3, [PRODUCT] = 8, [SCORES] = 8, [CONTEXT] = 8,
                                   [NORM] = 5, [SET] = 1, [LOOP] = 1, [NEXT] = 1};

/* Bits 36 to 63 of each word that a field has which may be other than 0. */
#define BITS(first, last) ((((uint32_t)1 << ((last) - (first))) * 2 - 1) << ((first) - 32))
#define ALL BITS(36, 63)
static const uint32_t FIELDS_HALT[] = {BITS(36, 39)};
static const uint32_t FIELDS_LOAD[] = {ALL, BITS(36, 59), 0};
static const uint32_t FIELDS_PRODUCT[] = {ALL, ALL, BITS(36, 59), ALL, ALL, ALL, BITS(36, 54) | BITS(56, 59), BITS(36, 45)};
static const uint32_t FIELDS_NORM[] = {ALL, BITS(36, 50) | BITS(53, 53), BITS(36, 51), 0, 0};
static const uint32_t FIELDS_SET[] = {BITS(36, 43)};
static const uint32_t *const FIELDS[16] = {
    [HALT] = FIELDS_HALT, [LOAD] = FIELDS_LOAD, [PRODUCT] = FIELDS_PRODUCT, [SCORES] = FIELDS_PRODUCT,
    [CONTEXT] = FIELDS_PRODUCT, [NORM] = FIELDS_NORM, [SET] = FIELDS_SET, [LOOP] = FIELDS_HALT, [NEXT] = FIELDS_HALT};

static uint32_t little(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

enum error fetch_begin(struct fetch *fetch, const struct hardware *hardware, const uint8_t *image, size_t size,
                       uint64_t address, uint32_t length)
{
    memset(fetch, 0, sizeof *fetch);
    if (address % hardware->bus || address + 64 > size)
        return ADDRESS;
    const uint8_t *header = image + address;
    uint32_t lines = little(header + 8);
    if (memcmp(header, "STAH", 4) || little(header + 4) != 3 || !lines || lines > 131071)
        return HEADER;
    if ((little(header + 16) | (uint64_t)little(header + 20) << 32) != hardware->hash)
        return HARDWARE;
    if (address + 64 * (uint64_t)lines > size)
        return ADDRESS;
    fetch->words = header + 64;
    fetch->groups = hardware->groups;
    fetch->window = hardware->window;
    fetch->has_digits = hardware->has_digits;
    fetch->has_blocks = hardware->has_blocks;
    fetch->rows = hardware->rows;
    fetch->bus = hardware->bus;
    fetch->window_words = hardware->window_words;
    fetch->count = 8 * (lines - 1);
    fetch->registers[15] = length;
    fetch->registers[14] = (length + hardware->rows - 1) / hardware->rows;
    return NONE;
}

/* The ring that a loop's body stays in has 64 lines: it is looked at where an outermost loop begins. */
static bool body_fits(const struct fetch *fetch, uint32_t body)
{
    unsigned depth = 1;
    for (uint32_t at = body; at < fetch->count;) {
        uint32_t opcode = little(fetch->words + 8 * (size_t)at + 4) >> 4 & 15;
        if (!WORDS[opcode] || opcode == HALT)
            return true; /* refused for that when it comes */
        if (opcode == LOOP)
            depth++;
        if (opcode == NEXT && !--depth)
            return at / 8 - body / 8 + 1 <= 64;
        at += WORDS[opcode];
    }
    return true;
}

/* `digit`, `lift` and `bits15`, where there are such, with what they go with. */
static bool digits_legal(const struct fetch *fetch, const struct instruction *i, uint32_t result)
{
    uint32_t digit = i->high[6] >> 24 & 3;
    bool lift = i->high[6] >> 26 & 1, bits15 = i->high[6] >> 27 & 1, continues = i->high[1] >> 28 & 1;
    if (!digit && !lift && !bits15)
        return true;
    if (!fetch->has_digits || digit == 3 || (lift && !continues) || ((digit || lift) && i->opcode != PRODUCT))
        return false;
    return !bits15 || (i->opcode != SCORES && result == STORE16) || (i->opcode == PRODUCT && result == ACTIVATE);
}

/* The windows that stay on chip, by their addresses: what an instruction may take of them, and what it adds. */
static bool windows_legal(struct fetch *fetch, const struct instruction *i)
{
    bool keep = i->high[6] >> 20 & 1, kept = i->high[6] >> 21 & 1;
    uint64_t begin = i->low[0], size = (uint64_t)(i->high[1] >> 4 & 0xFFFFF) * fetch->bus, end = begin + size;
    uint64_t room = (uint64_t)fetch->window_words * fetch->bus;
    if (!keep && !kept)
        return true;
    if (!room || (keep && kept) || i->opcode == CONTEXT)
        return false;
    if (kept)
        return begin % fetch->bus == 0 && begin >= fetch->stay_begin && begin <= fetch->stay_end
            && end <= fetch->stay_end;
    if (size > room)
        return false;
    uint64_t last = end > fetch->stay_end ? end : fetch->stay_end;
    if (begin >= fetch->stay_begin && begin <= fetch->stay_end && last - fetch->stay_begin <= room) {
        fetch->stay_end = last;
    } else {
        fetch->stay_begin = begin;
        fetch->stay_end = end;
    }
    return true;
}

/* Weights of 4 bits: wide blocks are those of hardware with eight times the groups of a block of 32 weights. */
static bool blocks_legal(const struct fetch *fetch, uint32_t value_format, uint32_t run)
{
    uint32_t share = fetch->window < 32 ? 32 / fetch->window : 1;
    if (share > fetch->groups)
        share = fetch->groups;
    if (!fetch->has_blocks)
        return !value_format && !run;
    return !value_format || (run >= 2 && (value_format == 1 || (value_format == 2 && 8 * share <= fetch->groups)));
}

/* Codes in the upper parts that are some, and columns in whole blocks where they have to be. */
static bool legal(struct fetch *fetch, const struct instruction *i)
{
    uint32_t columns = i->low[5] & 0xFFFF, result = i->high[1] >> 24 & 15;
    switch (i->opcode) {
    case LOAD:
        return (i->high[1] >> 24 & 15) <= (fetch->has_blocks ? SHORT_PARAMETERS : TABLE);
    case PRODUCT: case SCORES: case CONTEXT:
        if (columns % fetch->groups && (i->opcode == SCORES || result == TRANSPOSE))
            return false;
        if (i->opcode == SCORES && columns > fetch->groups * fetch->window)
            return false;
        if (!blocks_legal(fetch, i->high[7] >> 6 & 3, i->high[7] >> 8 & 63))
            return false;
        if ((i->high[6] >> 22 & 1) && (fetch->groups <= fetch->rows || i->opcode != PRODUCT || result != STORE8))
            return false;
        return result <= TRANSPOSE && (i->high[2] >> 26 & 3) <= 1 && digits_legal(fetch, i, result)
            && windows_legal(fetch, i);
    case NORM:
        return fetch->has_digits || !(i->high[1] >> 21 & 1);
    default:
        return true;
    }
}

enum error fetch_next(struct fetch *fetch, struct instruction *instruction)
{
    for (;;) {
        if (fetch->at >= fetch->count)
            return OPCODE;
        const uint8_t *bytes = fetch->words + 8 * (size_t)fetch->at;
        memset(instruction, 0, sizeof *instruction);
        instruction->number = fetch->issued;
        instruction->opcode = little(bytes + 4) >> 4 & 15;
        unsigned words = WORDS[instruction->opcode];
        if (!words || fetch->at + words > fetch->count)
            return OPCODE;
        for (unsigned w = 0; w < words; w++) {
            uint32_t high = little(bytes + 8 * w + 4);
            if (high & ALL & ~FIELDS[instruction->opcode][w])
                return OPCODE;
            instruction->low[w] = little(bytes + 8 * w) + fetch->registers[high & 15];
            instruction->high[w] = high;
        }
        if (!legal(fetch, instruction))
            return OPCODE;
        fetch->at += words;
        uint32_t low = instruction->low[0];
        switch (instruction->opcode) {
        case SET: {
            uint32_t to = instruction->high[0] >> 8 & 15;
            if (!to)
                return OPCODE;
            fetch->registers[to] = low;
            break;
        }
        case LOOP:
            if (fetch->depth == 8 || !(low & 0xFFFF) || (!fetch->depth && !body_fits(fetch, fetch->at)))
                return OPCODE;
            fetch->loops[fetch->depth].body = fetch->at;
            fetch->loops[fetch->depth++].turns = low & 0xFFFF;
            break;
        case NEXT:
            if (!fetch->depth)
                return OPCODE;
            if (--fetch->loops[fetch->depth - 1].turns)
                fetch->at = fetch->loops[fetch->depth - 1].body;
            else
                fetch->depth--;
            break;
        case HALT:
            return fetch->depth ? OPCODE : NONE;
        default:
            fetch->issued++;
            return NONE;
        }
    }
}
