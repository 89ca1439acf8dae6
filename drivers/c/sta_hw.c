/* The driver's core; sta_hw.h says what its functions do. */
#include "sta_hw.h"

enum { PIECE = 64 };              /* bytes on the stack at a time */
enum { MOST_WEIGHT = 127 };       /* of a mean's windows, which are signed bytes */
enum { MOST_SPURIOUS = 1000 };    /* interrupts of somebody else's that wait() goes on after */

#define FIELD(word, name) (((word) & STA_HW_##name##_MASK) >> STA_HW_##name##_SHIFT)

/* -- sentences ---------------------------------------------------------------------------------- */

const char *sta_hw_sentence(enum sta_hw_code code) {
    static const char *const sentences[] = {
#define STA_HW_ENTRY(name, sentence) sentence,
        STA_HW_CODES(STA_HW_ENTRY)
#undef STA_HW_ENTRY
    };
    return (unsigned)code < STA_HW_CODE_COUNT ? sentences[code] : "an unknown code";
}

static const char *fault_name(enum sta_hw_fault fault) {
    switch (fault) {
#define STA_HW_ENTRY(name, number, sentence) \
    case STA_HW_FAULT_##name: \
        return #name;
        STA_HW_FAULTS(STA_HW_ENTRY)
#undef STA_HW_ENTRY
    default:
        return "unknown";
    }
}

const char *sta_hw_fault_sentence(enum sta_hw_fault fault) {
    switch (fault) {
#define STA_HW_ENTRY(name, number, sentence) \
    case STA_HW_FAULT_##name: \
        return sentence;
        STA_HW_FAULTS(STA_HW_ENTRY)
#undef STA_HW_ENTRY
    default:
        return "an error that this driver does not know";
    }
}

const char *sta_hw_counter_sentence(enum sta_hw_counter counter) {
    static const char *const sentences[] = {
#define STA_HW_ENTRY(name, number, sentence) sentence,
        STA_HW_COUNTERS(STA_HW_ENTRY)
#undef STA_HW_ENTRY
    };
    return (unsigned)counter < STA_HW_COUNTER_COUNT ? sentences[counter] : "an unknown counter";
}

struct text {
    char *start;
    size_t room; /* with the zero byte */
    size_t length;
};

static void say_character(struct text *t, char character) {
    if (t->length + 1 < t->room)
        t->start[t->length] = character;
    t->length++;
}

static void say(struct text *t, const char *words) {
    while (*words)
        say_character(t, *words++);
}

/* In halves: shifts of 64 bits by a variable would need a library on 32-bit processors, as division would. */
static void say_hex(struct text *t, uint64_t number) {
    const uint32_t half[2] = {(uint32_t)number, (uint32_t)(number >> 32)};
    int digit = 15;
    say(t, "0x");
    while (digit > 0 && !(half[digit / 8] >> 4 * (digit % 8) & 15))
        digit--;
    for (; digit >= 0; digit--)
        say_character(t, "0123456789abcdef"[half[digit / 8] >> 4 * (digit % 8) & 15]);
}

static void say_decimal(struct text *t, uint32_t number) {
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count)
        say_character(t, digits[--count]);
}

size_t sta_hw_explain(const struct sta_hw *dev, enum sta_hw_code code, char *text, size_t bytes) {
    struct text t = {text, text ? bytes : 0, 0};
    say(&t, sta_hw_sentence(code));
    switch (dev ? code : STA_HW_OK) { /* without an accelerator there are no numbers */
    case STA_HW_FAILED:
        say(&t, " at instruction ");
        say_decimal(&t, dev->instruction);
        say(&t, ": ");
        say(&t, fault_name(dev->fault));
        say(&t, ", ");
        say(&t, sta_hw_fault_sentence(dev->fault));
        break;
    case STA_HW_BUS:
        say(&t, ": its function returned ");
        if (dev->bus_error < 0)
            say_character(&t, '-');
        say_decimal(&t, dev->bus_error < 0 ? 0u - (uint32_t)dev->bus_error : (uint32_t)dev->bus_error);
        break;
    case STA_HW_NO_ACCELERATOR:
    case STA_HW_OTHER_VERSION:
    case STA_HW_OTHER_HARDWARE:
    case STA_HW_DAMAGED:
    case STA_HW_MISPLACED:
    case STA_HW_NO_INPUTS:
    case STA_HW_OTHER_IMAGE:
        say(&t, ": expected ");
        say_hex(&t, dev->expected);
        say(&t, ", found ");
        say_hex(&t, dev->found);
        break;
    case STA_HW_NO_ROOM:
    case STA_HW_WRONG_SIZE:
        say(&t, ": expected ");
        say_decimal(&t, (uint32_t)dev->expected);
        say(&t, ", found ");
        say_decimal(&t, (uint32_t)dev->found);
        break;
    default:
        break;
    }
    say_character(&t, '.');
    if (t.room)
        text[t.length < t.room ? t.length : t.room - 1] = '\0';
    return t.length;
}

static enum sta_hw_code differ(struct sta_hw *dev, enum sta_hw_code code, uint64_t expected, uint64_t found) {
    dev->expected = expected;
    dev->found = found;
    return code;
}

static enum sta_hw_code compare(struct sta_hw *dev, enum sta_hw_code code, uint64_t expected, uint64_t found) {
    return expected == found ? STA_HW_OK : differ(dev, code, expected, found);
}

/* -- the bus ------------------------------------------------------------------------------------ */

static enum sta_hw_code noted(struct sta_hw *dev, int answer) {
    if (!answer)
        return STA_HW_OK;
    dev->bus_error = answer;
    return STA_HW_BUS;
}

static enum sta_hw_code read_register(struct sta_hw *dev, enum sta_hw_register offset, uint32_t *value) {
    return noted(dev, dev->bus.read(dev->bus.context, (uint32_t)offset, value));
}

static enum sta_hw_code write_register(struct sta_hw *dev, enum sta_hw_register offset, uint32_t value) {
    return noted(dev, dev->bus.write(dev->bus.context, (uint32_t)offset, value));
}

static enum sta_hw_code put(struct sta_hw *dev, uint32_t offset, const void *bytes, uint32_t count) {
    return noted(dev, dev->bus.put(dev->bus.context, offset, bytes, count));
}

static enum sta_hw_code get(struct sta_hw *dev, uint32_t offset, void *bytes, uint32_t count) {
    return noted(dev, dev->bus.get(dev->bus.context, offset, bytes, count));
}

#define TRY(call) \
    do { \
        const enum sta_hw_code tried = (call); \
        if (tried != STA_HW_OK) \
            return tried; \
    } while (0)

enum sta_hw_code sta_hw_open(struct sta_hw *dev, const struct sta_hw_bus *bus, uint64_t hash) {
    static const struct sta_hw nothing = {0};
    struct sta_hw_bus given;
    uint32_t value, high;
    if (!dev || !bus || !bus->read || !bus->write || !bus->put || !bus->get)
        return STA_HW_BAD_ARGUMENT;
    given = *bus; /* which may be that of `dev` itself */
    *dev = nothing;
    dev->bus = given;
    TRY(read_register(dev, STA_HW_REG_ID, &value));
    TRY(compare(dev, STA_HW_NO_ACCELERATOR, STA_HW_ID_VALUE, value));
    TRY(read_register(dev, STA_HW_REG_VERSION, &dev->version));
    TRY(compare(dev, STA_HW_OTHER_VERSION, STA_HW_VERSION_VALUE, dev->version));
    TRY(read_register(dev, STA_HW_REG_HASH_LOW, &value));
    TRY(read_register(dev, STA_HW_REG_HASH_HIGH, &high));
    dev->hash = (uint64_t)high << 32 | value;
    if (hash)
        TRY(compare(dev, STA_HW_OTHER_HARDWARE, hash, dev->hash));
    TRY(read_register(dev, STA_HW_REG_SHAPE, &value));
    dev->rows = FIELD(value, SHAPE_ROWS);
    dev->groups = FIELD(value, SHAPE_GROUPS);
    dev->window = FIELD(value, SHAPE_WINDOW);
    dev->bus_bytes = FIELD(value, SHAPE_LANES);
    return STA_HW_OK;
}

/* An accelerator that was never opened, in memory that is zero, has no bus. */
static int is_open(const struct sta_hw *dev) {
    return dev && dev->bus.read;
}

static enum sta_hw_code require_idle(struct sta_hw *dev) {
    uint32_t status;
    TRY(read_register(dev, STA_HW_REG_STATUS, &status));
    return status & STA_HW_STATUS_BUSY_MASK ? STA_HW_BUSY : STA_HW_OK;
}

/* -- the image ---------------------------------------------------------------------------------- */

uint32_t sta_hw_crc32(uint32_t crc, const void *bytes, size_t count) {
    /* A table for four bits: 64 bytes, and small processors have no more to spare. */
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const uint8_t *next = bytes;
    crc = ~crc;
    while (next && count--) {
        crc ^= *next++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static int holds(const struct sta_hw_image *image, uint32_t offset, uint64_t bytes) {
    return offset <= image->bytes && bytes <= image->bytes - offset;
}

/* Lines of a tensor in whole tiles, all of them in the image. */
static int holds_tensor(const struct sta_hw_image *image, const struct sta_hw_tensor *tensor) {
    uint64_t values;
    if (!tensor->channels)
        return 1;
    values = (uint64_t)tensor->lines * tensor->channels;
    return tensor->rows && tensor->lines % tensor->rows == 0 && values <= image->bytes / 2 &&
           holds(image, tensor->offset, 2 * values);
}

/* Windows of whole blocks, as many groups wide as the hardware has. */
static int holds_mean(const struct sta_hw_image *image, uint32_t groups) {
    const uint64_t positions = (uint64_t)groups * image->mean.depth, bytes = image->mean.bytes;
    if (!bytes)
        return 1;
    return image->text_count == 1 && holds(image, image->mean.offset, bytes) && positions && positions <= bytes &&
           positions * image->input.rows <= bytes && image->mean.bytes % ((uint32_t)positions * image->input.rows) == 0;
}

/* Whether all that a struct of the caller's says lies in the image, so that nothing else is written or read. */
static int well_formed(const struct sta_hw_image *image, uint32_t groups) {
    uint32_t text, end = 0;
    if (!image->texts || !image->text_count || !image->input.channels || !holds(image, image->program, 1) ||
        !holds_tensor(image, &image->input) || !holds_tensor(image, &image->pooled) ||
        !holds_tensor(image, &image->outputs) || !holds_mean(image, groups))
        return 0;
    for (text = 0; text < image->text_count; text++) {
        const struct sta_hw_text *place = &image->texts[text];
        if (place->first < end || !place->tokens || place->first > image->input.lines ||
            place->tokens > image->input.lines - place->first)
            return 0;
        end = place->first + place->tokens;
    }
    return (!image->outputs.channels || end <= image->outputs.lines) &&
           (!image->pooled.channels || image->text_count <= image->pooled.lines);
}

/* All that can be known before a byte is moved. From here on no image is loaded. */
static enum sta_hw_code prepare(struct sta_hw *dev, const struct sta_hw_image *image) {
    const uint64_t start = dev->bus.memory_address;
    uint32_t within;
    TRY(require_idle(dev));
    dev->image.bytes = 0;
    dev->started = 0;
    TRY(compare(dev, STA_HW_OTHER_VERSION, dev->version, image->version));
    TRY(compare(dev, STA_HW_OTHER_HARDWARE, dev->hash, image->hash));
    if (!image->bytes || !image->burst_bytes || image->burst_bytes & (image->burst_bytes - 1) ||
        image->bytes & (image->burst_bytes - 1) || !well_formed(image, dev->groups))
        return STA_HW_BAD_ARGUMENT;
    if (image->bytes > dev->bus.memory_bytes)
        return differ(dev, STA_HW_NO_ROOM, image->bytes, dev->bus.memory_bytes);
    within = (uint32_t)start & (image->burst_bytes - 1);
    TRY(compare(dev, STA_HW_MISPLACED, start - within, start));
    if (start > 0xFFFFFFFFu || start + image->bytes > 0x100000000u)
        return differ(dev, STA_HW_MISPLACED, 0x100000000u, start > 0xFFFFFFFFu ? start : start + image->bytes);
    return STA_HW_OK;
}

/* Tokens of an image's one text; the program of several has their lengths in itself. */
static uint32_t full_length(const struct sta_hw_image *image) {
    return image->text_count == 1 ? image->texts[0].tokens : 0;
}

enum sta_hw_code sta_hw_load(struct sta_hw *dev, const struct sta_hw_image *image, const void *bytes, uint32_t count) {
    struct sta_hw_image given;
    if (!is_open(dev) || !image || !bytes)
        return STA_HW_BAD_ARGUMENT;
    given = *image; /* which may be that of `dev` itself, to be loaded anew */
    TRY(prepare(dev, &given));
    TRY(compare(dev, STA_HW_WRONG_SIZE, given.bytes, count));
    TRY(compare(dev, STA_HW_DAMAGED, given.crc32, sta_hw_crc32(0, bytes, count)));
    TRY(put(dev, 0, bytes, count));
    dev->image = given;
    dev->length = full_length(&given);
    return STA_HW_OK;
}

enum sta_hw_code sta_hw_load_from(struct sta_hw *dev, const struct sta_hw_image *image, sta_hw_reader read,
                                  void *context, void *buffer, uint32_t buffer_bytes) {
    struct sta_hw_image given;
    uint32_t crc = 0, at = 0;
    if (!is_open(dev) || !image || !read || !buffer || !buffer_bytes)
        return STA_HW_BAD_ARGUMENT;
    given = *image;
    TRY(prepare(dev, &given));
    while (at < given.bytes) {
        const uint32_t left = given.bytes - at, wanted = left < buffer_bytes ? left : buffer_bytes;
        const size_t got = read(context, buffer, wanted);
        if (got > wanted)
            return STA_HW_BAD_ARGUMENT;
        if (got < wanted)
            return differ(dev, STA_HW_WRONG_SIZE, given.bytes, at + (uint32_t)got);
        crc = sta_hw_crc32(crc, buffer, wanted);
        TRY(put(dev, at, buffer, wanted));
        at += wanted;
    }
    if (read(context, buffer, 1))
        return differ(dev, STA_HW_WRONG_SIZE, given.bytes, (uint64_t)given.bytes + 1);
    TRY(compare(dev, STA_HW_DAMAGED, given.crc32, crc));
    dev->image = given;
    dev->length = full_length(&given);
    return STA_HW_OK;
}

static enum sta_hw_code require_image(struct sta_hw *dev) {
    if (!dev)
        return STA_HW_BAD_ARGUMENT;
    return dev->image.bytes ? require_idle(dev) : STA_HW_NOT_LOADED;
}

enum sta_hw_code sta_hw_check_memory(struct sta_hw *dev) {
    uint8_t piece[PIECE];
    uint32_t crc = 0, at = 0;
    TRY(require_image(dev));
    while (at < dev->image.bytes) {
        const uint32_t left = dev->image.bytes - at, count = left < PIECE ? left : PIECE;
        TRY(get(dev, at, piece, count));
        crc = sta_hw_crc32(crc, piece, count);
        at += count;
    }
    return compare(dev, STA_HW_DAMAGED, dev->image.crc32, crc);
}

/* -- input and output --------------------------------------------------------------------------- */

static uint32_t input_bytes(const struct sta_hw *dev) {
    return 2 * dev->image.input.lines * dev->image.input.channels;
}

enum sta_hw_code sta_hw_put_input(struct sta_hw *dev, const void *bytes, uint32_t count) {
    TRY(require_image(dev));
    if (!bytes)
        return STA_HW_BAD_ARGUMENT;
    TRY(compare(dev, STA_HW_WRONG_SIZE, input_bytes(dev), count));
    dev->started = 0;
    return put(dev, dev->image.input.offset, bytes, count);
}

enum sta_hw_code sta_hw_set_length(struct sta_hw *dev, uint32_t tokens) {
    const struct sta_hw_mean *mean;
    uint32_t full, weight, each, rows, at, i;
    TRY(require_image(dev));
    full = full_length(&dev->image);
    if (!tokens || tokens > full)
        TRY(compare(dev, STA_HW_WRONG_SIZE, full, tokens));
    dev->started = 0;
    mean = &dev->image.mean;
    weight = tokens && full / tokens < MOST_WEIGHT ? full / tokens : MOST_WEIGHT;
    each = dev->groups * mean->depth;
    rows = dev->image.input.rows;
    for (at = 0; at < mean->bytes; at += i) {
        uint8_t piece[PIECE];
        enum sta_hw_code code;
        for (i = 0; i < PIECE && at + i < mean->bytes; i++) {
            const uint32_t position = (at + i) / rows, within = position % each;
            const uint32_t token = position - within + dev->groups * (within % mean->depth) + within / mean->depth;
            piece[i] = token < tokens ? (uint8_t)weight : 0;
        }
        code = put(dev, mean->offset + at, piece, i);
        if (code != STA_HW_OK) { /* the windows are neither the old length's nor the new one's */
            dev->image.bytes = 0;
            return code;
        }
    }
    dev->length = tokens;
    return STA_HW_OK;
}

static uint32_t word_of(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

enum sta_hw_code sta_hw_check_inputs(struct sta_hw *dev, const void *header, uint32_t *inputs) {
    const uint8_t *bytes = header;
    int i;
    if (!dev || !header || !inputs)
        return STA_HW_BAD_ARGUMENT;
    if (!dev->image.bytes)
        return STA_HW_NOT_LOADED;
    TRY(compare(dev, STA_HW_NO_INPUTS, STA_HW_INPUTS_MAGIC, word_of(bytes)));
    TRY(compare(dev, STA_HW_OTHER_VERSION, STA_HW_INPUTS_FORMAT, word_of(bytes + 4)));
    TRY(compare(dev, STA_HW_OTHER_IMAGE, dev->image.crc32, word_of(bytes + 16)));
    TRY(compare(dev, STA_HW_WRONG_SIZE, input_bytes(dev), word_of(bytes + 12)));
    for (i = 20; i < STA_HW_INPUTS_HEADER_BYTES; i++) /* reserved */
        TRY(compare(dev, STA_HW_NO_INPUTS, 0, bytes[i]));
    *inputs = word_of(bytes + 8);
    return STA_HW_OK;
}

/* Where a line's value of a channel is. */
static uint32_t place_of(const struct sta_hw_tensor *tensor, uint32_t line, uint32_t channel) {
    const uint32_t tile = line / tensor->rows, row = line % tensor->rows;
    return tensor->offset + 2 * ((tile * tensor->channels + channel) * tensor->rows + row);
}

/* How many lines from `line` on, before `stop`, lie side by side in a column, and fit a piece of the stack. */
static uint32_t side_by_side(const struct sta_hw_tensor *tensor, uint32_t line, uint32_t stop) {
    uint32_t count = tensor->rows - line % tensor->rows;
    if (count > stop - line)
        count = stop - line;
    return count < PIECE / 2 ? count : PIECE / 2;
}

static uint32_t tokens_of(const struct sta_hw *dev, uint32_t text) {
    return dev->image.text_count == 1 ? dev->length : dev->image.texts[text].tokens;
}

static enum sta_hw_code require_text(struct sta_hw *dev, uint32_t text) {
    TRY(require_image(dev));
    return text < dev->image.text_count ? STA_HW_OK : STA_HW_NO_TEXT;
}

enum sta_hw_code sta_hw_put_text(struct sta_hw *dev, uint32_t text, const int16_t *values, uint32_t count) {
    const struct sta_hw_tensor *input;
    const struct sta_hw_text *place;
    uint32_t stop, line, channel, i, tokens;
    TRY(require_text(dev, text));
    if (!values)
        return STA_HW_BAD_ARGUMENT;
    input = &dev->image.input;
    place = &dev->image.texts[text];
    tokens = tokens_of(dev, text);
    TRY(compare(dev, STA_HW_WRONG_SIZE, tokens * input->channels, count));
    dev->started = 0;
    /* Lines up to the next text's repeat the last token: they then saturate only where it does. */
    stop = text + 1 < dev->image.text_count ? place[1].first : input->lines;
    for (line = place->first; line < stop; line += side_by_side(input, line, stop)) {
        const uint32_t together = side_by_side(input, line, stop);
        for (channel = 0; channel < input->channels; channel++) {
            uint8_t piece[PIECE];
            for (i = 0; i < together; i++) {
                const uint32_t token = line - place->first + i;
                const uint32_t real = token < tokens ? token : tokens - 1;
                const uint16_t value = (uint16_t)values[real * input->channels + channel];
                piece[2 * i] = (uint8_t)value;
                piece[2 * i + 1] = (uint8_t)(value >> 8);
            }
            TRY(put(dev, place_of(input, line, channel), piece, 2 * together));
        }
    }
    return STA_HW_OK;
}

/* How the program ended that is no longer under way. */
static enum sta_hw_code ended(struct sta_hw *dev, uint32_t status) {
    if (!dev->started || !(status & (STA_HW_STATUS_DONE_MASK | STA_HW_STATUS_FAILED_MASK)))
        return STA_HW_NOT_STARTED;
    if (status & STA_HW_STATUS_DONE_MASK)
        return STA_HW_OK;
    dev->fault = (enum sta_hw_fault)FIELD(status, STATUS_ERROR);
    TRY(read_register(dev, STA_HW_REG_ERROR_INSTRUCTION, &dev->instruction));
    return STA_HW_FAILED;
}

/* A text of a program that ended well: what lies in the memory is its result. */
static enum sta_hw_code require_result(struct sta_hw *dev, uint32_t text) {
    uint32_t status;
    TRY(require_text(dev, text));
    TRY(read_register(dev, STA_HW_REG_STATUS, &status));
    return ended(dev, status);
}

/* `lines` lines from `first` on. */
static enum sta_hw_code get_lines(struct sta_hw *dev, const struct sta_hw_tensor *tensor, uint32_t first,
                                  uint32_t lines, int16_t *values, uint32_t count) {
    uint32_t line, channel, i;
    if (!tensor->channels)
        return STA_HW_NO_OUTPUT;
    if (!values)
        return STA_HW_BAD_ARGUMENT;
    TRY(compare(dev, STA_HW_WRONG_SIZE, lines * tensor->channels, count));
    for (line = 0; line < lines; line += side_by_side(tensor, first + line, first + lines)) {
        const uint32_t together = side_by_side(tensor, first + line, first + lines);
        for (channel = 0; channel < tensor->channels; channel++) {
            uint8_t piece[PIECE];
            TRY(get(dev, place_of(tensor, first + line, channel), piece, 2 * together));
            for (i = 0; i < together; i++) {
                const int32_t value = piece[2 * i] | piece[2 * i + 1] << 8;
                values[(line + i) * tensor->channels + channel] = (int16_t)(value < 32768 ? value : value - 65536);
            }
        }
    }
    return STA_HW_OK;
}

enum sta_hw_code sta_hw_get_pooled(struct sta_hw *dev, uint32_t text, int16_t *values, uint32_t count) {
    TRY(require_result(dev, text));
    return get_lines(dev, &dev->image.pooled, text, 1, values, count);
}

enum sta_hw_code sta_hw_get_outputs(struct sta_hw *dev, uint32_t text, int16_t *values, uint32_t count) {
    TRY(require_result(dev, text));
    return get_lines(dev, &dev->image.outputs, dev->image.texts[text].first, tokens_of(dev, text), values, count);
}

/* -- running ------------------------------------------------------------------------------------ */

enum sta_hw_code sta_hw_start(struct sta_hw *dev, int interrupt) {
    uint32_t status;
    TRY(require_image(dev));
    if (interrupt && !dev->bus.wait)
        return STA_HW_NO_INTERRUPT;
    dev->started = 0;
    TRY(write_register(dev, STA_HW_REG_IMAGE_ADDRESS, (uint32_t)dev->bus.memory_address));
    TRY(write_register(dev, STA_HW_REG_IMAGE_SIZE, dev->image.bytes));
    TRY(write_register(dev, STA_HW_REG_PROGRAM_ADDRESS, dev->image.program));
    TRY(write_register(dev, STA_HW_REG_LENGTH, dev->length)); /* keys from there on are not valid */
    TRY(write_register(dev, STA_HW_REG_CONTROL,
                       STA_HW_CONTROL_START_MASK | (interrupt ? STA_HW_CONTROL_INTERRUPT_ENABLE_MASK : 0)));
    TRY(read_register(dev, STA_HW_REG_STATUS, &status));
    if (status & STA_HW_STATUS_REFUSED_MASK)
        return STA_HW_REFUSED;
    dev->started = 1;
    return STA_HW_OK;
}

/* Look at the status until nothing is under way. */
static enum sta_hw_code settle(struct sta_hw *dev, uint32_t looks, uint32_t *status) {
    while (looks--) {
        TRY(read_register(dev, STA_HW_REG_STATUS, status));
        if (!(*status & STA_HW_STATUS_BUSY_MASK))
            return STA_HW_OK;
        if (dev->bus.pause)
            dev->bus.pause(dev->bus.context);
    }
    return STA_HW_TIMEOUT;
}

enum sta_hw_code sta_hw_poll(struct sta_hw *dev, uint32_t looks) {
    uint32_t status;
    if (!is_open(dev))
        return STA_HW_BAD_ARGUMENT;
    TRY(settle(dev, looks, &status));
    return ended(dev, status);
}

enum sta_hw_code sta_hw_wait(struct sta_hw *dev, uint32_t milliseconds) {
    uint32_t status;
    int spurious = 0, answer = STA_HW_RAISED;
    if (!is_open(dev))
        return STA_HW_BAD_ARGUMENT;
    if (!dev->bus.wait)
        return STA_HW_NO_INTERRUPT;
    for (;;) {
        /* Whatever the line said, the status counts: an interrupt may be lost, or another device's. */
        TRY(read_register(dev, STA_HW_REG_STATUS, &status));
        if (!(status & STA_HW_STATUS_BUSY_MASK)) {
            TRY(write_register(dev, STA_HW_REG_INTERRUPT_CLEAR, 1));
            return ended(dev, status);
        }
        if (answer == STA_HW_TIMED_OUT || spurious++ == MOST_SPURIOUS)
            return STA_HW_TIMEOUT;
        answer = dev->bus.wait(dev->bus.context, milliseconds);
        if (answer != STA_HW_RAISED && answer != STA_HW_TIMED_OUT)
            return noted(dev, answer);
    }
}

enum sta_hw_code sta_hw_counters(struct sta_hw *dev, uint32_t values[STA_HW_COUNTER_COUNT]) {
    static const enum sta_hw_register registers[] = {
#define STA_HW_ENTRY(name, number, sentence) STA_HW_REG_COUNTER_##name,
        STA_HW_COUNTERS(STA_HW_ENTRY)
#undef STA_HW_ENTRY
    };
    int i;
    if (!is_open(dev) || !values)
        return STA_HW_BAD_ARGUMENT;
    for (i = 0; i < STA_HW_COUNTER_COUNT; i++)
        TRY(read_register(dev, registers[i], &values[i]));
    return STA_HW_OK;
}

enum sta_hw_code sta_hw_reset(struct sta_hw *dev, uint32_t looks) {
    uint32_t status;
    if (!is_open(dev))
        return STA_HW_BAD_ARGUMENT;
    dev->started = 0;
    TRY(write_register(dev, STA_HW_REG_CONTROL, STA_HW_CONTROL_RESET_MASK));
    return settle(dev, looks, &status);
}
